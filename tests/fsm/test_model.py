"""The core against a plain model, under any sequence of events and with every option."""

import math
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from voice_fsm.fsm import events as ev
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import (
    AudioEnded,
    AudioStarted,
    CancelTurn,
    CloseSession,
    DropSpeculation,
    Effect,
    ReplyTold,
    ResumeTurn,
    Speculate,
    StartTurn,
    StateChanged,
    TurnEnded,
    TurnInterrupted,
    TurnPaused,
    TurnResumed,
    TurnStarted,
)
from voice_fsm.fsm.options import SessionOptions, TurnOptions
from voice_fsm.fsm.session import Session

BUSY = {"thinking", "speaking", "hesitating"}


class AgainstTheModel(RuleBasedStateMachine):
    """The core beside a description of its own in a dozen lines, under any sequence of events."""

    session: Session
    now_s: float

    @initialize(
        turn=st.builds(
            TurnOptions,
            barge_in=st.sampled_from(["partial", "vad", "off"]),
            min_words=st.sampled_from([1, 2]),
            first_message=st.sampled_from([None, "Good day."]),
            first_message_uninterruptible=st.booleans(),
            uninterruptible=st.sampled_from([False, False, True]),
            idle_prompt_s=st.sampled_from([None, 4.0]),
            pausable=st.booleans(),
            grace_ms=st.sampled_from([0, 0, 300]),
            max_lead_ms=st.sampled_from([None, 300]),
            patience_ms=st.sampled_from([None, 200]),
            speculative_ms=st.sampled_from([None, 50]),
            respond=st.sampled_from(["auto", "asked"]),
        )
    )
    def open(self, turn: TurnOptions) -> None:
        self.now_s = 0.0
        self.session = Session(Limits(), at_s=0)
        self.options = SessionOptions(turn=turn)
        self.phase = "unconfigured"
        self.turn_id = 0
        self.open_turn: int | None = None
        self.open_audio: int | None = None
        self.running: int | None = None
        self.paused: int | None = None
        self.guess: int | None = None
        self.kept: list[str] = []
        self.unheard = 0
        self.asked = False
        self.over: set[int] = set()
        self.told_started: set[int] = set()

    def send(self, event: ev.AnyEvent) -> None:
        for effect in self.session.receive(event):
            self.account(effect)

    def account(self, effect: Effect) -> None:  # noqa: C901, PLR0912, PLR0915  # one line a promise
        """The promises, stated on the stream of effects alone."""
        turn_id = getattr(effect, "turn_id", None)
        if turn_id is not None:
            assert turn_id not in self.over, "nothing of a turn follows its end"
        match effect:
            case TurnStarted():
                assert self.open_turn is None, "never two turns at once"
                assert effect.turn_id == self.turn_id + 1
                self.turn_id = self.open_turn = effect.turn_id
            case Speculate():
                assert self.guess is None
                assert self.open_turn is None
                self.guess = effect.start.turn_id
            case DropSpeculation():
                assert self.guess is not None
                self.guess = None
            case StartTurn():
                assert effect.turn_id == self.open_turn
                assert effect.speculated == (self.guess is not None), "a guess is used or dropped first"
                assert self.guess in {None, effect.turn_id}
                self.guess = None
                self.running = effect.turn_id
                self.asked = False
                if effect.cause == "user":
                    assert all(text in effect.text for text in self.kept), "what was kept is answered"
                    self.kept = []
            case AudioStarted():
                assert self.open_audio is None
                assert self.running == effect.turn_id
                self.open_audio = effect.turn_id
            case AudioEnded():
                assert self.open_audio == effect.turn_id
                self.open_audio = None
            case CancelTurn():
                assert self.running == effect.turn_id
                self.running = None
            case TurnPaused():
                assert self.paused is None
                assert self.options.turn.pausable
                self.paused = effect.turn_id
            case TurnResumed():
                assert self.paused == effect.turn_id
                self.paused = None
            case ResumeTurn():
                assert self.running == effect.turn_id
                assert self.paused is None, "the client is told before more audio may go"
            case TurnInterrupted():
                assert effect.reason != "speech" or not self.is_uninterruptible(effect.turn_id)
                assert self.open_audio is None, "the audio is ended before the interruption is told"
                assert self.running is None, "the turn is cancelled before the interruption is told"
            case ReplyTold():
                assert self.running == effect.turn_id
            case TurnEnded():
                assert effect.turn_id == self.open_turn
                assert self.open_audio is None
                assert effect.outcome == "completed" or self.running is None
                self.over.add(effect.turn_id)
                self.open_turn = self.running = self.paused = None
            case StateChanged():
                assert effect.source == self.phase
                self.phase = effect.target
            case CloseSession():
                assert self.open_turn is None
                assert self.phase == "closed"

    def is_uninterruptible(self, turn_id: int | None) -> bool:
        """All turns, or the greeting alone, which is the first."""
        turn = self.options.turn
        return turn.uninterruptible or (
            turn_id == 1 and turn.first_message is not None and turn.first_message_uninterruptible
        )

    def stamp(self) -> float:
        self.now_s += 0.05
        return self.now_s

    @rule()
    def configure(self) -> None:
        greets = self.phase == "unconfigured" and self.options.turn.first_message is not None
        if self.phase == "holding":
            self.kept, self.asked = [], False
        self.send(ev.Configure(at_s=self.stamp(), session_id="s", options=self.options))
        assert self.phase in {"closed", "thinking" if greets else "listening"}

    @rule(text=st.sampled_from(["", " ", "yes", "tell me more", "hi there", "wait", "so and um"]))
    def partial(self, text: str) -> None:
        before = self.phase
        self.send(ev.Partial(at_s=self.stamp(), text=text))
        if before == "speculating":
            assert self.phase in {"speculating", "listening"}
        elif before not in {"speaking", "hesitating"} or self.options.turn.barge_in == "off":
            assert self.phase == before

    @rule(speech_ms=st.sampled_from([0.0, 200.0]))
    def speech_started(self, speech_ms: float) -> None:
        before = self.phase
        self.send(ev.SpeechStarted(at_s=self.stamp(), speech_ms=speech_ms))
        if self.options.turn.barge_in != "vad" or self.is_uninterruptible(self.open_turn):
            assert self.phase == before

    @rule()
    def speech_stopped(self) -> None:
        self.send(ev.SpeechStopped(at_s=self.stamp()))

    @rule(text=st.sampled_from(["", " ", "yes", "tell me more", "hi there", "wait", "so and um"]))
    def committed(self, text: str) -> None:
        before, running, waits = self.phase, self.open_turn, self.asked
        configured = before not in {"unconfigured", "closed"}
        self.unheard = max(self.unheard - configured, 0)
        if waits or self.options.turn.respond == "asked":
            self.kept += [text] * (configured and bool(text.strip()))
            self.send(ev.Committed(at_s=self.stamp(), text=text))
            assert (self.open_turn not in {running, None}) == (waits and not self.unheard)
            return
        self.send(ev.Committed(at_s=self.stamp(), text=text))
        if not text.strip():
            kept = "listening" if before == "speculating" else before
            assert (self.phase, self.open_turn) == (kept, running)
        elif before in {"listening", "speculating", "holding"}:
            patient = self.options.turn.patience_ms is not None and text.endswith("um")
            assert self.phase == ("holding" if patient else "thinking")
        elif before == "thinking":
            assert self.phase == "thinking"
            assert (self.open_turn != running) == (not self.is_uninterruptible(running))

    @rule()
    def add(self) -> None:
        before = self.phase
        self.send(ev.Added(at_s=self.stamp(), role="user", text="by the way"))
        if before not in {"unconfigured", "closed"}:
            self.kept.append("by the way")
        assert self.phase == ("listening" if before == "speculating" else before)

    @rule()
    def commit(self) -> None:
        before = self.phase
        self.send(ev.CommitAsked(at_s=self.stamp()))
        self.unheard += before not in {"unconfigured", "closed"}
        assert self.phase == before

    @rule()
    def respond(self) -> None:
        before, is_busy = self.phase, self.session.is_replying
        self.asked = self.asked or (not is_busy and before not in {"unconfigured", "closed"})
        waits = self.asked and self.unheard > 0
        self.send(ev.Respond(at_s=self.stamp()))
        if before in {"unconfigured", "closed"} or is_busy:
            assert self.phase == before
        else:
            assert self.phase == ("holding" if waits else "thinking")

    @rule()
    def prompt(self) -> None:
        before = self.phase
        self.send(ev.TextPrompt(at_s=self.stamp(), text="hello"))
        if before not in {"unconfigured", "closed"}:
            assert self.phase == "thinking"

    @rule(turn_id=st.sampled_from([None, 0]) | st.integers(1, 5))
    def interrupt(self, turn_id: int | None) -> None:
        mine = turn_id is None or turn_id == self.open_turn
        before = self.phase
        self.send(ev.Interrupt(at_s=self.stamp(), turn_id=turn_id))
        gives_way = before in BUSY or (before == "holding" and self.asked)
        if mine and before == "holding":
            self.asked = False
        assert self.phase == ("listening" if mine and gives_way else before)

    @rule(
        make=st.sampled_from(
            [
                lambda at_s, turn_id: ev.ReplyStarted(at_s=at_s, turn_id=turn_id),
                lambda at_s, turn_id: ev.ReplyComplete(at_s=at_s, turn_id=turn_id, text="hi", metadata={}),
                lambda at_s, turn_id: ev.SpeechAligned(
                    at_s=at_s, turn_id=turn_id, spans=(ev.SpokenSpan("hi there", 0.0),)
                ),
                lambda at_s, turn_id: ev.FirstAudio(at_s=at_s, turn_id=turn_id),
                lambda at_s, turn_id: ev.AudioSent(at_s=at_s, turn_id=turn_id, duration_ms=400),
                lambda at_s, turn_id: ev.PlaybackProgress(at_s=at_s, turn_id=turn_id, played_ms=100),
                lambda at_s, turn_id: ev.TurnDone(at_s=at_s, turn_id=turn_id),
                lambda at_s, turn_id: ev.TurnFailed(
                    at_s=at_s, turn_id=turn_id, code="c", message="m", retryable=True
                ),
            ]
        ),
        age=st.sampled_from([0, 0, 0, 1, 2, -1]),
    )
    def report(self, make: Callable[[float, int], ev.AnyEvent], age: int) -> None:
        """A report of the turn in hand, or of one long over, or of one to come."""
        event = make(self.stamp(), self.turn_id - age)
        before = self.phase
        stale = self.turn_id - age != self.open_turn
        effects = self.session.receive(event)
        if stale and before != "unconfigured":
            assert effects == ()
        for effect in effects:
            self.account(effect)

    @rule(extra_s=st.sampled_from([-0.01, 0.0, 5.0]))
    def tick(self, extra_s: float) -> None:
        due_s = self.session.deadline_s
        if due_s == math.inf:
            return
        self.now_s = max(self.now_s, due_s + extra_s)
        before = self.phase
        if before == "holding" and self.now_s >= due_s:
            self.unheard = 0
        self.send(ev.Tick(at_s=self.now_s))
        if self.now_s >= due_s:
            assert self.phase != before, "a deadline that is due brings the session on"
        else:
            assert self.phase == before

    @precondition(lambda self: self.turn_id > 3)
    @rule(
        make=st.sampled_from(
            [
                lambda at_s: ev.Disconnect(at_s=at_s),
                lambda at_s: ev.Drain(at_s=at_s),
                lambda at_s: ev.Abort(at_s=at_s, reason="error", close_code=1011, code="c", message="m"),
            ]
        )
    )
    def close(self, make: Callable[[float], ev.AnyEvent]) -> None:
        self.send(make(self.stamp()))
        assert self.phase == "closed"

    @invariant()
    def the_machine_is_the_truth(self) -> None:
        """The phase the client was told is the phase the session is in, and turns fit it."""
        assert self.session.state == self.phase
        assert (self.open_turn is not None) == (self.phase in BUSY)
        assert self.paused is None or self.phase == "hesitating"
        assert (self.guess is not None) == (self.phase == "speculating")
        assert (self.session.voice_due_s == math.inf) == (self.phase == "hesitating")
        if self.phase not in BUSY:
            assert self.open_audio is None
            assert self.running is None
        assert self.phase == "closed" or self.session.deadline_s < math.inf, "every wait has an end"


TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=40, deadline=None
)
