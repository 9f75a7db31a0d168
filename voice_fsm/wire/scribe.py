"""The messages of ``/v1/speech-to-text/realtime``, as ElevenLabs' clients send and read them.

Source: the official clients (``elevenlabs`` 2.78.0, ``@elevenlabs/client`` 1.25.0) and published captures of
the service. All configuration is in the query; the client has one message, ``input_audio_chunk``.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, check, line
from voice_fsm.wire.converter import CONVERTER

SAMPLE_RATES_HZ: Final = (8000, 16000, 22050, 24000, 44100, 48000)
CHUNK_TYPE: Final = "input_audio_chunk"

_FORMATS: Final = (*(f"pcm_{rate}" for rate in SAMPLE_RATES_HZ), "ulaw_8000")
_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False}


@attrs.frozen(kw_only=True)
class ScribeQuery:
    """What the query asks for. Parameters that are not here are taken and have no effect."""

    audio_format: AudioFormat = attrs.field(
        default=AudioFormat("pcm", 16000),
        validator=check(lambda value: str(value) in _FORMATS, f"must be one of {', '.join(_FORMATS)}"),
    )
    model_id: str | None = line()
    language_code: str | None = line()
    commit_strategy: Literal["manual", "vad"] = "manual"
    vad_silence_threshold_secs: float | None = attrs.field(default=None, validator=between(0.3, 3.0))
    vad_threshold: float | None = attrs.field(default=None, validator=between(0.1, 0.9))
    min_speech_duration_ms: int | None = attrs.field(default=None, validator=between(50, 2000))
    min_silence_duration_ms: int | None = attrs.field(default=None, validator=between(50, 2000))
    include_timestamps: bool = False
    include_language_detection: bool = False

    @property
    def wants_words(self) -> bool:
        """Whether each commit is told a second time, with its words or its language."""
        return self.include_timestamps or self.include_language_detection


def read_query(query: Mapping[str, str]) -> ScribeQuery:
    """Read the query's parameters.

    Raises:
        ClientError: ``invalid_field``.
    """
    fields = {name: value for name, value in query.items() if value}
    known = {field.name: field.type for field in attrs.fields(ScribeQuery)}
    typed = {name: _typed(value, known[name]) for name, value in fields.items() if name in known}
    return codec.structure(typed, ScribeQuery)


def _typed(value: str, kind: object) -> object:
    """A parameter as JSON would hold it; what cannot be is left for the converter to refuse."""
    if kind is bool:
        return _TRUTH.get(value.lower(), value)
    if kind in (int | None, float | None):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


@attrs.frozen(kw_only=True)
class AudioChunk:
    """The client's only message. ``audio_base_64`` is audio in the query's format, and may be empty."""

    audio_base_64: bytes = b""
    commit: bool = False
    sample_rate: int | None = None
    previous_text: str | None = None


def decode(text: str) -> AudioChunk:
    """Read one frame.

    Raises:
        ClientError: it is no such message.
    """
    document = codec.read_object(text)
    if document.get("message_type") != CHUNK_TYPE:
        raise ClientError(
            ClientFault.UNKNOWN_TYPE, f"`message_type` must be {CHUNK_TYPE}.", field="message_type"
        )
    return codec.structure(document, AudioChunk)


# --- server to client -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SessionStarted:
    """The first message; ``config`` is for information."""

    message_type: ClassVar[str] = "session_started"
    session_id: str
    config: Mapping[str, Any]


@attrs.frozen
class PartialTranscript:
    """The best guess at what was said since the last commit; replaces the one before it."""

    message_type: ClassVar[str] = "partial_transcript"
    text: str


@attrs.frozen
class CommittedTranscript:
    """What was said from the last commit to this one; may be empty."""

    message_type: ClassVar[str] = "committed_transcript"
    text: str


@attrs.frozen(kw_only=True)
class TimedWord:
    """A word or the space between two; ``start`` and ``end`` in seconds of the connection's audio."""

    text: str
    start: float
    end: float
    type: Literal["word", "spacing"] = "word"
    logprob: float = 0.0


@attrs.frozen(kw_only=True)
class CommittedTranscriptWithTimestamps:
    """The same commit once more."""

    message_type: ClassVar[str] = "committed_transcript_with_timestamps"
    text: str
    language_code: str | None = None
    words: tuple[TimedWord, ...] | None = None


ErrorType = Literal[
    "auth_error",
    "commit_throttled",
    "input_error",
    "insufficient_audio_activity",
    "invalid_request",
    "queue_overflow",
    "quota_exceeded",
    "rate_limited",
    "resource_exhausted",
    "session_time_limit_exceeded",
    "transcriber_error",
]


@attrs.frozen
class ScribeError:
    """Something went wrong, and the socket closes; its type is the kind of error."""

    message_type: ErrorType
    error: str


ServerMessage = (
    SessionStarted | PartialTranscript | CommittedTranscript | CommittedTranscriptWithTimestamps | ScribeError
)


def encode(message: ServerMessage) -> str:
    """Write one frame."""
    return json.dumps(
        {"message_type": message.message_type, **CONVERTER.unstructure(message)}, separators=(",", ":")
    )


def with_spacing(words: Sequence[TimedWord]) -> tuple[TimedWord, ...]:
    """Put a space between words, as ElevenLabs has it: all texts together are the transcript."""
    spaced = list(words[:1])
    for before, word in itertools.pairwise(words):
        spaced += [TimedWord(text=" ", start=before.end, end=word.start, type="spacing"), word]
    return tuple(spaced)
