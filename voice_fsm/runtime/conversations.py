"""Keeping conversations: in a SQLite file, beside the event loop, and never at the cost of a session."""

import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, Protocol, TypeVar

import attrs
import structlog
import trio

from voice_fsm import config
from voice_fsm.errors import ConfigError
from voice_fsm.runtime.transcript import ConversationRecord

log = structlog.get_logger()

T = TypeVar("T")

MAX_WAITING: Final = 256
"""Records that may wait to be written; more are lost, with a line in the log."""
LAST_WRITES_S: Final = 5.0
"""How long those that wait may take when the server stops."""
RETENTION_EVERY_S: Final = 3600.0
BUSY_S: Final = 5.0
"""How long another process may hold the file."""

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS conversations (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    started_unix_s INTEGER NOT NULL,
    record TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_start ON conversations (started_unix_s, id);
"""


@attrs.frozen
class Page:
    """Some conversations, the newest first."""

    records: tuple[ConversationRecord, ...]
    has_more: bool


Position = tuple[int, str]
"""Start and id of a conversation: those of a page come after it."""


class ConversationStore(Protocol):
    """Where conversations are kept; any method may raise `OSError`."""

    async def save(self, record: ConversationRecord) -> None:
        """Keep a record in the place of an older one of the same conversation."""

    async def get(self, conversation_id: str) -> ConversationRecord | None:
        """Find one."""

    async def page(self, *, agent_id: str | None, after: Position | None, size: int) -> Page:
        """List them."""

    async def delete(self, conversation_id: str) -> bool:
        """Forget one; whether it was there."""

    async def delete_before(self, unix_s: float) -> int:
        """Forget those that began before a time; how many."""


class SqliteConversations:
    """A `ConversationStore` in one file, which several processes may share."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def save(self, record: ConversationRecord) -> None:
        """See `ConversationStore.save`."""
        row = (
            record.conversation_id,
            record.agent_id,
            record.started_unix_s,
            json.dumps(attrs.asdict(record)),
        )
        await self._run(
            lambda db: db.execute("INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?)", row)
        )

    async def get(self, conversation_id: str) -> ConversationRecord | None:
        """See `ConversationStore.get`."""
        query = "SELECT record FROM conversations WHERE id = ?"
        row = await self._run(lambda db: db.execute(query, (conversation_id,)).fetchone())
        return _record(row[0]) if row else None

    async def page(self, *, agent_id: str | None, after: Position | None, size: int) -> Page:
        """See `ConversationStore.page`."""
        query = (
            "SELECT record FROM conversations "
            "WHERE (:agent IS NULL OR agent_id = :agent) "
            "AND (:start IS NULL OR (started_unix_s, id) < (:start, :id)) "
            "ORDER BY started_unix_s DESC, id DESC LIMIT :limit"
        )
        start, last_id = after or (None, None)
        values = {"agent": agent_id, "start": start, "id": last_id, "limit": size + 1}
        rows = await self._run(lambda db: db.execute(query, values).fetchall())
        return Page(tuple(_record(row[0]) for row in rows[:size]), has_more=len(rows) > size)

    async def delete(self, conversation_id: str) -> bool:
        """See `ConversationStore.delete`."""
        query = "DELETE FROM conversations WHERE id = ?"
        return await self._run(lambda db: db.execute(query, (conversation_id,)).rowcount) > 0

    async def delete_before(self, unix_s: float) -> int:
        """See `ConversationStore.delete_before`."""
        query = "DELETE FROM conversations WHERE started_unix_s < ?"
        return await self._run(lambda db: db.execute(query, (unix_s,)).rowcount)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def in_thread() -> T:
            try:
                with self._connection as db:
                    return work(db)
            except sqlite3.Error as error:
                raise OSError(f"the conversations cannot be reached: {error}") from error

        return await trio.to_thread.run_sync(in_thread, limiter=self._one_at_a_time)


class ConversationKeeper:
    """Writes records in the background, in order."""

    def __init__(self, store: ConversationStore) -> None:
        self.store = store
        self._waiting, self._to_write = trio.open_memory_channel[ConversationRecord](MAX_WAITING)

    def keep(self, record: ConversationRecord) -> None:
        """Have a record written. Never waits, never fails."""
        try:
            self._waiting.send_nowait(record)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            log.warning("conversation_lost", conversation=record.conversation_id, reason="too many wait")

    async def write(self) -> None:
        """Write what comes until `finish`."""
        async with self._to_write:
            async for record in self._to_write:
                try:
                    await self.store.save(record)
                except OSError as error:
                    log.warning("conversation_lost", conversation=record.conversation_id, reason=str(error))

    def finish(self) -> None:
        """Take no more; `write` ends once all is written."""
        self._waiting.close()


@asynccontextmanager
async def open_conversations(settings: config.Agents) -> AsyncIterator[ConversationKeeper | None]:
    """Keep conversations for the block, if the settings say where.

    Raises:
        ConfigError: the file cannot be opened.
    """
    if settings.conversations_db is None:
        yield None
    else:
        async with open_keeper(Path(settings.conversations_db), settings.conversations_keep_days) as keeper:
            yield keeper


@asynccontextmanager
async def open_keeper(path: Path, keep_days: float) -> AsyncIterator[ConversationKeeper]:
    """Open the file, or make it; for the block conversations are kept, and old ones forgotten.

    Raises:
        ConfigError: it cannot be opened.
    """
    with closing(_connect(path)) as connection:
        keeper = ConversationKeeper(SqliteConversations(connection))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_forget_old, keeper.store, keep_days)
            async with trio.open_nursery() as writing:
                writing.start_soon(keeper.write)
                try:
                    yield keeper
                finally:
                    keeper.finish()
                    writing.cancel_scope.deadline = trio.current_time() + LAST_WRITES_S
            nursery.cancel_scope.cancel(reason="nothing is kept any more")


async def _forget_old(store: ConversationStore, keep_days: float) -> None:
    while True:
        try:
            forgotten = await store.delete_before(time.time() - keep_days * 86400)
        except OSError as error:
            log.warning("retention_failed", reason=str(error))
        else:
            if forgotten:
                log.info("conversations_forgotten", conversations=forgotten)
        await trio.sleep(RETENTION_EVERY_S)


def _connect(path: Path) -> sqlite3.Connection:
    """Only the owner may read the file; what is deleted is overwritten."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise ConfigError("CONVERSATIONS_DB", f"{path} cannot be used: {error}") from None
    return connection


def _record(text: str) -> ConversationRecord:
    fields = json.loads(text)
    return ConversationRecord(**{**fields, "entries": tuple(fields["entries"])})
