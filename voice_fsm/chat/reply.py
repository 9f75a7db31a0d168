"""One reply under way: bytes of an answer in, its parts out, whatever the format."""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Protocol, Self

import trio

from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.reply_text import ReplyTextFilter
from voice_fsm.errors import ProviderError, ProviderFault
from voice_fsm.upstream.http import Answer
from voice_fsm.wire.lines import OversizedLineError

TRAILER_S: Final = 0.5
"""How long to wait, once the text is complete, for what a host may send after it."""


class BrokenReplyError(Exception):
    """The reply's bytes tell of a failure; ``message`` only where the fault's common sentence won't do."""

    def __init__(self, fault: ProviderFault, message: str | None = None) -> None:
        super().__init__(message or fault.value)
        self.fault = fault
        self.message = message


class ReplyDecoder(Protocol):
    """Reads one format; pure. Its methods raise `BrokenReplyError` or `OversizedLineError`."""

    @property
    def is_complete(self) -> bool:
        """Whether all text is here; usage figures and the like may follow."""

    @property
    def is_over(self) -> bool:
        """Whether nothing that follows is of interest."""

    def feed(self, piece: bytes) -> list[ReplyPart]:
        """Take the next piece of the body."""

    def end(self) -> list[ReplyPart]:
        """Take note that no piece follows."""

    def why_silent(self) -> str | None:
        """Say in a sentence why a reply has no text, if the reply itself told."""


class Reply:
    """The parts of one answer, as an iterator. Text has no thoughts in it and does not begin with blanks.

    Iterating raises `ProviderError`: what reading the answer raises, what the decoder makes of it, and
    BAD_RESPONSE when there was no text at all.
    """

    def __init__(
        self, answer: Answer, decoder: ReplyDecoder, *, may_be_silent: Callable[[], bool] = lambda: False
    ) -> None:
        """``may_be_silent`` is asked at the end, about a reply without text."""
        self._answer = answer
        self._decoder = decoder
        self._may_be_silent = may_be_silent
        self._text = ReplyTextFilter()
        self._has_text = False
        self._parts: deque[ReplyPart] = deque()
        self._has_ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReplyPart:
        while not self._parts:
            if self._has_ended:
                await self._answer.drain()
                raise StopAsyncIteration
            await self._advance()
        return self._parts.popleft()

    async def _advance(self) -> None:
        piece = None if self._decoder.is_over else await self._next_piece()
        try:
            if piece is not None:
                self._take(self._decoder.feed(piece))
            else:
                self._finish()
        except BrokenReplyError as error:
            raise self._answer.error(error.fault, error.message) from None
        except OversizedLineError:
            raise self._answer.error(ProviderFault.BAD_RESPONSE) from None

    async def _next_piece(self) -> bytes | None:
        if not self._decoder.is_complete:
            return await anext(self._answer, None)
        with trio.move_on_after(TRAILER_S), suppress(ProviderError):
            return await anext(self._answer, None)
        return None

    def _finish(self) -> None:
        self._has_ended = True
        last = self._decoder.end()
        self._take(part for part in last if isinstance(part, ReplyText))
        self._speak(self._text.end())
        if not self._has_text and not self._may_be_silent():
            raise BrokenReplyError(
                ProviderFault.BAD_RESPONSE,
                self._decoder.why_silent() or "The chat backend gave an empty answer.",
            )
        self._take(part for part in last if isinstance(part, ReplyMetadata))

    def _take(self, parts: Iterable[ReplyPart]) -> None:
        for part in parts:
            if isinstance(part, ReplyText):
                self._speak(self._text.feed(part.text))
            else:
                self._parts.append(part)

    def _speak(self, text: str) -> None:
        if not self._has_text:
            text = text.lstrip()
        if text:
            self._has_text = True
            self._parts.append(ReplyText(text))
