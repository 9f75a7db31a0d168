"""The text of a reply as it is being written."""

from collections.abc import AsyncIterable, Iterator

import trio


class Script:
    """The text of one reply, piece by piece, kept so that a second attempt can read it from its start.

    The pieces are read by a task of their own (`record`), so that waiting for one may be given up at any
    time: cancelling a foreign iterator could end it. It reads at most one piece ahead of the speech.
    """

    def __init__(self, pieces: AsyncIterable[str], *, max_piece_chars: int | None = None) -> None:
        self.taken = 0
        """How many pieces belong to requests that were made already."""
        self._source = pieces
        self._max_piece_chars = max_piece_chars
        self._recorder, self._reader = trio.open_memory_channel[str](0)
        self._pieces: list[str] = []

    async def record(self) -> None:
        """Read all pieces, but not those that cannot be spoken, such as a lone emoji."""
        with self._recorder:
            async for piece in self._source:
                for text in cut_text(piece, self._max_piece_chars):
                    if any(map(str.isalnum, text)):
                        await self._recorder.send(text)

    async def piece(self, number: int) -> str | None:
        """Wait for one piece, at most one beyond those already read; ``None``: the reply has ended."""
        if number < len(self._pieces):
            return self._pieces[number]
        try:
            text = await self._reader.receive()
        except trio.EndOfChannel:
            return None
        self._pieces.append(text)
        return text

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


def cut_text(text: str, max_chars: int | None) -> Iterator[str]:
    """Cut a text that is longer than this at its spaces, or else anywhere."""
    rest = text.strip()
    while max_chars is not None and len(rest) > max_chars:
        border = rest.rfind(" ", 1, max_chars + 1)
        end = border if border > 0 else max_chars
        yield rest[:end].rstrip()
        rest = rest[end:].lstrip()
    yield rest
