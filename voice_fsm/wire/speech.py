"""The messages of ``/api/v1/ws``: texts to be spoken; tagged by ``action``."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, get_args

import attrs

from voice_fsm.audio import PCM_RATES_HZ, AudioFormat
from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, check, line, one_of
from voice_fsm.wire.converter import FieldError

TAG: Final = "action"
ID_CHARS: Final = 200

RequestId = str | int | None

_BARE: Final = {
    "pcm": None,
    "ulaw": AudioFormat("ulaw", 8000),
    "alaw": AudioFormat("alaw", 8000),
    "mp3": AudioFormat("mp3", 44100, 128),
    "opus": AudioFormat("opus", 48000, 64),
}
"""What a codec's name alone stands for; PCM's rate is told beside it, or the server's."""


def _is_format(name: str) -> bool:
    if name in _BARE:
        return True
    try:
        AudioFormat.parse(name)
    except ValueError:
        return False
    return True


# --- client to server -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Synthesize:
    """Speak this, after what was asked for before."""

    type: ClassVar[str] = "synthesize"
    text: str
    id: RequestId = attrs.field(
        default=None,
        validator=check(
            lambda value: not isinstance(value, str) or len(value) <= ID_CHARS,
            f"must be at most {ID_CHARS} characters",
        ),
    )
    """Told again with whatever ends this synthesis."""
    voice: str | None = line()
    model: str | None = line()
    format: str | None = attrs.field(
        default=None,
        validator=check(_is_format, f"must be one of {', '.join(_BARE)}, or a format such as mp3_44100_128"),
    )
    sample_rate: int | None = attrs.field(default=None, validator=one_of(PCM_RATES_HZ))
    speed: float | None = attrs.field(default=None, validator=between(0.25, 4))
    cache: bool = True
    """False: synthesize it anew, and keep nothing of it."""

    def __attrs_post_init__(self) -> None:
        rate_hz = self.sample_rate
        if rate_hz is not None and self.output_format(default_hz=rate_hz).sample_rate_hz != rate_hz:
            raise FieldError("must agree with `format`", field="sample_rate")

    def output_format(self, default_hz: int) -> AudioFormat:
        """The format that ``format`` and ``sample_rate`` tell; ``default_hz`` is for PCM of no told rate."""
        if self.format is None or self.format == "pcm":
            return AudioFormat("pcm", self.sample_rate or default_hz)
        return _BARE.get(self.format) or AudioFormat.parse(self.format)


@attrs.frozen(kw_only=True)
class Cancel:
    """Stop speaking, and forget what waits to be spoken."""

    type: ClassVar[str] = "cancel"


ClientMessage = Synthesize | Cancel


# --- server to client -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Done:
    """All audio of a synthesis has been sent."""

    type: ClassVar[str] = "done"
    id: RequestId = None


@attrs.frozen(kw_only=True)
class Cancelled:
    """The answer to a cancel: no audio follows until another text is sent."""

    type: ClassVar[str] = "cancelled"
    id: RequestId = None
    """Of the synthesis that it cut short."""
    dropped: int | None = None
    """How many that had not begun it forgot, if any."""


@attrs.frozen(kw_only=True)
class Error:
    """Something went wrong. ``code`` is stable, ``message`` is for a person."""

    type: ClassVar[str] = "error"
    code: str
    message: str
    field: str | None = None
    retryable: bool = False
    id: RequestId = None


ServerMessage = Done | Cancelled | Error


# --- frames -----------------------------------------------------------------------------------------

_CLIENT: Final[codec.Dialect[ClientMessage]] = codec.Dialect(get_args(ClientMessage), tag=TAG)


def id_of(document: Mapping[str, Any]) -> RequestId:
    """The id of a request, which may be wrong in all else."""
    value = document.get("id")
    if type(value) is int or (type(value) is str and len(value) <= ID_CHARS):
        return value
    return None


def structure(document: Mapping[str, Any]) -> ClientMessage:
    """Make a message of what `codec.read_object` read.

    Raises:
        ClientError: what is wrong with it; see `voice_fsm.wire.codec`.
    """
    return _CLIENT.structure(document)


def encode(message: ServerMessage) -> str:
    """Write a text frame to a client."""
    return codec.encode(message, TAG)
