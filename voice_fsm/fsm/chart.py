"""The chart of a voice session: its states, its transitions, and what each transition asks for.

Only this file decides in which phase a session is. What the diagram leaves out, in prose:

* Reports of a turn carry its number, and `Session` lets only those of the turn in hand through, so no
  late report can move the chart.
* Partial transcripts reach the chart only while the assistant speaks, audio never.
* A turn is cut short in one of two ways. Nothing of it was audible yet (thinking): it is *cancelled*. It
  was audible (speaking), or the client asked for silence: it is *interrupted*, and the client is told
  what had been heard.
* ``speaking`` ends when the listener has heard the end, which `PlaybackClock` reckons; all audio is sent
  long before.
"""

import math
from typing import Final

import attrs
from statemachine import State, StateMachine

from voice_fsm.fsm.barge_in import interrupts
from voice_fsm.fsm.effects import (
    AudioEnded,
    AudioStarted,
    CancelTurn,
    Closing,
    ClosingReason,
    Configured,
    Effect,
    EnsureStt,
    ErrorTold,
    InterruptReason,
    Outcome,
    StartTurn,
    StateChanged,
    TurnEnded,
    TurnInterrupted,
    TurnStarted,
)
from voice_fsm.fsm.events import Committed, Configure, Interrupt, Partial, TextPrompt, TurnFailed
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.fsm.turn import Turn

MAX_JOINED_CHARS: Final = 8000
"""Of utterances that are answered together the newest part is kept."""


@attrs.frozen(kw_only=True)
class Closure:
    """Why and how a session ends."""

    close_code: int
    reason: ClosingReason | None = None
    """For `session.closing`; ``None`` when nobody is there to be told."""
    error: ErrorTold | None = None


@attrs.define(kw_only=True)
class Facts:
    """All that a session knows beside its phase."""

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
    quiet_since_s: float = 0.0
    """When the user or the assistant was last active, for the idle limit."""
    speech_since_s: float | None = None
    """When the utterance under way was first heard."""
    utterance: str = ""
    """Its newest partial; blank while there are no words."""
    effects: list[Effect] = attrs.field(factory=list)

    @property
    def current(self) -> Turn:
        """The turn in hand, in states that have one."""
        assert self.turn is not None, self.state  # noqa: S101  # states with a turn guarantee it
        return self.turn


