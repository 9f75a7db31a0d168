"""What a session knows beside its phase."""

import math

import attrs

from voice_fsm.fsm.effects import Effect
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.fsm.turn import Turn


@attrs.define(kw_only=True)
class Facts:
    """The model of the chart: written by its actions and by the door to it."""

    opened_s: float
    history_turns: int
    now_s: float
    state: str = "unconfigured"
    """Where the chart left the session; written by the machine alone."""
    session_id: str = ""
    options: SessionOptions = SessionOptions()
    turn: Turn | None = None
    turns_started: int = 0
    history: tuple[Exchange, ...] = ()
    user_active_s: float = 0.0
    """When the user last spoke or typed, or a reply to that ended: for the idle limit."""
    quiet_since_s: float = 0.0
    """When user or assistant was last active."""
    silences_broken: int = 0
    """How often the assistant has spoken by itself since the user was active."""
    speech_since_s: float | None = None
    """When the utterance under way was first heard."""
    utterance: str = ""
    """What the user has said of it so far; blank while there are no words."""
    utterance_s: float = 0.0
    """Since when these words stand."""
    guess: str = ""
    """The words of a speculation; blank while there is none."""
    guessed_s: float = 0.0
    wasted_calls: int = 0
    """Speculations in vain since the last turn."""
    held_text: str = ""
    """Said, typed or added, and not answered yet: there is patience for more, or nobody asked for a reply."""
    patient_until_s: float = math.inf
    unheard: int = 0
    """Utterances that the client ended and whose transcripts are to come."""
    is_asked: bool = False
    """Whether the client wants a reply as soon as they have come."""
    reply_options: SessionOptions | None = None
    """Of the reply that was asked for; ``None``: the session's."""
    cut_short: Turn | None = None
    """The newest turn that was interrupted: how much of it was heard may still be told."""
    has_words: bool = False
    """Whether there are any, be they but an echo."""
    silent_since_s: float | None = None
    """When the voice detector heard the last of it; ``None`` while it hears speech."""
    lately_said: str = ""
    """The end of the turn before, of which an echo may still come."""
    lately_s: float = 0.0
    """When that was audible."""
    effects: list[Effect] = attrs.field(factory=list)

    @property
    def current(self) -> Turn:
        """The turn in hand, in states that have one."""
        assert self.turn is not None, self.state  # noqa: S101  # states with a turn guarantee it
        return self.turn

    def user_is_active(self) -> None:
        """The user speaks or types, or has just been answered."""
        self.user_active_s = self.quiet_since_s = self.now_s
        self.silences_broken = 0

    def remember(self, exchange: Exchange) -> None:
        """Add to the history, which is bounded."""
        kept = (*self.history, exchange)
        self.history = kept[max(0, len(kept) - self.history_turns) :]

    def correct_heard(self, played_ms: float) -> None:
        """The client says how much of the turn that was cut short had been heard."""
        turn = self.cut_short
        assert turn is not None  # noqa: S101  # the caller has looked
        corrected = turn.cut_off_at(played_ms)
        self.history = tuple(
            corrected if exchange is turn.exchange else exchange for exchange in self.history
        )
        turn.exchange = corrected

    def emit(self, *effects: Effect) -> None:
        """Have these carried out, after those before."""
        self.effects.extend(effects)
