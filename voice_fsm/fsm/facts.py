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
    state: str | None = None
    """Written by the chart alone."""
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
    """Of utterances that broke off, while there is patience for more."""
    patient_until_s: float = math.inf
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

    def emit(self, *effects: Effect) -> None:
        """Have these carried out, after those before."""
        self.effects.extend(effects)
