"""The messages of ``/v1/voice/ws``, and what they do to a session's options.

What is told of each field's meaning here is what differs from its name; docs/frontend.md tells the protocol.
"""

import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeVar, get_args

import attrs

from voice_fsm.audio import PCM_RATES_HZ, AudioFormat
from voice_fsm.wire import codec
from voice_fsm.wire.checks import (
    above,
    at_least,
    between,
    blank_as_none,
    check,
    http_url,
    line,
    one_of,
    spoken,
)
from voice_fsm.wire.converter import FieldError, base64_text

SAMPLE_RATES_HZ: Final = (8000, 16000, 22050, 24000, 44100, 48000)
"""Rates at which a client may send its microphone."""
PROMPT_CHARS: Final = 8000
FIXED_CHARS: Final = 2000
"""Of text that the assistant is told to say as it is."""

EventKind = Literal["state", "text.delta", "metrics", "alignment", "speech"]

OptionsT = TypeVar("OptionsT")

_AUDIO_FRAME_HEADER: Final = struct.Struct(">II")
_PATCHED_GROUPS: Final = ("stt", "tts", "turn")
_ULAW: Final = AudioFormat("ulaw", 8000)


def _pcm(sample_rate_hz: int | None) -> AudioFormat | None:
    return AudioFormat("pcm", sample_rate_hz) if sample_rate_hz else None


# --- parts of client messages -----------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class BackendChoice:
    """Which chat backend answers: one that is registered already, or how to register one."""

    registration_id: str | None = line()
    provider: str | None = line()
    api_key: str | None = line(4096, repr=False)
    model: str | None = line()
    base_url: str | None = attrs.field(default=None, converter=blank_as_none, validator=http_url(2000))
    system_prompt: str | None = attrs.field(default=None, converter=blank_as_none)

    @property
    def has_credentials(self) -> bool:
        """Whether it names more than a backend registered elsewhere; such needs the operator's leave."""
        return attrs.evolve(self, registration_id=None) != BackendChoice()


@attrs.frozen(kw_only=True)
class SttPatch:
    """How speech is transcribed, as far as the client says."""

    sample_rate: int | None = attrs.field(default=None, validator=one_of(SAMPLE_RATES_HZ))
    audio_format: AudioFormat | None = attrs.field(
        default=attrs.Factory(lambda self: _pcm(self.sample_rate), takes_self=True),
        validator=check(
            lambda value: (
                value == _ULAW or (value.codec == "pcm" and value.sample_rate_hz in SAMPLE_RATES_HZ)
            ),
            f"must be ulaw_8000 or one of {', '.join(f'pcm_{rate}' for rate in SAMPLE_RATES_HZ)}",
        ),
    )
    """Given by either field; ``None`` if neither is given."""
    model_id: str | None = line()
    language_code: str | None = line()
    commit_strategy: Literal["vad", "local_vad", "manual"] | None = None
    vad_threshold: float | None = attrs.field(default=None, validator=between(0.1, 0.9))
    vad_silence_threshold_secs: float | None = attrs.field(default=None, validator=between(0.3, 3.0))
    min_speech_duration_ms: int | None = attrs.field(default=None, validator=between(50, 2000))
    min_silence_duration_ms: int | None = attrs.field(default=None, validator=between(50, 2000))
    include_timestamps: bool | None = None

    def __attrs_post_init__(self) -> None:
        if self.sample_rate and self.audio_format and self.audio_format.sample_rate_hz != self.sample_rate:
            raise FieldError("must agree with `audio_format`", field="sample_rate")


@attrs.frozen(kw_only=True)
class VoicePatch:
    """How the voice sounds, as far as the client says."""

    stability: float | None = attrs.field(default=None, validator=between(0, 1))
    similarity_boost: float | None = attrs.field(default=None, validator=between(0, 1))
    style: float | None = attrs.field(default=None, validator=between(0, 1))
    use_speaker_boost: bool | None = None
    speed: float | None = attrs.field(default=None, validator=between(0.25, 4))


@attrs.frozen(kw_only=True)
class TtsPatch:
    """How replies are spoken, as far as the client says."""

    output_format: AudioFormat | None = attrs.field(
        default=None,
        validator=check(
            lambda value: value.sample_rate_hz in PCM_RATES_HZ and value.bytes_per_second > 0,
            f"must have one of the sample rates {', '.join(map(str, PCM_RATES_HZ))}",
        ),
    )
    voice_id: str | None = line()
    model_id: str | None = line()
    voice_settings: VoicePatch | None = None


