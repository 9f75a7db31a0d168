"""Providers for conversations without sound: one that hears nothing and one that says nothing."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from voice_fsm.fsm.options import SttOptions, TtsOptions
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import SttLink, Transcript
from voice_fsm.tts.base import Speech, VoiceInfo


def without_sound(services: Services) -> Services:
    """The same services for a session that only reads and writes; no engine is asked for it."""
    return attrs.evolve(services, stt=Deaf(), tts=Mute(), slow_reply=None)


class Deaf:
    """A recogniser (`SttProvider`) that never hears anything."""

    name = "none"

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator[SttLink]:  # noqa: ARG002  # of the Protocol
        """Give a link that takes audio and brings no transcript."""
        await trio.lowlevel.checkpoint()
        yield _DeafLink()


class _DeafLink:
    session_id = "none"
    config: Mapping[str, Any] = {}  # nobody writes to it

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:  # noqa: ARG002  # as above
        await trio.lowlevel.checkpoint()

    def send_now(self, audio: bytes) -> bool:  # noqa: ARG002  # as above
        return True

    async def commit(self) -> None:
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> AsyncIterator[Transcript]:
        return self

    async def __anext__(self) -> Transcript:
        return await trio.sleep_forever()


class Mute:
    """A synthesiser (`TtsProvider`) without a voice: a turn's text is all there is of it."""

    name = "none"

    def check(self, options: TtsOptions) -> None:
        """Whatever the voice is to be, it will not be heard."""

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """There are none."""
        await trio.lowlevel.checkpoint()
        return ()

    def prewarm(self, options: TtsOptions) -> None:
        """There is nothing to connect to."""

    @trio.as_safe_channel
    async def speak(
        self,
        pieces: AsyncIterable[str],
        options: TtsOptions,  # noqa: ARG002  # of the Protocol
    ) -> AsyncGenerator[Speech, None]:
        """Take the text and give no audio."""
        async for _ in pieces:
            pass
        return
        yield  # never reached: it makes this a stream, of nothing
