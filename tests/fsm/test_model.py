"""The core against a plain model, under any sequence of events and with every option."""

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fsm.listener import WORD_MS, Listener
from voice_fsm.fsm import events as ev
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import (
    AudioEnded,
    AudioStarted,
    CancelTurn,
    CloseSession,
    DropSpeculation,
    Effect,
    ErrorTold,
    PartialHeard,
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
    UtteranceCommitted,
)
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import SessionOptions, SttOptions, TurnOptions
from voice_fsm.fsm.session import Session

BUSY = {"thinking", "speaking", "hesitating"}
DUMB = {"unconfigured", "closed"}
TEXTS = st.sampled_from(["", " ", "yes", "mm-hmm", "tell me more", "hi there", "wait", "so and ..."])
OF_A_TURN: dict[str, st.SearchStrategy[Any]] = {
    "barge_in": st.sampled_from(["vad", "vad", "partial", "off"]),
    "min_words": st.sampled_from([1, 2]),
    "min_speech_ms": st.sampled_from([0, 0, 200]),
    "backchannels": st.sampled_from(["ignore", "interrupt"]),
    "echo_filter": st.sampled_from([True, True, False]),
    "pausable": st.booleans(),
    "decide_within_ms": st.sampled_from([1500, 300]),
    "resume_after_ms": st.sampled_from([400, 100]),
    "max_lead_ms": st.sampled_from([None, 300]),
    "uninterruptible": st.sampled_from([False, False, False, True]),
    "grace_ms": st.sampled_from([0, 0, 0, 300]),
    "patience_ms": st.sampled_from([None, 200]),
    "speculative_ms": st.sampled_from([None, 50]),
    "respond": st.sampled_from(["auto", "auto", "asked"]),
    "merge_window_ms": st.sampled_from([None, 0, 100]),
    "first_message": st.sampled_from([None, "Good day."]),
    "first_message_uninterruptible": st.booleans(),
    "idle_prompt_s": st.sampled_from([None, 4.0]),
    "idle_prompt_text": st.sampled_from([None, "Are you there?"]),
    "idle_prompt_times": st.sampled_from([1, 2]),
    "idle_timeout_s": st.sampled_from([600.0, 20.0]),
}
OPTIONS = st.builds(
    SessionOptions,
    turn=st.builds(TurnOptions, **OF_A_TURN),
    stt=st.builds(SttOptions, language_code=st.sampled_from([None, "en", "de"])),
)
STEPS = st.lists(st.sampled_from(range(12)), min_size=2, max_size=8)


def test_every_option_of_turns_is_drawn() -> None:
    """A new option has to be given its place in the model."""
    assert set(OF_A_TURN) == {field.name for field in attrs.fields(TurnOptions)}


