"""Text to speech on this machine: eSpeak NG, or Piper where the operator has a voice's file.

Synthesis runs in a thread, one piece of text at a time for the whole process. Leaving a reply does not wait
for the piece in hand: its sound is dropped, and the thread is free again after 25 ms (eSpeak) or a sentence
(Piper).
"""

import re
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText, VoiceInfo
from voice_fsm.tts.encoding import SpeechEncoder, check_format, make_encoder
from voice_fsm.tts.engine import EngineError, SpeechEngine
from voice_fsm.tts.espeak import Espeak
from voice_fsm.tts.piper import Piper
from voice_fsm.tts.speed import check_speed

FIRST_CHUNK_MS: Final = 100
CHUNK_MS: Final = 200

_CLOSE_S: Final = 5.0
_ELEVENLABS_VOICE: Final = re.compile(r"[A-Za-z0-9]{20}")
_UNSPEAKABLE: Final = ("Cc", "Cs", "Co", "Cn")
"""Controls (of which eSpeak takes some for commands), halves of surrogate pairs, private and unassigned."""


@asynccontextmanager
async def open_local_tts(
    *, voice: str | None = None, piper_voice: Path | None = None
) -> AsyncIterator["LocalTts"]:
    """Load the engine: Piper with the voice's file ``piper_voice``, else eSpeak.

    ``voice`` is what is spoken with when a client names none; ``None`` leaves it to the engine.

    Raises:
        ProviderError: ``tts_unavailable``: not installed, no such file, no such voice.
    """
    limiter = trio.CapacityLimiter(1)
    engine: SpeechEngine
    if piper_voice is not None:
        engine = await trio.to_thread.run_sync(Piper.load, piper_voice, limiter=limiter)
    else:
        engine = await trio.to_thread.run_sync(Espeak.load, limiter=limiter)
    default_voice = engine.find_voice(voice)
    if default_voice is None:
        raise ProviderError(
            Upstream.TTS,
            ProviderFault.UNAVAILABLE,
            f"Speech synthesis on this server has no voice {voice!r}.",
        )
    try:
        yield LocalTts(engine, limiter, default_voice=default_voice)
    finally:
        # A reply that was left may still have its thread inside.
        with trio.move_on_after(_CLOSE_S, shield=True):
            async with limiter:
                pass


class LocalTts:
    """The synthesiser of this process; satisfies `TtsProvider`."""

    name = "local"

    def __init__(self, engine: SpeechEngine, limiter: trio.CapacityLimiter, *, default_voice: str) -> None:
        self._engine = engine
        self._limiter = limiter
        self._default_voice = default_voice

    def check(self, options: TtsOptions) -> None:
        """See `TtsProvider.check`. Of the voice settings only ``speed`` has a meaning here.

        An id of ElevenLabs' form stands for the default voice, so that their clients work unchanged.
        """
        check_format(options.output_format)
        self._voice(options)
        self._speed(options)

    def prewarm(self, options: TtsOptions) -> None:
        """See `TtsProvider.prewarm`. The engine is loaded already."""

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """See `TtsProvider.voices`."""
        await trio.lowlevel.checkpoint()
        return self._engine.voices()

    @trio.as_safe_channel
    async def speak(self, pieces: AsyncIterable[str], options: TtsOptions) -> AsyncGenerator[Speech]:
        """See `TtsProvider.speak`."""
        self.check(options)
        voice, speed, audio_format = self._voice(options), self._speed(options), options.output_format
        encoder = make_encoder(self._engine.sample_rate_hz, audio_format)
        chunk_ms = FIRST_CHUNK_MS
        async for piece in pieces:
            yield SpokenText(piece)
            synthesis = self._engine.synthesize(speakable(piece), voice, speed)
            while (audio := await self._next(synthesis, encoder)) is not None:
                for chunk in cut(audio, audio_format, chunk_ms):
                    yield SpeechAudio(chunk)
                    chunk_ms = CHUNK_MS
        if tail := encoder.feed(b"", last=True):
            yield SpeechAudio(tail)

    async def _next(self, synthesis: Iterator[bytes], encoder: SpeechEncoder) -> bytes | None:
        def synthesize() -> bytes | None:
            pcm = next(synthesis, None)
            return None if pcm is None else encoder.feed(pcm)

        try:
            return await trio.to_thread.run_sync(synthesize, limiter=self._limiter, abandon_on_cancel=True)
        except EngineError as error:
            raise ProviderError(
                Upstream.TTS, ProviderFault.SERVER_ERROR, "Speech synthesis on this server failed."
            ) from error

    def _voice(self, options: TtsOptions) -> str:
        if not options.voice_id:
            return self._default_voice
        voice = self._engine.find_voice(options.voice_id)
        if voice is not None:
            return voice
        if _ELEVENLABS_VOICE.fullmatch(options.voice_id):
            return self._default_voice
        raise ClientError(
            ClientFault.INVALID_FIELD,
            f"Speech synthesis on this server has no voice {options.voice_id[:40]!r}.",
            field="tts.voice_id",
        )

    def _speed(self, options: TtsOptions) -> float:
        check_speed(options, *self._engine.speeds)
        speed = options.voice_settings.speed
        return 1.0 if speed is None else speed


def speakable(text: str) -> str:
    """``text`` without the characters that are not text to an engine."""
    return "".join(" " if unicodedata.category(c) in _UNSPEAKABLE else c for c in text).strip()


def cut(audio: bytes, audio_format: AudioFormat, first_ms: int) -> Iterator[bytes]:
    """Cut ``audio`` into a chunk of ``first_ms`` and further ones of `CHUNK_MS`, in whole samples."""
    start, end = 0, audio_format.size_bytes(first_ms)
    while start < len(audio):
        yield audio[start:end]
        start, end = end, end + audio_format.size_bytes(CHUNK_MS)
