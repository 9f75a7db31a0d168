"""Speech over HTTP: a request for each piece of a reply's text, whose audio streams back."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

from voice_fsm.errors import ProviderFault
from voice_fsm.tts.reply import Frame, FrameSource
from voice_fsm.tts.script import Script
from voice_fsm.upstream.http import Answer

_NO_AUDIO: Final = ("application/json", "text/")

AskFor = Callable[[str], AbstractAsyncContextManager[FrameSource]]
"""Asks for the speech of one text; raises `ProviderError` on entering."""


class PieceRequest:
    """The speech of the script's next piece."""

    def __init__(self, script: Script, ask_for: AskFor) -> None:
        self.untold: list[str] = []
        self._script = script
        self._ask_for = ask_for
        self._text = ""
        self._answer = AsyncExitStack()

    async def has_text(self) -> bool:
        """Wait for the piece; there may be none any more."""
        self._text = await self._script.piece(self._script.taken) or ""
        self._script.taken += 1
        return bool(self._text)

    async def open(self) -> FrameSource:
        """See `Request`."""
        self.untold[:] = [self._text]
        return await self._answer.enter_async_context(self._ask_for(self._text))

    async def aclose(self) -> None:
        """See `Request`."""
        await self._answer.aclose()


class RawFrames:
    """The frames of an answer that is bare audio.

    Raises:
        ProviderError: BAD_RESPONSE: by its content type it is something else.
    """

    def __init__(self, answer: Answer) -> None:
        if answer.content_type.startswith(_NO_AUDIO):
            raise answer.error(ProviderFault.BAD_RESPONSE)
        self._answer = answer

    async def next_frames(self) -> Sequence[Frame]:
        """See `FrameSource`."""
        audio = await anext(self._answer, None)
        return () if audio is None else (Frame(audio),)
