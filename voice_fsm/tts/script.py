"""The text of a reply as it is being written."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)

import trio

from voice_fsm.errors import ProviderError
from voice_fsm.upstream.websocket import background_nursery


class Script:
    """The text of one reply, piece by piece, kept so that a second attempt can read it from its start."""

    def __init__(self, pieces: trio.MemoryReceiveChannel[str], *, max_piece_chars: int | None = None) -> None:
        self.taken = 0
        """How many pieces belong to requests that were made already."""
        self._source = pieces
        self._is_all_read = False
        self._max_piece_chars = max_piece_chars
        self._pieces: list[str] = []

    def knows(self, number: int) -> bool:
        """Whether that piece, or that there is none, can be told without waiting."""
        try:
            while number >= len(self._pieces) and not self._is_all_read:
                self._keep(self._source.receive_nowait())
        except trio.WouldBlock:
            return False
        except trio.EndOfChannel:
            self._is_all_read = True
        return True

    async def piece(self, number: int) -> str | None:
        """Wait for a piece, which may be given up at any time; ``None``: the reply has ended.

        A checkpoint only where it has to wait.
        """
        while not self.knows(number):
            with suppress(trio.EndOfChannel):  # which is known from then on
                self._keep(await self._source.receive())
        return self._pieces[number] if number < len(self._pieces) else None

    async def whole(self, within_s: float, max_chars: int) -> str | None:
        """Give all of the text if its end is known so soon, and it is no longer than that."""
        with trio.move_on_after(within_s):
            number = 0
            while await self.piece(number) is not None:
                number += 1
            text = self.until(number)
            return text if len(text) <= max_chars else None
        return None

    def until(self, number: int) -> str:
        """Give the text of all pieces before this one."""
        return " ".join(self._pieces[:number])

    def _keep(self, piece: str) -> None:
        """Keep it, unless it cannot be spoken, such as a lone emoji."""
        for text in cut_text(piece, self._max_piece_chars):
            if any(map(str.isalnum, text)):
                self._pieces.append(text)


def as_channel(
    pieces: AsyncIterable[str],
) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[str]]:
    """Make pieces such that waiting for one may be given up: cancelling a foreign iterator could end it.

    That one is read by a task of its own, at most one piece ahead.

    Raises:
        ProviderError: at any time: the iterator's.
    """
    if isinstance(pieces, trio.MemoryReceiveChannel):
        return nullcontext(pieces)
    return _recorded(pieces)


@asynccontextmanager
async def _recorded(pieces: AsyncIterable[str]) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    write, read = trio.open_memory_channel[str](0)
    with ungrouped():
        async with background_nursery() as nursery:
            nursery.start_soon(_record, pieces, write)
            yield read


async def _record(pieces: AsyncIterable[str], channel: trio.MemorySendChannel[str]) -> None:
    with channel:
        async for piece in pieces:
            await channel.send(piece)


@contextmanager
def ungrouped() -> Iterator[None]:
    """Let a `ProviderError` leave bare, whichever task it ended; what else there is leaves as it comes.

    Tasks that were cancelled because of it are in its group. Where our caller is being cancelled as well,
    Trio tells it again at its next checkpoint.
    """
    error: ProviderError | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        error = _provider_error_of(group)
        if error is None:
            raise
    if error is not None:
        raise error


def _provider_error_of(group: BaseExceptionGroup) -> ProviderError | None:
    """Find the group's first `ProviderError`, unless the group tells of a fault of ours as well."""
    _, ours = group.split((ProviderError, trio.Cancelled, GeneratorExit))
    found = group.subgroup(ProviderError)
    if found is None or ours is not None:
        return None
    error = found.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def cut_text(text: str, max_chars: int | None) -> Iterator[str]:
    """Cut a text that is longer than this at its spaces, or else anywhere."""
    rest = text.strip()
    while max_chars is not None and len(rest) > max_chars:
        border = rest.rfind(" ", 1, max_chars + 1)
        end = border if border > 0 else max_chars
        yield rest[:end].rstrip()
        rest = rest[end:].lstrip()
    yield rest
