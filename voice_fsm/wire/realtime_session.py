"""The session object of OpenAI's Realtime protocol: read, merged with a client's changes, shown.

Shapes and defaults are those of the ``openai`` package 3.54; docs/compatibility.md tells what has an effect.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, check, one_of
from voice_fsm.wire.converter import CONVERTER

PCM_RATE_HZ: Final = 24000
INSTRUCTION_CHARS: Final = 100_000
MAX_TOOLS: Final = 128
MAX_RESPONSE_TOKENS: Final = 4096

_FORMATS: Final = {
    "audio/pcm": AudioFormat("pcm", PCM_RATE_HZ),
    "audio/pcmu": AudioFormat("ulaw", 8000),
    "audio/pcma": AudioFormat("alaw", 8000),
}
_KEPT_WHOLE: Final = frozenset(
    ["tools", "tool_choice", "tracing", "truncation", "prompt", "include", "voice"]
)
"""What a client's value replaces; other objects are merged field by field."""

_LANGUAGE_CHARS: Final = 20
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LANGUAGE: Final = check(lambda value: 0 < len(value) <= _LANGUAGE_CHARS, "must be a language such as en")
_VOICE: Final = check(
    lambda value: bool(_voice_id(value)),
    "must be a voice's name, or an object with its `id`, of at most 200 characters",
)
_MODALITIES: Final = check(lambda value: value in (("audio",), ("text",)), 'must be ["audio"] or ["text"]')
_MAX_TOKENS: Final = check(
    lambda value: value == "inf" or (type(value) is int and 1 <= value <= MAX_RESPONSE_TOKENS),
    f'must be "inf" or a whole number from 1 to {MAX_RESPONSE_TOKENS}',
)
_INSTRUCTIONS: Final = check(
    lambda value: len(value) <= INSTRUCTION_CHARS, f"must be at most {INSTRUCTION_CHARS} characters"
)
_TOOLS: Final = check(lambda value: len(value) <= MAX_TOOLS, f"must be at most {MAX_TOOLS} tools")
_TOOL_CHOICE: Final = one_of(("auto", "none"))


@attrs.frozen(kw_only=True)
class SoundFormat:
    """How audio is written."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = attrs.field(default=None, validator=one_of((PCM_RATE_HZ,)))

    @property
    def audio_format(self) -> AudioFormat:
        """The same in our words."""
        return _FORMATS[self.type]

    def as_json(self) -> dict[str, Any]:
        return {"type": self.type, "rate": PCM_RATE_HZ} if self.type == "audio/pcm" else {"type": self.type}


@attrs.frozen(kw_only=True)
class Transcription:
    """That the client wants to read what the user said."""

    model: str | None = None
    language: str | None = attrs.field(default=None, validator=_LANGUAGE)
    prompt: str | None = None


@attrs.frozen(kw_only=True)
class NoiseReduction:
    """Taken, and without effect."""

    type: Literal["near_field", "far_field"] | None = None
    strength: float | None = None


@attrs.frozen(kw_only=True)
class TurnDetection:
    """Who ends utterances, and what follows. ``None`` of a number leaves it to the server."""

    type: Literal["server_vad", "semantic_vad"]
    threshold: float | None = attrs.field(default=None, validator=between(0, 1))
    prefix_padding_ms: int = attrs.field(default=300, validator=between(0, 10_000))
    silence_duration_ms: int | None = attrs.field(default=None, validator=between(100, 10_000))
    idle_timeout_ms: int | None = attrs.field(default=None, validator=between(5000, 30_000))
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    def as_json(self, threshold: float, silence_ms: float) -> dict[str, Any]:
        """Show it, with the server's own numbers for those left out."""
        common = {"create_response": self.create_response, "interrupt_response": self.interrupt_response}
        if self.type == "semantic_vad":
            return {"type": self.type, "eagerness": self.eagerness, **common}
        return {
            "type": self.type,
            "threshold": threshold if self.threshold is None else self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": round(silence_ms)
            if self.silence_duration_ms is None
            else self.silence_duration_ms,
            "idle_timeout_ms": self.idle_timeout_ms,
            **common,
        }


@attrs.frozen(kw_only=True)
class InputConfig:
    """How the user is heard."""

    format: SoundFormat = attrs.field(
        factory=SoundFormat,
        validator=check(lambda value: value.type != "audio/pcma", "must be audio/pcm or audio/pcmu"),
    )
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = None


@attrs.frozen(kw_only=True)
class OutputConfig:
    """How replies sound."""

    format: SoundFormat = attrs.field(factory=SoundFormat)
    voice: Any = attrs.field(default=None, validator=_VOICE)
    speed: float | None = attrs.field(default=None, validator=between(0.25, 1.5))

    @property
    def voice_id(self) -> str | None:
        """The voice asked for; ``None``: the server's."""
        return _voice_id(self.voice)


