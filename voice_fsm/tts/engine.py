"""What `voice_fsm.tts.local` asks of a synthesiser on this machine."""

from collections.abc import Iterator
from typing import Protocol

from voice_fsm.tts.base import VoiceInfo


class EngineError(Exception):
    """The engine refused a call; a fault of ours or the engine's, not of the text."""


class SpeechEngine(Protocol):
    """One loaded synthesiser. Calls block; at most one thread is inside at a time."""

    sample_rate_hz: int
    """Rate of what `synthesize` gives."""
    speeds: tuple[float, float]
    """The slowest and the fastest pace; 1.0 is the voice's own."""

    def find_voice(self, voice_id: str | None) -> str | None:
        """What `synthesize` calls this voice (``None``: the engine's own choice); ``None`` if unknown."""

    def voices(self) -> tuple[VoiceInfo, ...]:
        """What `find_voice` finds, without variants."""

    def synthesize(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        """Say ``text``: PCM in pieces, each made when it is asked for.

        Raises:
            EngineError: while iterating.
        """
