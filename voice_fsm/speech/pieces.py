"""A whole text -> the pieces that a synthesiser is given, cut and cleaned as replies are."""

from collections.abc import Iterable, Iterator
from typing import Final, Self

import trio

from voice_fsm.fsm.sentences import SentenceSplitter

_DELTA_CHARS: Final = 1000
"""A text is cut at 2 to 5 µs a character; more at once would hold up others."""


async def split(text: str) -> list[str]:
    """Cut a text into pieces fit to be spoken; none if there is nothing to pronounce."""
    splitter, pieces = SentenceSplitter(), list[str]()
    for start in range(0, len(text), _DELTA_CHARS):
        pieces += splitter.feed(text[start : start + _DELTA_CHARS])
        await trio.lowlevel.checkpoint()
    return pieces + splitter.finish()


class Pieces:
    """Pieces that are all there, for who expects them to come one by one."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces: Iterator[str] = iter(pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None