@attrs.frozen(kw_only=True)
class TurnPatch:
    """When the user is taken to interrupt, to go on, or to have left, as far as the client says."""

    barge_in: Literal["partial", "vad", "off"] | None = None
    min_words: int | None = attrs.field(default=None, validator=at_least(1))
    min_speech_ms: int | None = attrs.field(default=None, validator=at_least(0))
    uninterruptible: bool | None = None
    backchannels: Literal["ignore", "interrupt"] | None = None
    echo_filter: bool | None = None
    pausable: bool | None = None
    decide_within_ms: int | None = attrs.field(default=None, validator=between(100, 10_000))
    resume_after_ms: int | None = attrs.field(default=None, validator=between(0, 10_000))
    max_lead_ms: int | None = attrs.field(default=None, validator=at_least(100))
    grace_ms: int | None = attrs.field(default=None, validator=at_least(0))
    patience_ms: int | None = attrs.field(default=None, validator=between(0, 10_000))
    speculative_ms: int | None = attrs.field(default=None, validator=between(50, 10_000))
    merge_window_ms: int | None = attrs.field(default=None, validator=at_least(0))
    first_message: str | None = attrs.field(default=None, validator=spoken(FIXED_CHARS))
    first_message_uninterruptible: bool | None = None
    idle_prompt_s: float | None = attrs.field(default=None, validator=above(0))
    idle_prompt_text: str | None = attrs.field(default=None, validator=spoken(FIXED_CHARS))
    idle_prompt_times: int | None = attrs.field(default=None, validator=at_least(0))
    idle_timeout_s: float | None = attrs.field(default=None, validator=above(0))


# --- client to server -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SessionConfigure:
    """Set up the session; what is left out comes from the server's settings."""

    type: ClassVar[str] = "session.configure"
    session_id: str | None = line()
    backend: BackendChoice | None = None
    stt: SttPatch | None = None
    tts: TtsPatch | None = None
    turn: TurnPatch | None = None
    audio_out: Literal["json", "binary"] = "json"
    events: tuple[EventKind, ...] = ()
    resume: str | None = line()


@attrs.frozen(kw_only=True)
class SessionUpdate:
    """Change settings; what is left out stays as it is."""

    type: ClassVar[str] = "session.update"
    stt: SttPatch | None = None
    tts: TtsPatch | None = None
    turn: TurnPatch | None = None


@attrs.frozen(kw_only=True)
class AudioAppend:
    """Microphone audio."""

    type: ClassVar[str] = "audio.append"
    audio: bytes = attrs.field(repr=False)
    sample_rate: int | None = attrs.field(default=None, validator=one_of(SAMPLE_RATES_HZ))
    previous_text: str | None = attrs.field(default=None, converter=blank_as_none)
    """Context for the recogniser; with the first chunk of a segment only."""


@attrs.frozen(kw_only=True)
class AudioCommit:
    """The utterance ends here."""

    type: ClassVar[str] = "audio.commit"


@attrs.frozen(kw_only=True)
class TextPrompt:
    """The user types instead of speaking."""

    type: ClassVar[str] = "text.prompt"
    text: str = attrs.field(validator=spoken(PROMPT_CHARS))


@attrs.frozen(kw_only=True)
class ResponseCancel:
    """The assistant is to be silent now."""

    type: ClassVar[str] = "response.cancel"
    turn_id: int | None = attrs.field(default=None, validator=at_least(1))
    """``None``: whichever turn runs."""


@attrs.frozen(kw_only=True)
class PlaybackProgress:
    """How much of a turn the listener has heard."""

    type: ClassVar[str] = "playback.progress"
    turn_id: int = attrs.field(validator=at_least(1))
    played_ms: float = attrs.field(validator=at_least(0))


@attrs.frozen(kw_only=True)
class Ping:
    """Is the server there, and what is its time?"""

    type: ClassVar[str] = "ping"
    id: str | int | None = None


ClientMessage = (
    SessionConfigure
    | SessionUpdate
    | AudioAppend
    | AudioCommit
    | TextPrompt
    | ResponseCancel
    | PlaybackProgress
    | Ping
)


# --- server to client -------------------------------------------------------------------------------


def _content_type() -> Any:  # noqa: ANN401  # like attrs.field
    return attrs.field(default=attrs.Factory(lambda self: self.output_format.content_type, takes_self=True))


@attrs.frozen(kw_only=True)
class SessionReady:
    """The socket is open."""

    type: ClassVar[str] = "session.ready"
    message: str = "Send session.configure to begin."


@attrs.frozen(kw_only=True)
class SessionConfigured:
    """The settings are in force."""

    type: ClassVar[str] = "session.configured"
    session_id: str


