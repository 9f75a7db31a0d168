"""Keeping conversations."""

import sqlite3
import stat
import time
from pathlib import Path

import attrs
import pytest
import structlog
import trio

from voice_fsm import config
from voice_fsm.errors import ConfigError
from voice_fsm.runtime.conversations import MAX_WAITING, ConversationKeeper, open_conversations, open_keeper
from voice_fsm.runtime.transcript import ConversationRecord

NOW = int(time.time())


def record(name: str, agent: str = "a", started_unix_s: int = NOW) -> ConversationRecord:
    return ConversationRecord(
        conversation_id=name,
        agent_id=agent,
        started_unix_s=started_unix_s,
        entries=({"role": "user", "message": "caf\u00e9"},),
    )


async def kept(keeper: ConversationKeeper, name: str) -> ConversationRecord:
    """Wait until it has been written."""
    with trio.fail_after(5):
        while (found := await keeper.store.get(name)) is None:
            await trio.sleep(0.01)
    return found


async def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    """Whole, readable by its owner alone, and written before the server has stopped."""
    path = tmp_path / "c.db"
    async with open_keeper(path, 30) as keeper:
        keeper.keep(record("one"))
        keeper.keep(attrs.evolve(record("one"), status="done"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with open_keeper(path, 30) as keeper:
        assert await keeper.store.get("one") == attrs.evolve(record("one"), status="done")
        assert await keeper.store.get("two") is None


async def test_pages_lead_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    """Each once, also those that began in one second; of one agent where that is asked."""
    async with open_keeper(tmp_path / "c.db", 30) as keeper:
        for number in range(7):
            await keeper.store.save(record(f"c{number}", "ab"[number % 2], NOW - number // 2))
        names: list[str] = []
        after, more = None, True
        while more:
            page = await keeper.store.page(agent_id=None, after=after, size=2)
            names += [found.conversation_id for found in page.records]
            more = page.has_more
            after = (page.records[-1].started_unix_s, page.records[-1].conversation_id)
        assert names == ["c1", "c0", "c3", "c2", "c5", "c4", "c6"]
        page = await keeper.store.page(agent_id="b", after=None, size=9)
        assert [found.conversation_id for found in page.records] == ["c1", "c3", "c5"]


async def test_what_is_deleted_leaves_no_trace_in_the_file(tmp_path: Path) -> None:
    """Not only the row: its bytes."""
    path = tmp_path / "c.db"
    async with open_keeper(path, 30) as keeper:
        await keeper.store.save(attrs.evolve(record("one"), user_id="very-secret-user"))
        assert await keeper.store.delete("one")
        assert not await keeper.store.delete("one")
    assert b"very-secret-user" not in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["c.db"]  # noqa: ASYNC240  # no loop waits for it


async def test_old_conversations_are_forgotten(tmp_path: Path) -> None:
    """At the start, and from then on every hour."""
    path = tmp_path / "c.db"
    async with open_keeper(path, 30) as keeper:
        await keeper.store.save(record("old", started_unix_s=NOW - 3 * 86400))
        await keeper.store.save(record("new"))
    async with open_keeper(path, 2) as keeper:
        with trio.fail_after(5):
            while await keeper.store.get("old") is not None:
                await trio.sleep(0.01)
        assert await keeper.store.get("new") is not None


async def test_a_disk_that_fails_costs_records_and_nothing_else(tmp_path: Path) -> None:
    """What cannot be written is told in the log; what comes when it can is."""
    path = tmp_path / "c.db"
    with structlog.testing.capture_logs() as lines:
        async with open_keeper(path, 30) as keeper:
            with sqlite3.connect(path) as other:
                other.execute("ALTER TABLE conversations RENAME TO elsewhere")
            keeper.keep(record("lost"))
            with trio.fail_after(5):
                while not any(line["event"] == "conversation_lost" for line in lines):
                    await trio.sleep(0.01)
            with pytest.raises(OSError, match="cannot be reached"):
                await keeper.store.get("lost")
            other.execute("ALTER TABLE elsewhere RENAME TO conversations")
            other.close()
            keeper.keep(record("kept"))
            await kept(keeper, "kept")
            assert await keeper.store.get("lost") is None


async def test_too_many_records_are_dropped_and_not_piled_up(tmp_path: Path) -> None:
    """Sessions never wait for the disk."""
    with structlog.testing.capture_logs() as lines:
        async with open_keeper(tmp_path / "c.db", 30) as keeper:
            for number in range(MAX_WAITING + 1):
                keeper.keep(record(f"c{number}"))
        keeper.keep(record("late"))
    lost = [line["conversation"] for line in lines if line["event"] == "conversation_lost"]
    assert lost == [f"c{MAX_WAITING}", "late"]


@pytest.mark.parametrize("name", ["missing/c.db", "."])
async def test_a_file_that_cannot_be_had_stops_the_start(tmp_path: Path, name: str) -> None:
    """With a sentence that names the variable."""
    with pytest.raises(ConfigError, match="CONVERSATIONS_DB"):
        async with open_conversations(config.Agents(conversations_db=str(tmp_path / name))):
            pass


async def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    """Privacy is the default."""
    async with open_conversations(config.Agents()) as keeper:
        assert keeper is None
