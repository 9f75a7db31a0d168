"""What can happen to a session. The runtime makes these; ``at_s`` is its monotonic clock, in seconds.

Events that belong to a turn carry its number; a number other than the current turn's changes nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from voice_fsm.fsm.options import SessionOptions


@attrs.frozen
class Word:
    """A word and when it was said, in seconds of the session's audio."""

    text: str
    start_s: float
    end_s: float


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events."""

    at_s: float


# --- the client -------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Configure(Event):
    """The client set up the session, or changed its settings."""

    session_id: str
    options: SessionOptions


@attrs.frozen(kw_only=True)
class Update(Event):
    """The client changed settings; a running turn goes on with the old ones."""

    options: SessionOptions


@attrs.frozen(kw_only=True)
class TextPrompt(Event):
    """The user typed instead of speaking."""

    text: str


@attrs.frozen(kw_only=True)
class Added(Event):
    """The client adds to the conversation what nobody said aloud, and asks for no reply to it."""

    role: Literal["user", "assistant"]
    text: str


@attrs.frozen(kw_only=True)
class CommitAsked(Event):
    """The client ended an utterance; its transcript is to come."""


@attrs.frozen(kw_only=True)
class Respond(Event):
    """The client asks for a reply to what was kept, or else for the assistant to go on."""

    options: SessionOptions | None = None
    """For this reply alone; ``None``: those of the session."""


@attrs.frozen(kw_only=True)
class UserActive(Event):
    """The user does something in the front end: neither limit of silence has come nearer."""


@attrs.frozen(kw_only=True)
class Interrupt(Event):
    """The client asks for silence (a stop button). ``turn_id`` ``None`` means whichever turn runs."""

    turn_id: int | None = None


@attrs.frozen(kw_only=True)
class PlaybackProgress(Event):
    """The client tells how much of a turn its listener has heard."""

    turn_id: int
    played_ms: float


@attrs.frozen(kw_only=True)
class BadInput(Event):
    """The client sent what cannot be served; it is told, and the session goes on."""

    code: str
    message: str
    field: str | None = None


@attrs.frozen(kw_only=True)
class Disconnect(Event):
    """The socket is gone; nobody can be told anything any more."""


@attrs.frozen(kw_only=True)
class Drain(Event):
    """The server is about to stop."""


@attrs.frozen(kw_only=True)
class Abort(Event):
    """The session cannot go on: the client broke the rules beyond repair, or we have a fault."""

    reason: Literal["policy", "error"]
    close_code: int
    code: str
    message: str


# --- the recogniser ---------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SttOpened(Event):
    """A link to the recogniser is up (again)."""

    session_id: str
    config: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class SttFailed(Event):
    """No link is to be had; speech is not heard until the session is configured anew."""

    code: str
    message: str
    retryable: bool
    field: str | None = None


@attrs.frozen(kw_only=True)
class Partial(Event):
    """The recogniser's best guess at the utterance under way."""

    text: str


@attrs.frozen(kw_only=True)
class Committed(Event):
    """An utterance is final."""

    text: str
    words: tuple[Word, ...] = ()


# --- the voice detector -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SpeechStarted(Event):
    """Somebody has begun to speak; told long before there are words."""

    speech_ms: float = 0.0
    """How long it has gone on already."""


@attrs.frozen(kw_only=True)
class SpeechStopped(Event):
    """The speech has ended."""

    silence_ms: float = 0.0
    """How long ago."""


# --- the turn ---------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TurnEvent(Event):
    """Base of what a turn's task reports."""

    turn_id: int


@attrs.frozen(kw_only=True)
class ReplyStarted(TurnEvent):
    """The first text of the reply is here."""


@attrs.frozen(kw_only=True)
class ReplyComplete(TurnEvent):
    """The chat backend has said all it has to say."""

    text: str
    metadata: Mapping[str, Any]


@attrs.frozen
class SpokenSpan:
    """The turn's audio says ``text`` from ``start_ms`` on, up to ``end_ms`` or else the next span's start."""

    text: str
    start_ms: float
    end_ms: float | None = None


@attrs.frozen(kw_only=True)
class SpeechAligned(TurnEvent):
    """Which text the turn's audio says, and when."""

    spans: tuple[SpokenSpan, ...]


@attrs.frozen(kw_only=True)
class FirstAudio(TurnEvent):
    """The first audio of the turn is ready to be sent."""


@attrs.frozen(kw_only=True)
class AudioSent(TurnEvent):
    """Audio of the turn went to the client."""

    duration_ms: float


@attrs.frozen(kw_only=True)
class TurnDone(TurnEvent):
    """The turn has produced everything, and all its audio has gone to the client."""


@attrs.frozen(kw_only=True)
class TurnFailed(TurnEvent):
    """An upstream failed, and the turn cannot go on."""

    code: str
    message: str
    retryable: bool


# --- time -------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Tick(Event):
    """The time that `Session.deadline_s` named has come."""


SessionEvent = (
    Configure
    | Update
    | TextPrompt
    | Added
    | CommitAsked
    | Respond
    | UserActive
    | Interrupt
    | PlaybackProgress
    | BadInput
    | Disconnect
    | Drain
    | Abort
    | SttOpened
    | SttFailed
    | Partial
    | Committed
    | SpeechStarted
    | SpeechStopped
    | Tick
)
AnyTurnEvent = ReplyStarted | ReplyComplete | SpeechAligned | FirstAudio | AudioSent | TurnDone | TurnFailed
AnyEvent = SessionEvent | AnyTurnEvent