@attrs.frozen(kw_only=True)
class AudioConfig:
    """Both ways."""

    input: InputConfig = attrs.field(factory=InputConfig)
    output: OutputConfig = attrs.field(factory=OutputConfig)


@attrs.frozen(kw_only=True)
class FunctionTool:
    """Something that the client can do or look up."""

    type: Literal["function"]
    name: str = attrs.field(
        validator=check(
            lambda value: bool(_TOOL_NAME.fullmatch(value)),
            "must be 1 to 64 letters, digits, dashes or underscores",
        )
    )
    description: str = ""
    parameters: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "object", "properties": {}})


@attrs.frozen(kw_only=True)
class SessionConfig:
    """What a client may set; where ``None`` is no value of its own, it leaves the choice to the server."""

    type: Literal["realtime", "transcription"] = "realtime"
    output_modalities: tuple[str, ...] | None = attrs.field(default=None, validator=_MODALITIES)
    instructions: str | None = attrs.field(default=None, validator=_INSTRUCTIONS)
    tools: tuple[FunctionTool, ...] | None = attrs.field(default=None, validator=_TOOLS)
    tool_choice: Any = attrs.field(default=None, validator=_TOOL_CHOICE)
    max_output_tokens: Any = attrs.field(default=None, validator=_MAX_TOKENS)
    tracing: Any = None
    truncation: Any = None
    prompt: Any = None
    include: Any = None
    audio: AudioConfig = attrs.field(factory=AudioConfig)

    @property
    def is_text(self) -> bool:
        """Whether replies are written and not spoken."""
        return self.output_modalities == ("text",)


@attrs.frozen(kw_only=True)
class _Update:
    session: SessionConfig


@attrs.frozen(kw_only=True)
class ResponseOutput:
    """What may be otherwise in one reply."""

    format: SoundFormat | None = None
    voice: Any = attrs.field(default=None, validator=_VOICE)

    @property
    def voice_id(self) -> str | None:
        """The voice asked for; ``None``: the session's."""
        return _voice_id(self.voice)


@attrs.frozen(kw_only=True)
class ResponseAudio:
    """How one reply sounds."""

    output: ResponseOutput | None = None


@attrs.frozen(kw_only=True)
class ResponseConfig:
    """What a client wants of one reply; what is left out is as in the session."""

    output_modalities: tuple[str, ...] | None = attrs.field(default=None, validator=_MODALITIES)
    instructions: str | None = attrs.field(default=None, validator=_INSTRUCTIONS)
    audio: ResponseAudio | None = None
    max_output_tokens: Any = attrs.field(default=None, validator=_MAX_TOKENS)
    metadata: Mapping[str, Any] | None = attrs.field(
        default=None,
        validator=check(lambda value: len(value) <= 16, "must have at most 16 pairs"),  # noqa: PLR2004  # the protocol's
    )
    conversation: Any = attrs.field(default=None, validator=one_of(("auto",)))
    """Replies beside the conversation are not made here."""
    input: Any = attrs.field(
        default=None,
        validator=check(lambda _: False, "cannot be given: the conversation is answered"),
    )
    tools: Any = attrs.field(
        default=None, validator=check(lambda value: not value, "cannot be chosen for one reply")
    )
    tool_choice: Any = attrs.field(default=None, validator=one_of(("auto",)))


INITIAL: Final[SessionConfig] = SessionConfig(
    audio=AudioConfig(input=InputConfig(turn_detection=TurnDetection(type="server_vad")))
)
"""What a session is before its client has said anything."""


def merged(config: SessionConfig, patch: Mapping[str, Any]) -> SessionConfig:
    """The settings with a client's changes; ``null`` switches off, or gives the choice back to the server.

    Raises:
        ClientError: ``invalid_field``; the path begins with ``session``.
    """
    document = _overlaid(CONVERTER.unstructure(config), patch)
    return codec.structure({"session": document}, _Update).session


def _overlaid(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(document)
    for name, given in patch.items():
        held = result.get(name)
        if isinstance(held, dict) and isinstance(given, dict) and _is_of_one_kind(name, held, given):
            result[name] = _overlaid(held, given)
        else:
            result[name] = given
    return result


def _is_of_one_kind(name: str, held: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    kind = held.get("type")
    return name not in _KEPT_WHOLE and bool(given.get("type", kind) == kind)


def _voice_id(voice: object) -> str | None:
    name = voice.get("id") if isinstance(voice, dict) else voice
    return name if isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable() else None  # noqa: PLR2004  # as of any name