class SessionChart(StateMachine):
    """One voice session."""

    model: Facts

    unconfigured = State(initial=True)
    listening = State()
    thinking = State()
    speaking = State()
    closed = State(final=True)

    configure = (
        unconfigured.to(listening, on="adopt_options")
        | listening.to(listening, on="adopt_options")
        | thinking.to(listening, on=["cancel_turn", "adopt_options"])
        | speaking.to(listening, on=["interrupt_turn", "adopt_options"])
    )
    utterance = (
        listening.to(thinking, on="start_turn")
        | thinking.to(thinking, on="extend_turn")
        | speaking.to(thinking, cond="may_interrupt", on=["interrupt_turn", "start_turn"])
        | speaking.to(speaking, internal=True)
    )
    first_audio = thinking.to(speaking, on="open_audio")
    barge_in = speaking.to(listening, cond="may_interrupt", on="interrupt_turn") | speaking.to(
        speaking, internal=True
    )
    interrupt = (
        thinking.to(listening, on="interrupt_turn")
        | speaking.to(listening, on="interrupt_turn")
        | listening.to(listening, internal=True)
    )
    turn_done = thinking.to(listening, on="complete_turn") | speaking.to(
        speaking, internal=True, on="close_audio"
    )
    playback_over = speaking.to(listening, on="complete_turn")
    turn_failed = thinking.to(listening, on="fail_turn") | speaking.to(listening, on="fail_turn")
    close = (
        unconfigured.to(closed, on="close_session")
        | listening.to(closed, on="close_session")
        | thinking.to(closed, on=["cancel_turn", "close_session"])
        | speaking.to(closed, on=["interrupt_turn", "close_session"])
    )

    def may_interrupt(self, message: Partial | Committed | TextPrompt) -> bool:
        """Whether what the user says or types stops the assistant."""
        if isinstance(message, TextPrompt):
            return True
        facts = self.model
        since_s = facts.speech_since_s
        return interrupts(
            message.text,
            facts.options.turn,
            speech_ms=math.inf if since_s is None else (facts.now_s - since_s) * 1000,
            audible_ms=facts.current.audible_ms(facts.now_s),
        )

    def adopt_options(self, message: Configure) -> None:
        facts = self.model
        facts.session_id, facts.options = message.session_id, message.options
        self._emit(EnsureStt(message.options.stt), Configured(message.session_id, message.options))

    def start_turn(self, message: Committed | TextPrompt) -> None:
        self._start(message.text)

    def extend_turn(self, message: Committed | TextPrompt) -> None:
        """The user went on before anything was heard: one turn answers both utterances."""
        facts = self.model
        before, window_ms = facts.current, facts.options.turn.merge_window_ms
        joined = window_ms is None or (facts.now_s - before.started_s) * 1000 <= window_ms
        self.cancel_turn()
        text = f"{before.user_text} {message.text}" if joined else message.text
        self._start(text[-MAX_JOINED_CHARS:])

    def open_audio(self) -> None:
        facts, turn = self.model, self.model.current
        turn.first_speech_s = facts.now_s
        self._emit(AudioStarted(turn.turn_id, turn.output_format))

    def close_audio(self) -> None:
        facts, turn = self.model, self.model.current
        turn.sent_s = facts.now_s
        self._emit(AudioEnded(turn.turn_id, turn.output_format))

    def complete_turn(self) -> None:
        self._end_turn("completed", self.model.current.completed())

    def cancel_turn(self) -> None:
        self._emit(CancelTurn(self.model.current.turn_id))
        self._end_turn("cancelled", None)

    def interrupt_turn(self, message: object) -> None:
        facts, turn = self.model, self.model.current
        self._emit(CancelTurn(turn.turn_id))
        self._end_audio()
        self._emit(
            TurnInterrupted(
                turn.turn_id,
                _REASONS.get(type(message), "closing"),
                turn.heard_text(facts.now_s),
                turn.clock.heard_ms(facts.now_s),
            )
        )
        self._end_turn("interrupted", turn.cut_short(facts.now_s))

    def fail_turn(self, message: TurnFailed) -> None:
        facts, turn = self.model, self.model.current
        self._emit(CancelTurn(turn.turn_id))
        self._end_audio()
        self._emit(
            ErrorTold(
                code=message.code, message=message.message, turn_id=turn.turn_id, retryable=message.retryable
            )
        )
        self._end_turn("failed", turn.cut_short(facts.now_s))

    def close_session(self, message: Closure) -> None:
        if message.error is not None:
            self._emit(message.error)
        if message.reason is not None:
            self._emit(Closing(message.reason))

    def after_transition(self, event: str, source: State, target: State) -> None:
        """The library calls this after every transition."""
        if source is not target:
            facts = self.model
            at_ms = (facts.now_s - facts.opened_s) * 1000
            self._emit(StateChanged(source=source.id, target=target.id, input=str(event), at_ms=at_ms))

    def _emit(self, *effects: Effect) -> None:
        self.model.effects.extend(effects)

    def _start(self, text: str) -> None:
        facts = self.model
        facts.turns_started += 1
        facts.turn = Turn(
            turn_id=facts.turns_started,
            user_text=text,
            output_format=facts.options.tts.output_format,
            started_s=facts.now_s,
        )
        self._emit(
            TurnStarted(facts.turns_started, text),
            StartTurn(
                turn_id=facts.turns_started,
                text=text,
                session_id=facts.session_id,
                history=facts.history,
                options=facts.options,
            ),
        )

    def _end_audio(self) -> None:
        turn = self.model.current
        if turn.first_speech_s is not None and turn.sent_s is None:
            self._emit(AudioEnded(turn.turn_id, turn.output_format))

    def _end_turn(self, outcome: Outcome, exchange: Exchange | None) -> None:
        facts, turn = self.model, self.model.current
        if exchange is not None:
            kept = (*facts.history, exchange)
            facts.history = kept[max(0, len(kept) - facts.history_turns) :]
        heard_out = outcome == "completed" and turn.first_speech_s is not None
        self._emit(turn.timed(facts.now_s if heard_out else None), TurnEnded(turn.turn_id, outcome))
        facts.turn = None
        facts.quiet_since_s = facts.now_s


_REASONS: dict[type, InterruptReason] = {
    Partial: "speech",
    Committed: "speech",
    TextPrompt: "prompt",
    Interrupt: "client",
    Configure: "configure",
}
