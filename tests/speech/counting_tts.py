"""A voice whose every chunk differs, so that a wrong, lost or doubled one shows."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

import trio

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, VoiceInfo

CHUNKS_PER_PIECE = 5


def audio_of(pieces: list[str]) -> bytes:
    """What `CountingTts` says of these pieces."""
    return b"".join(f"[{piece}/{number}]".encode() for piece in pieces for number in range(CHUNKS_PER_PIECE))


class CountingTts:
    """A `TtsProvider` that takes ``chunk_s`` for each chunk."""

    name = "counting"

    def __init__(self, *, chunk_s: float = 1.0, error: Exception | None = None, fail_at: int = 0) -> None:
        self.chunk_s = chunk_s
        self.error = error
        self.fail_at = fail_at
        self.calls = 0
        self.running = 0
        self.most_running = 0
        self.ended = 0
        """Calls that were spoken to their end."""

    def check(self, options: TtsOptions) -> None:
        if options.voice_id == "nobody":
            raise ClientError(ClientFault.INVALID_FIELD, "No such voice.", field="tts.voice_id")

    def prewarm(self, options: TtsOptions) -> None:
        """Nothing to do."""

    async def voices(self) -> tuple[VoiceInfo, ...]:
        await trio.lowlevel.checkpoint()
        return ()

    @asynccontextmanager
    async def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AsyncIterator[AsyncIterator[Speech]]:
        self.calls += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async with self._stream(pieces) as speech:
                yield speech
        finally:
            self.running -= 1

    @trio.as_safe_channel
    async def _stream(self, pieces):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # decorated
        made = 0
        async for piece in pieces:
            yield Alignment(tuple(piece), (0.0,) * len(piece), (1.5,) * len(piece))
            for number in range(CHUNKS_PER_PIECE):
                if self.error is not None and made >= self.fail_at:
                    raise self.error
                await trio.sleep(self.chunk_s)
                yield SpeechAudio(f"[{piece}/{number}]".encode())
                made += 1
        self.ended += 1