class AgainstTheModel(RuleBasedStateMachine):
    """The core beside a description of its own, under any sequence of events."""

    session: Session
    now_s: float

    @initialize(options=OPTIONS, history_turns=st.sampled_from([0, 1, 2]), steps=STEPS | st.just([]))
    def open(self, options: SessionOptions, history_turns: int, steps: list[int]) -> None:
        self.options, self.history_turns = options, history_turns
        self.reset()
        self.go_on(steps)

    @precondition(lambda self: self.phase == "closed")
    @rule()
    def reset(self) -> None:
        """The next session; most of what can happen to a closed one is nothing."""
        self.now_s = 0.0
        self.session = Session(Limits(history_turns=self.history_turns), at_s=0)
        self.phase = "unconfigured"
        self.is_gone = False
        self.over: set[int] = set()
        self.history: list[tuple[str, str | None, bool]] = []
        self.turn_id = 0
        self.open_turn: int | None = None
        self.open_audio: int | None = None
        self.running: int | None = None
        self.paused: int | None = None
        self.user_text, self.reply_text, self.started_s = "", "", 0.0
        self.interrupted: str | None = None
        self.has_failed = False
        self.is_firm = False
        self.is_sent = False
        self.audible_s: float | None = None
        self.listener = Listener()
        self.cut_off: tuple[int, int, Listener] | None = None
        self.guess: int | None = None
        self.extended, self.said = "", ""
        self.kept: list[str] = []
        self.unheard = 0
        self.asked = False
        self.reply_options: SessionOptions | None = None
        self.silences_broken = 0

    def send(self, event: ev.AnyEvent) -> tuple[Effect, ...]:
        was_closed = self.phase == "closed"
        effects = self.session.receive(event)
        assert not (was_closed and effects), "nothing follows the close"
        for effect in effects:
            self.account(effect)
        return effects

    def account(self, effect: Effect) -> None:  # noqa: C901, PLR0912, PLR0915  # a promise a line
        """The promises, stated on the stream of effects alone."""
        assert not self.is_gone
        turn_id = getattr(effect, "turn_id", None)
        if turn_id is not None:
            assert turn_id not in self.over, "nothing of a turn follows its end"
        match effect:
            case TurnStarted():
                assert self.open_turn is None, "never two turns at once"
                assert effect.turn_id == self.turn_id + 1
                self.turn_id = self.open_turn = effect.turn_id
                self.user_text, self.reply_text, self.started_s = effect.text, "", self.now_s
                self.listener, self.audible_s = Listener(), None
                self.interrupted, self.has_failed, self.is_sent = None, False, False
                if effect.cause == "silence":
                    self.silences_broken += 1
                    assert self.silences_broken <= self.options.turn.idle_prompt_times
            case Speculate():
                assert self.guess is None
                assert self.open_turn is None
                self.guess = effect.start.turn_id
                self.check_history(effect.start.history)
            case DropSpeculation():
                assert self.guess is not None
                self.guess = None
            case StartTurn():
                assert effect.turn_id == self.open_turn
                assert effect.speculated == (self.guess is not None), "a guess is used or dropped first"
                assert self.guess in {None, effect.turn_id}
                assert effect.options == (self.reply_options or self.options)
                self.check_history(effect.history)
                turn = effect.options.turn
                greets = effect.cause == "first_message"
                self.is_firm = turn.uninterruptible or (greets and turn.first_message_uninterruptible)
                self.guess = None
                self.running = effect.turn_id
                self.asked, self.reply_options = False, None
                if effect.cause == "user":
                    answered = [self.extended, *self.kept, self.said]
                    assert effect.text == self.user_text == " ".join(filter(None, answered))
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
                self.check_heard(effect.played_ms)
                self.paused = effect.turn_id
                self.listener.stands_still = True
            case TurnResumed():
                assert self.paused == effect.turn_id
                self.check_heard(effect.played_ms)
                self.paused = None
                self.listener.stands_still = False
            case ResumeTurn():
                assert self.running == effect.turn_id
                assert self.paused is None, "the client is told before more audio may go"
            case TurnInterrupted():
                assert self.interrupted is None
                assert self.open_audio is None, "the audio is ended before the interruption is told"
                assert self.running is None, "the turn is cancelled before the interruption is told"
                if effect.reason == "speech":
                    self.check_barge_in()
                self.check_heard(effect.heard_ms)
                assert effect.heard_text == self.listener.text(effect.heard_ms)
                self.interrupted = effect.heard_text
            case ReplyTold():
                assert self.running == effect.turn_id
                self.reply_text = effect.text
            case ErrorTold():
                self.has_failed = effect.turn_id is not None
            case TurnEnded():
                assert effect.turn_id == self.open_turn
                assert self.open_audio is None
                assert effect.outcome == "completed" or self.running is None
                assert (effect.outcome == "interrupted") == (self.interrupted is not None)
                assert (effect.outcome == "failed") == self.has_failed
                if effect.outcome == "completed" and self.phase != "thinking" and not self.asked:
                    assert not self.listener.is_exact or self.listener.rest_ms < 1, "heard to its end"
                self.end(effect)
            case StateChanged():
                assert effect.source == self.phase
                self.phase = effect.target
            case CloseSession():
                assert self.open_turn is None
                assert self.phase == "closed"
                self.is_gone = True

    def end(self, ended: TurnEnded) -> None:
        """The turn is over; what was heard of it is what was said."""
        heard = self.listener
        match ended.outcome:
            case "completed":
                self.history.append((self.user_text, self.reply_text, False))
            case "interrupted":
                self.cut_off = (ended.turn_id, len(self.history), heard)
                self.history.append((self.user_text, self.interrupted, True))
            case "failed":
                text = heard.text(heard.heard_ms) if heard.is_exact else None
                self.history.append((self.user_text, text, True))
        self.over.add(ended.turn_id)
        self.open_turn = self.running = self.paused = None
        self.is_firm = False

    def check_history(self, told: tuple[Exchange, ...]) -> None:
        """The chat backend knows what the user heard; ``None`` stands for what the model can't tell."""
        kept = self.history[max(0, len(self.history) - self.history_turns) :]
        assert len(told) == len(kept)
        for exchange, (user, assistant, interrupted) in zip(told, kept, strict=True):
            assert (exchange.user, exchange.interrupted) == (user, interrupted)
            assert assistant in {None, exchange.assistant}

    def check_heard(self, heard_ms: float) -> None:
        assert -1e-6 <= heard_ms <= self.listener.sent_ms + 1e-6
        if self.listener.is_exact:
            assert heard_ms == pytest.approx(self.listener.heard_ms, abs=1e-3)

    def check_barge_in(self) -> None:
        """Doubt that began under other options is decided as it began."""
        assert not self.is_firm
        if self.phase == "speaking":
            audible_s = 0.0 if self.audible_s is None else self.now_s - self.audible_s
            assert self.options.turn.barge_in != "off"
            assert audible_s * 1000 >= self.options.turn.grace_ms

    def advance(self, to_s: float) -> float:
        self.listener.wait(to_s - self.now_s)
        self.now_s = to_s
        return to_s

    def stamp(self) -> float:
        return self.advance(self.now_s + 0.05)

    def say(self, event: ev.Committed | ev.TextPrompt) -> tuple[Effect, ...]:
        """The user's words, which a turn that was not heard yet may give way to."""
        self.silences_broken = 0
        window_ms = self.options.turn.merge_window_ms
        belongs = window_ms is None or (event.at_s - self.started_s) * 1000 <= window_ms
        self.extended = self.user_text if self.phase == "thinking" and belongs else ""
        self.said = event.text
        effects = self.send(event)
        self.extended, self.said = "", ""
        return effects

    @rule(steps=STEPS)
    def go_further(self, steps: list[int]) -> None:
        """As often again."""
        self.go_on(steps)

    @rule(steps=STEPS)
    def go_on(self, steps: list[int]) -> None:
        """What is likely in each phase; by chance alone hardly a session would come to speak."""
        for step in steps:
            likely = LIKELY[self.phase]
            likely[step % len(likely)](self)
            self.the_machine_is_the_truth()
            self.audio_keeps_its_lead()

    @rule()
    def configure(self) -> None:
        greets = self.phase == "unconfigured" and self.options.turn.first_message is not None
        self.silences_broken = 0
        if self.phase == "holding":
            self.kept, self.asked, self.reply_options = [], False, None
        self.send(ev.Configure(at_s=self.stamp(), session_id="s", options=self.options))
        assert self.phase in {"closed", "thinking" if greets else "listening"}

    @rule(options=OPTIONS)
    def update(self, options: SessionOptions) -> None:
        before = self.phase
        self.send(ev.Update(at_s=self.stamp(), options=options))
        assert self.phase == before
        if before in DUMB:
            return
        if options.stt != self.options.stt:
            self.unheard = 0
        self.options = options

    @rule(text=TEXTS)
    def partial(self, text: str) -> None:
        before, turn = self.phase, self.options.turn
        if text.strip():
            self.silences_broken = 0
        effects = self.send(ev.Partial(at_s=self.stamp(), text=text))
        assert (PartialHeard(text) in effects) == (before not in DUMB and bool(text.strip()))
        is_remark = text == "mm-hmm" and turn.backchannels == "ignore" and not self.is_sent
        if before == "speculating":
            assert self.phase in {"speculating", "listening"}
        elif before not in {"speaking", "hesitating"} or turn.barge_in == "off" or is_remark:
            assert self.phase == before

    @rule(make=st.sampled_from([ev.Partial, ev.Committed]))
    def echo(self, make: type[ev.Partial] | type[ev.Committed]) -> None:
        """Time passes, and the microphone hears the last three words that the listener has heard."""
        self.advance(self.now_s + 0.7)
        last = int(self.listener.heard_ms / WORD_MS)
        if not (self.phase in {"speaking", "hesitating"} and self.options.turn.echo_filter):
            return
        if not (3 <= last <= self.listener.words and self.listener.rest_ms and self.listener.is_exact):
            return
        if make is ev.Committed:
            self.unheard = max(self.unheard - 1, 0)
        text = " ".join(f"z{number}" for number in range(last - 3, last))
        effects = self.send(make(at_s=self.stamp(), text=text))
        assert not {PartialHeard, TurnStarted, TurnInterrupted} & {type(effect) for effect in effects}
        assert UtteranceCommitted(text, ()) not in effects

    @rule(speech_ms=st.sampled_from([0.0, 200.0]))
    def speech_started(self, speech_ms: float) -> None:
        before = self.phase
        self.silences_broken = 0
        self.send(ev.SpeechStarted(at_s=self.stamp(), speech_ms=speech_ms))
        if self.options.turn.barge_in != "vad" or self.is_firm:
            assert self.phase == before
        assert self.paused is None or before == "hesitating" or self.options.turn.pausable

    @rule()
    def speech_stopped(self) -> None:
        self.silences_broken = 0
        self.send(ev.SpeechStopped(at_s=self.stamp()))

    @rule(text=TEXTS)
    def committed(self, text: str) -> None:
        event = ev.Committed(at_s=self.stamp(), text=text)
        before, running, waits, is_firm = self.phase, self.open_turn, self.asked, self.is_firm
        configured, is_blank = before not in DUMB, not text.strip()
        self.unheard = max(self.unheard - configured, 0)
        if waits or self.options.turn.respond == "asked":
            self.kept += [text] * (configured and not is_blank)
            self.silences_broken *= is_blank
            assert (UtteranceCommitted(text, ()) in self.send(event)) == configured
            assert (self.open_turn not in {running, None}) == (waits and not self.unheard)
            return
        effects = self.send(event) if is_blank else self.say(event)
        assert (UtteranceCommitted(text, ()) in effects) == configured
        if self.phase == "holding" and not is_blank:
            self.kept.append(text)
        if is_blank:
            kept = "listening" if before == "speculating" else before
            assert (self.phase, self.open_turn) == ("speaking" if before == "hesitating" else kept, running)
        elif before in {"listening", "speculating", "holding"}:
            patient = self.options.turn.patience_ms is not None and text.endswith("...")
            assert self.phase == ("holding" if patient else "thinking")
        elif before == "thinking":
            assert self.phase == "thinking"
            assert (self.open_turn != running) == (not is_firm)

    @rule(role=st.sampled_from(["user", "user", "assistant"]))
    def add(self, role: Any) -> None:
        before = self.phase
        self.silences_broken = 0
        self.send(ev.Added(at_s=self.stamp(), role=role, text="by the way"))
        assert self.phase == ("listening" if before == "speculating" else before)
        if before in DUMB:
            return
        if role == "user":
            self.kept.append("by the way")
        else:
            self.history.append((" ".join(self.kept), "by the way", False))
            self.kept = []

    @rule()
    def commit(self) -> None:
        before = self.phase
        self.send(ev.CommitAsked(at_s=self.stamp()))
        self.unheard += before not in DUMB
        assert self.phase == before

    @rule(differently=st.booleans())
    def respond(self, differently: bool) -> None:
        before, is_busy = self.phase, self.session.is_replying
        self.silences_broken = 0
        options = None
        if differently:
            options = attrs.evolve(self.options, turn=attrs.evolve(self.options.turn, uninterruptible=True))
        if not is_busy and before not in DUMB:
            self.asked, self.reply_options = True, options
        waits = self.asked and self.unheard > 0
        self.send(ev.Respond(at_s=self.stamp(), options=options))
        if before in DUMB or is_busy:
            assert self.phase == before
        else:
            assert self.phase == ("holding" if waits else "thinking")

    @rule()
    def prompt(self) -> None:
        before = self.phase
        self.say(ev.TextPrompt(at_s=self.stamp(), text="hello"))
        if before not in DUMB:
            assert self.phase == "thinking"

    @rule(turn_id=st.sampled_from([None, 0]) | st.integers(1, 5))
    def interrupt(self, turn_id: int | None) -> None:
        mine = turn_id is None or turn_id == self.open_turn
        before = self.phase
        self.send(ev.Interrupt(at_s=self.stamp(), turn_id=turn_id))
        gives_way = before in BUSY or (before == "holding" and self.asked)
        if mine and before == "holding":
            self.asked, self.reply_options = False, None
        assert self.phase == ("listening" if mine and gives_way else before)

    @rule(
        make=st.sampled_from(
            [
                lambda at_s: ev.SttOpened(at_s=at_s, session_id="x", config={}),
                lambda at_s: ev.SttFailed(at_s=at_s, code="c", message="m", retryable=False),
                lambda at_s: ev.BadInput(at_s=at_s, code="c", message="m"),
                lambda at_s: ev.UserActive(at_s=at_s),
            ]
        )
    )
    def disturb(self, make: Callable[[float], ev.AnyEvent]) -> None:
        """What does not move the session, unless it takes the words of a guess away."""
        before, event = self.phase, make(self.stamp())
        self.send(event)
        if isinstance(event, ev.UserActive):
            self.silences_broken = 0
        if isinstance(event, ev.SttFailed):
            self.unheard = 0
        lost = before == "speculating" and isinstance(event, ev.SttOpened | ev.SttFailed)
        assert self.phase == ("listening" if lost else before)

    @precondition(lambda self: self.open_turn is not None)
    @rule(words=st.integers(1, 6))
    def speak(self, words: int) -> None:
        """The turn in hand becomes audible, and more of it is sent."""
        turn_id = self.turn_id
        self.send(ev.FirstAudio(at_s=self.stamp(), turn_id=turn_id))
        self.send(ev.SpeechAligned(at_s=self.now_s, turn_id=turn_id, spans=self.listener.align(words)))
        self.sent(words * WORD_MS)
        self.send(ev.AudioSent(at_s=self.now_s, turn_id=turn_id, duration_ms=words * WORD_MS))

    def sent(self, duration_ms: float) -> None:
        self.listener.take(duration_ms)
        self.audible_s = self.now_s if self.audible_s is None else self.audible_s

    @rule(played_ms=st.sampled_from([-1.0, 100.0, 900.0, 1e6]), age=st.sampled_from([0, 0, 1, 2, -1]))
    def progress(self, played_ms: float, age: int) -> None:
        """The client says what was heard; also of the turn that was interrupted last."""
        turn_id = self.turn_id - age
        event = ev.PlaybackProgress(at_s=self.stamp(), turn_id=turn_id, played_ms=played_ms)
        if self.phase != "unconfigured":
            assert self.send(event) == ()
        if self.phase in DUMB:
            return
        if turn_id == self.open_turn:
            self.listener.report(played_ms)
        elif self.cut_off is not None and turn_id == self.cut_off[0]:
            _, at, listener = self.cut_off
            user, _, interrupted = self.history[at]
            self.history[at] = (user, listener.text(min(played_ms, listener.sent_ms)), interrupted)

    def reply(self) -> None:
        self.report(
            lambda at_s, turn_id: ev.ReplyComplete(
                at_s=at_s, turn_id=turn_id, text=f"reply {turn_id}", metadata={}
            ),
            age=0,
        )

    def done(self) -> None:
        self.report(lambda at_s, turn_id: ev.TurnDone(at_s=at_s, turn_id=turn_id), age=0)

    @rule(
        make=st.sampled_from(
            [
                lambda at_s, turn_id: ev.ReplyStarted(at_s=at_s, turn_id=turn_id),
                lambda at_s, turn_id: ev.ReplyComplete(
                    at_s=at_s, turn_id=turn_id, text=f"reply {turn_id}", metadata={}
                ),
                lambda at_s, turn_id: ev.FirstAudio(at_s=at_s, turn_id=turn_id),
                lambda at_s, turn_id: ev.AudioSent(at_s=at_s, turn_id=turn_id, duration_ms=400),
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
        stale = self.turn_id - age != self.open_turn
        if isinstance(event, ev.AudioSent) and not stale:
            self.sent(event.duration_ms)
        effects = self.send(event)
        if isinstance(event, ev.TurnDone) and not stale:
            self.is_sent = True
        if stale:
            assert effects == ()

    @rule(extra_s=st.sampled_from([-0.01, 0.0, 5.0]))
    def tick(self, extra_s: float) -> None:
        due_s = self.session.deadline_s
        if due_s == math.inf:
            return
        self.advance(max(self.now_s, due_s + extra_s))
        before = self.phase
        if before == "holding" and self.now_s >= due_s:
            self.unheard = 0
        self.send(ev.Tick(at_s=self.now_s))
        if self.now_s >= due_s:
            assert self.phase != before, "a deadline that is due brings the session on"
        else:
            assert self.phase == before

    @precondition(lambda self: self.turn_id > 5)
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
        assert self.phase in DUMB or self.session.options == self.options

    @invariant()
    def audio_keeps_its_lead(self) -> None:
        """More may go when what was sent will have been heard but for the lead."""
        lead_ms, rest_ms = self.options.turn.max_lead_ms, self.listener.rest_ms
        if lead_ms is None or self.phase not in {"thinking", "speaking"} or not self.listener.is_exact:
            return
        due_s = self.session.voice_due_s
        if rest_ms:
            assert due_s == pytest.approx(self.now_s + (rest_ms - lead_ms) / 1000)
        else:
            assert due_s <= self.now_s


LIKELY: dict[str, list[Callable[[AgainstTheModel], object]]] = {
    "unconfigured": [lambda it: it.configure()],
    "listening": [
        lambda it: it.prompt(),
        lambda it: it.committed("tell me more"),
        lambda it: it.committed("so and ..."),
        lambda it: it.partial("tell me more"),
        lambda it: (it.partial("hi there"), it.tick(0.0)),
        lambda it: it.tick(0.0),
        lambda it: it.commit(),
        lambda it: it.respond(differently=False),
    ],
    "speculating": [
        lambda it: it.committed("tell me more"),
        lambda it: it.committed("hi there"),
        lambda it: it.partial("wait"),
        lambda it: it.committed("so and ..."),
        lambda it: it.add("user"),
    ],
    "holding": [
        lambda it: it.tick(0.0),
        lambda it: it.committed("so and ..."),
        lambda it: it.committed("hi there"),
        lambda it: it.partial("hi there"),
    ],
    "thinking": [
        lambda it: it.speak(6),
        lambda it: it.speak(2),
        lambda it: it.committed("hi there"),
        lambda it: it.prompt(),
        lambda it: it.reply(),
        lambda it: it.speak(4),
    ],
    "speaking": [
        lambda it: it.speech_started(0.0),
        lambda it: it.echo(ev.Partial),
        lambda it: it.speak(6),
        lambda it: it.done(),
        lambda it: it.partial("mm-hmm"),
        lambda it: it.partial("tell me more"),
        lambda it: it.echo(ev.Committed),
        lambda it: it.committed("hi there"),
        lambda it: it.tick(0.0),
        lambda it: it.progress(900.0, 0),
        lambda it: it.reply(),
        lambda it: it.speech_started(200.0),
    ],
    "hesitating": [
        lambda it: it.tick(0.0),
        lambda it: it.speech_stopped(),
        lambda it: it.partial("mm-hmm"),
        lambda it: it.committed("mm-hmm"),
        lambda it: it.partial("tell me more"),
        lambda it: it.echo(ev.Committed),
        lambda it: it.speak(2),
        lambda it: it.committed("wait"),
        lambda it: it.done(),
    ],
    "closed": [lambda it: it.reset(), lambda it: it.prompt()],
}

TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=40, deadline=None
)