@attrs.frozen(kw_only=True)
class SttSessionStarted:
    """The recogniser listens."""

    type: ClassVar[str] = "stt.session_started"
    session_id: str
    config: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class UserSpeechStarted:
    """The voice detector hears the user speak."""

    type: ClassVar[str] = "user.speech_started"


@attrs.frozen(kw_only=True)
class UserSpeechStopped:
    """The voice detector hears the user no longer."""

    type: ClassVar[str] = "user.speech_stopped"


@attrs.frozen(kw_only=True)
class TranscriptPartial:
    """The best guess at the utterance under way."""

    type: ClassVar[str] = "transcript.partial"
    text: str


@attrs.frozen(kw_only=True)
class Word:
    """A word and when it was said, in seconds of the session's audio."""

    text: str
    start: float
    end: float


@attrs.frozen(kw_only=True)
class TranscriptCommitted:
    """An utterance is final."""

    type: ClassVar[str] = "transcript.committed"
    text: str
    words: tuple[Word, ...] | None = None


@attrs.frozen(kw_only=True)
class AssistantStarted:
    """A turn begins; ``text`` is the user's, which it answers, and blank if ``cause`` is given."""

    type: ClassVar[str] = "assistant.started"
    turn_id: int
    text: str
    cause: Literal["first_message", "silence", "asked"] | None = None


@attrs.frozen(kw_only=True)
class AssistantTextDelta:
    """The next piece of the reply."""

    type: ClassVar[str] = "assistant.text.delta"
    turn_id: int
    text: str


@attrs.frozen(kw_only=True)
class AssistantMessage:
    """The whole reply."""

    type: ClassVar[str] = "assistant.message"
    turn_id: int
    text: str
    metadata: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class AssistantAudioStart:
    """The turn's audio begins."""

    type: ClassVar[str] = "assistant.audio.start"
    turn_id: int
    output_format: AudioFormat
    content_type: str = _content_type()


@attrs.frozen(kw_only=True)
class AssistantAudioChunk:
    """A piece of the turn's audio; ``chunk_index`` counts from 1."""

    type: ClassVar[str] = "assistant.audio.chunk"
    turn_id: int
    audio: bytes = attrs.field(repr=False)
    output_format: AudioFormat
    content_type: str = _content_type()
    chunk_index: int


@attrs.frozen(kw_only=True)
class AssistantAudioEnd:
    """No more audio of the turn follows."""

    type: ClassVar[str] = "assistant.audio.end"
    turn_id: int
    output_format: AudioFormat
    content_type: str = _content_type()
    chunk_count: int


@attrs.frozen(kw_only=True)
class AssistantAudio:
    """The turn's audio in one piece, from a provider that cannot stream."""

    type: ClassVar[str] = "assistant.audio"
    turn_id: int
    audio: bytes = attrs.field(repr=False)
    output_format: AudioFormat
    content_type: str = _content_type()


@attrs.frozen(kw_only=True)
class AssistantAudioAlignment:
    """When each character sounds, in milliseconds from the start of the turn's audio."""

    type: ClassVar[str] = "assistant.audio.alignment"
    turn_id: int
    chars: tuple[str, ...]
    starts_ms: tuple[float, ...]
    ends_ms: tuple[float, ...]


@attrs.frozen(kw_only=True)
class AssistantPaused:
    """Stand still, and keep what is buffered: the user may be interrupting."""

    type: ClassVar[str] = "assistant.paused"
    turn_id: int
    played_ms: float


@attrs.frozen(kw_only=True)
class AssistantResumed:
    """Play on where you stopped: the user was not interrupting."""

    type: ClassVar[str] = "assistant.resumed"
    turn_id: int
    played_ms: float


@attrs.frozen(kw_only=True)
class AssistantInterrupted:
    """Drop what is buffered of the turn's audio."""

    type: ClassVar[str] = "assistant.interrupted"
    turn_id: int
    reason: Literal["speech", "prompt", "client", "configure", "closing"]
    heard_text: str
    heard_ms: float


@attrs.frozen(kw_only=True)
class AssistantDone:
    """The turn is over."""

    type: ClassVar[str] = "assistant.done"
    turn_id: int
    outcome: Literal["completed", "interrupted", "cancelled", "failed"]


@attrs.frozen(kw_only=True)
class TurnMetrics:
    """How long after the commit each stage of the turn came; a stage that was not reached is left out."""

    type: ClassVar[str] = "turn.metrics"
    turn_id: int
    first_text_ms: float | None = None
    first_speech_ms: float | None = None
    first_audio_sent_ms: float | None = None
    playback_done_ms: float | None = None
    asked_early_ms: float | None = None
    wasted_calls: int | None = None


