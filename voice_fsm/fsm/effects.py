"""What a session asks of the runtime, in order. Commands are carried out; notices are told to the client.

No effect waits: cancelling is a plain call, and a notice goes into the outgoing queue.
"""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.events import Word
from voice_fsm.fsm.history import Exchange, TurnCause
from voice_fsm.fsm.options import SessionOptions, SttOptions, TtsOptions

Outcome = Literal["completed", "interrupted", "cancelled", "failed"]
InterruptReason = Literal["speech", "prompt", "client", "configure", "closing"]
ClosingReason = Literal["idle", "max_duration", "draining", "policy", "error"]


# --- commands ---------------------------------------------------------------------------------------


@attrs.frozen
class EnsureStt:
    """Have a link to the recogniser with these options; one that is up with the same options stays."""

    options: SttOptions


@attrs.frozen
class PrepareVoice:
    """The user has begun to speak: a reply will be spoken soon."""

    options: TtsOptions


@attrs.frozen(kw_only=True)
class StartTurn:
    """Ask the chat backend and speak its reply."""

    turn_id: int
    text: str
    """What the chat backend is asked."""
    say: str | None = None
    """Spoken as it is; the chat backend is not asked."""
    cause: TurnCause = "user"
    session_id: str
    history: tuple[Exchange, ...]
    options: SessionOptions
    speculated: bool = False
    """The reply was asked for by the `Speculate` before; it is to be used, unless it failed."""


@attrs.frozen
class Speculate:
    """Ask the chat backend, and no one else, for what may become this turn; nobody is told."""

    start: StartTurn


@attrs.frozen
class DropSpeculation:
    """The user said something else: end the call, nobody has known of it."""


@attrs.frozen
class CancelTurn:
    """Stop the turn's work and drop all its output that has not been sent."""

    turn_id: int


@attrs.frozen
class ResumeTurn:
    """The turn's audio, held back while the session was ``hesitating``, may go on."""

    turn_id: int


@attrs.frozen
class CloseSession:
    """Send what is queued, close the socket with this code, end the session."""

    close_code: int


Command = (
    EnsureStt
    | PrepareVoice
    | Speculate
    | DropSpeculation
    | StartTurn
    | CancelTurn
    | ResumeTurn
    | CloseSession
)


# --- notices ----------------------------------------------------------------------------------------


@attrs.frozen
class Configured:
    session_id: str
    options: SessionOptions


@attrs.frozen
class SttStarted:
    session_id: str
    config: Mapping[str, Any]


@attrs.frozen
class SpeechBegan:
    """The user is speaking, by the voice detector."""


@attrs.frozen
class SpeechEnded:
    """The user has fallen silent, by the voice detector."""


@attrs.frozen
class PartialHeard:
    text: str


@attrs.frozen
class UtteranceCommitted:
    text: str
    words: tuple[Word, ...]


@attrs.frozen
class TurnStarted:
    turn_id: int
    text: str
    """The user's; blank where the assistant speaks without being asked."""
    cause: TurnCause


@attrs.frozen
class ReplyTold:
    turn_id: int
    text: str
    metadata: Mapping[str, Any]


@attrs.frozen
class AudioStarted:
    turn_id: int
    output_format: AudioFormat


@attrs.frozen
class AudioEnded:
    turn_id: int
    output_format: AudioFormat
    whole: bool = True
    """Whether all of the reply's audio was sent; else it was cut short."""


@attrs.frozen
class TurnPaused:
    """The client is to stand still, and to keep what it has."""

    turn_id: int
    played_ms: float


@attrs.frozen
class TurnResumed:
    """The client is to play on where it stopped."""

    turn_id: int
    played_ms: float


@attrs.frozen
class TurnInterrupted:
    turn_id: int
    reason: InterruptReason
    heard_text: str
    heard_ms: float


@attrs.frozen(kw_only=True)
class TurnTimed:
    """How long each stage took, in ms after the commit; ``None`` for a stage that was not reached."""

    turn_id: int
    first_text_ms: float | None
    first_speech_ms: float | None
    first_audio_sent_ms: float | None
    playback_done_ms: float | None
    asked_early_ms: float | None
    """How long before its start the turn's reply had been asked for; ``None``: it had not."""
    wasted_calls: int
    """How often it had been in vain, since the turn before."""


@attrs.frozen
class TurnEnded:
    turn_id: int
    outcome: Outcome


@attrs.frozen(kw_only=True)
class StateChanged:
    source: str
    target: str
    input: str
    at_ms: float
    """Since the session was opened."""


@attrs.frozen(kw_only=True)
class ErrorTold:
    code: str
    message: str
    field: str | None = None
    turn_id: int | None = None
    retryable: bool = False
    fatal: bool = False


@attrs.frozen
class Closing:
    reason: ClosingReason


Notice = (
    Configured
    | SttStarted
    | SpeechBegan
    | SpeechEnded
    | PartialHeard
    | UtteranceCommitted
    | TurnStarted
    | ReplyTold
    | AudioStarted
    | AudioEnded
    | TurnPaused
    | TurnResumed
    | TurnInterrupted
    | TurnTimed
    | TurnEnded
    | StateChanged
    | ErrorTold
    | Closing
)
Effect = Command | Notice
