"""The bodies of ElevenLabs' HTTP endpoints for speech, as far as their clients send and read them.

Source: the official client ``elevenlabs`` 2.78.0. Fields that are not here are taken and have no effect.
"""

from typing import Any, Final, Literal

import attrs

from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, line
from voice_fsm.wire.converter import CONVERTER
from voice_fsm.wire.scribe import TimedWord

DEFAULT_OUTPUT_FORMAT: Final = "mp3_44100_128"


@attrs.frozen(kw_only=True)
class VoiceSettings:
    """How the voice sounds, for one request."""

    stability: float | None = attrs.field(default=None, validator=between(0, 1))
    similarity_boost: float | None = attrs.field(default=None, validator=between(0, 1))
    style: float | None = attrs.field(default=None, validator=between(0, 1))
    use_speaker_boost: bool | None = None
    speed: float | None = attrs.field(default=None, validator=between(0.25, 4))


@attrs.frozen(kw_only=True)
class TextToSpeech:
    """A text to be spoken."""

    text: str
    model_id: str | None = line()
    voice_settings: VoiceSettings | None = None


def read_text_to_speech(body: bytes) -> TextToSpeech:
    """Read a request's body.

    Raises:
        ClientError: ``malformed_message`` or ``invalid_field``.
    """
    return codec.structure(codec.read_object(body), TextToSpeech)


@attrs.frozen(kw_only=True)
class CharacterAlignment:
    """When each character sounds, in seconds."""

    characters: tuple[str, ...]
    character_start_times_seconds: tuple[float, ...]
    character_end_times_seconds: tuple[float, ...]


@attrs.frozen(kw_only=True)
class AudioWithTimestamps:
    """Audio and what it says: a whole answer, or one line of a streamed one."""

    audio_base64: bytes
    alignment: CharacterAlignment | None = None

    def as_json(self) -> dict[str, Any]:
        """With both alignments, null where there is none: the text is spoken as it stands."""
        alignment = CONVERTER.unstructure(self.alignment) if self.alignment else None
        audio = CONVERTER.unstructure(self.audio_base64)
        return {"audio_base64": audio, "alignment": alignment, "normalized_alignment": alignment}


@attrs.frozen(kw_only=True)
class SpeechToText:
    """What a recording says."""

    language_code: str
    text: str
    words: tuple[TimedWord, ...]
    audio_duration_secs: float
    transcription_id: str
    language_probability: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """As it stands on the wire."""
        document: dict[str, Any] = CONVERTER.unstructure(self)
        return document


@attrs.frozen(kw_only=True)
class Voice:
    """A voice that may be chosen."""

    voice_id: str
    name: str
    labels: dict[str, str]
    category: Literal["premade"] = "premade"

    def as_json(self) -> dict[str, Any]:
        """With the fields that clients expect to be there, empty."""
        return {
            "voice_id": self.voice_id,
            "name": self.name,
            "category": self.category,
            "labels": dict(self.labels),
            "description": None,
            "preview_url": None,
            "settings": None,
            "available_for_tiers": [],
            "high_quality_base_model_ids": [],
        }