@attrs.frozen(kw_only=True)
class StateChanged:
    """The session moved from one state to another; ``at_ms`` counts from its opening."""

    type: ClassVar[str] = "state.changed"
    from_: str
    to: str
    input: str
    at_ms: float


@attrs.frozen(kw_only=True)
class Error:
    """Something went wrong. ``code`` is stable, ``message`` is for a person."""

    type: ClassVar[str] = "error"
    message: str
    code: str
    field: str | None = None
    turn_id: int | None = None
    retryable: bool = False
    fatal: bool = False
    """The server closes the socket after this."""


@attrs.frozen(kw_only=True)
class SessionClosing:
    """The server is about to close the socket."""

    type: ClassVar[str] = "session.closing"
    reason: Literal["idle", "max_duration", "draining", "policy", "error"]
    resume: str | None = None


@attrs.frozen(kw_only=True)
class Pong:
    """The answer to a ping."""

    type: ClassVar[str] = "pong"
    id: str | int | None = None
    server_time_ms: int
    """Milliseconds since 1970 by the server's clock."""


ServerMessage = (
    SessionReady
    | SessionConfigured
    | SttSessionStarted
    | UserSpeechStarted
    | UserSpeechStopped
    | TranscriptPartial
    | TranscriptCommitted
    | AssistantStarted
    | AssistantTextDelta
    | AssistantMessage
    | AssistantAudioStart
    | AssistantAudioChunk
    | AssistantAudioEnd
    | AssistantAudio
    | AssistantAudioAlignment
    | AssistantPaused
    | AssistantResumed
    | AssistantInterrupted
    | AssistantDone
    | TurnMetrics
    | StateChanged
    | Error
    | SessionClosing
    | Pong
)


# --- frames -----------------------------------------------------------------------------------------

_CLIENT: Final[codec.Dialect[ClientMessage]] = codec.Dialect(get_args(ClientMessage))


def decode(text: str | bytes) -> ClientMessage:
    """Read a text frame from a client.

    Raises:
        ClientError: what is wrong with it; see `voice_fsm.wire.codec`.
    """
    return _CLIENT.decode(text)


def encode(message: ServerMessage, seq: int) -> str:
    """Write a text frame to a client; ``seq`` is its number in the session, from 1."""
    if isinstance(message, AssistantAudioChunk):
        return _encode_chunk(message, seq)
    return codec.encode(message, seq=seq)


def _encode_chunk(chunk: AssistantAudioChunk, seq: int) -> str:
    """What `codec.encode` writes, at a quarter of its cost: no search through audio for what to escape."""
    return (
        f'{{"type":"{chunk.type}","seq":{seq},"turn_id":{chunk.turn_id},'
        f'"audio":"{base64_text(chunk.audio)}","output_format":"{chunk.output_format}",'
        f'"content_type":"{chunk.content_type}","chunk_index":{chunk.chunk_index}}}'
    )


def encode_audio_frame(turn_id: int, chunk_index: int, data: bytes) -> bytes:
    """Write a binary frame of a turn's audio: both numbers as big-endian u32, then the audio."""
    return _AUDIO_FRAME_HEADER.pack(turn_id, chunk_index) + data


# --- options ----------------------------------------------------------------------------------------


def merge_options(options: OptionsT, message: SessionConfigure | SessionUpdate) -> OptionsT:
    """The `SessionOptions` that ``message`` asks for; ``options`` stand for what it leaves out.

    For a `SessionConfigure` these are the server's defaults, for a `SessionUpdate` the session's own.
    A backend replaces the other one whole: nothing of the server's, least of all its key, gets mixed into
    a client's.
    """
    base: Any = options  # wire and fsm stand side by side and share names of fields, not classes
    changes = {group: _overlay(getattr(base, group), getattr(message, group)) for group in _PATCHED_GROUPS}
    if isinstance(message, SessionConfigure) and message.backend is not None:
        changes["backend"] = _overlay(type(base.backend)(), message.backend)
    merged: OptionsT = attrs.evolve(base, **changes)
    return merged


def _overlay(options: Any, patch: object | None) -> Any:  # noqa: ANN401  # see above
    changes = {}
    for field in attrs.fields(type(options)):
        given = getattr(patch, field.name, None)
        if isinstance(given, VoicePatch):
            given = _overlay(getattr(options, field.name), given)
        if given is not None:
            changes[field.name] = given
    return attrs.evolve(options, **changes)
