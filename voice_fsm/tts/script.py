"""The text of a reply as it is being written."""

from collections.abc import AsyncIterable, Iterator
from contextlib import suppress

import trio


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


def as_channel(pieces: AsyncIterable[str], nursery: trio.Nursery) -> trio.MemoryReceiveChannel[str]:
    """Make pieces such that waiting for one may be given up: cancelling a foreign iterator could end it.

    That one is read by a task of its own, at most one piece ahead.
    """
    if isinstance(pieces, trio.MemoryReceiveChannel):
        return pieces
    write, read = trio.open_memory_channel[str](0)
    nursery.start_soon(_record, pieces, write)
    return read


async def _record(pieces: AsyncIterable[str], channel: trio.MemorySendChannel[str]) -> None:
    with channel:
        async for piece in pieces:
            await channel.send(piece)


def cut_text(text: str, max_chars: int | None) -> Iterator[str]:
    """Cut a text that is longer than this at its spaces, or else anywhere."""
    rest = text.strip()
    while max_chars is not None and len(rest) > max_chars:
        border = rest.rfind(" ", 1, max_chars + 1)
        end = border if border > 0 else max_chars
        yield rest[:end].rstrip()
        rest = rest[end:].lstrip()
    yield rest
