"""Every state against every event, and what each feature of a session does."""

import math
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.fsm import events as ev
from voice_fsm.fsm.actions import (
    ANSWER_PROMPT,
    GO_ON_PROMPT,
    MAX_JOINED_CHARS,
    SILENCE_PROMPT,
    WORDS_WITHIN_S,
)
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import (
    AudioEnded,
    CancelTurn,
    CloseSession,
    Closing,
    Configured,
    DropSpeculation,
    Effect,
    EnsureStt,
    ErrorTold,
    PartialHeard,
    PrepareVoice,
    ResumeTurn,
    Speculate,
    SpeechBegan,
    SpeechEnded,
    StartTurn,
    StateChanged,
    TurnEnded,
    TurnInterrupted,
    TurnPaused,
    TurnResumed,
    TurnStarted,
    TurnTimed,
    UtteranceCommitted,
)
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import SessionOptions, SttOptions, TtsOptions, TurnOptions
from voice_fsm.fsm.session import Session

OPTIONS = SessionOptions(turn=TurnOptions(barge_in="vad", pausable=True, patience_ms=800, speculative_ms=300))


def make_events(turn_id: int = 1, at_s: float = 1.0) -> dict[type[ev.Event], ev.AnyEvent]:
    """One event of every class."""
    made: list[ev.AnyEvent] = [
        ev.Configure(at_s=at_s, session_id="s", options=OPTIONS),
        ev.Update(at_s=at_s, options=OPTIONS),
        ev.TextPrompt(at_s=at_s, text="hello"),
        ev.Added(at_s=at_s, role="user", text="hello"),
        ev.CommitAsked(at_s=at_s),
        ev.Respond(at_s=at_s),
        ev.UserActive(at_s=at_s),
        ev.Interrupt(at_s=at_s),
        ev.PlaybackProgress(at_s=at_s, turn_id=turn_id, played_ms=1),
        ev.BadInput(at_s=at_s, code="c", message="m"),
        ev.Disconnect(at_s=at_s),
        ev.Drain(at_s=at_s),
        ev.Abort(at_s=at_s, reason="error", close_code=1011, code="c", message="m"),
        ev.SttOpened(at_s=at_s, session_id="x", config={}),
        ev.SttFailed(at_s=at_s, code="c", message="m", retryable=False),
        ev.Partial(at_s=at_s, text="hello"),
        ev.Committed(at_s=at_s, text="hello"),
        ev.SpeechStarted(at_s=at_s, speech_ms=100),
        ev.SpeechStopped(at_s=at_s),
        ev.ReplyStarted(at_s=at_s, turn_id=turn_id),
        ev.ReplyComplete(at_s=at_s, turn_id=turn_id, text="hi", metadata={}),
        ev.SpeechAligned(at_s=at_s, turn_id=turn_id, spans=(ev.SpokenSpan("hi", 0.0),)),
        ev.FirstAudio(at_s=at_s, turn_id=turn_id),
        ev.AudioSent(at_s=at_s, turn_id=turn_id, duration_ms=1000),
        ev.TurnDone(at_s=at_s, turn_id=turn_id),
        ev.TurnFailed(at_s=at_s, turn_id=turn_id, code="c", message="m", retryable=True),
        ev.Tick(at_s=at_s),
    ]
    return {type(event): event for event in made}


def concrete(cls: type[ev.Event]) -> Iterator[type[ev.Event]]:
    for sub in cls.__subclasses__():
        if sub is not ev.TurnEvent:
            yield sub
        yield from concrete(sub)


def at(state: str) -> Session:
    """A session in this state, with turn 1 in hand where the state has one."""
    session = Session(Limits(), at_s=0)
    made = make_events(at_s=0)
    speaking = [ev.Configure, ev.Committed, ev.FirstAudio, ev.AudioSent]
    paths: dict[str, list[type[ev.Event]]] = {
        "unconfigured": [],
        "listening": [ev.Configure],
        "speculating": [ev.Configure, ev.Partial],
        "holding": [ev.Configure],
        "thinking": [ev.Configure, ev.Committed],
        "speaking": speaking,
        "hesitating": [*speaking, ev.SpeechStarted],
        "closed": [ev.Disconnect],
    }
    for event in paths[state]:
        session.receive(made[event])
    if state == "speculating":
        session.receive(ev.Tick(at_s=0.3))
    if state == "holding":
        session.receive(ev.Committed(at_s=0, text="I would like, um"))
    assert session.state == state
    return session


STATES = [
    "unconfigured",
    "listening",
    "speculating",
    "holding",
    "thinking",
    "speaking",
    "hesitating",
    "closed",
]

# What each event leads to from each state; everything that is not listed leaves the state as it is.
TARGETS: dict[tuple[str, type[ev.Event]], str] = {
    ("unconfigured", ev.Configure): "listening",
    ("listening", ev.TextPrompt): "thinking",
    ("listening", ev.Committed): "thinking",
    ("listening", ev.Respond): "thinking",
    ("speculating", ev.Configure): "listening",
    ("speculating", ev.TextPrompt): "thinking",
    ("speculating", ev.Added): "listening",
    ("speculating", ev.Respond): "thinking",
    ("speculating", ev.Committed): "thinking",
    ("speculating", ev.SttOpened): "listening",
    ("speculating", ev.SttFailed): "listening",
    ("holding", ev.Configure): "listening",
    ("holding", ev.TextPrompt): "thinking",
    ("holding", ev.Committed): "thinking",
    ("holding", ev.Respond): "thinking",
    ("holding", ev.Tick): "thinking",
    ("thinking", ev.Configure): "listening",
    ("thinking", ev.Interrupt): "listening",
    ("thinking", ev.FirstAudio): "speaking",
    ("thinking", ev.TurnDone): "listening",
    ("thinking", ev.TurnFailed): "listening",
    ("speaking", ev.Configure): "listening",
    ("speaking", ev.TextPrompt): "thinking",
    ("speaking", ev.Committed): "thinking",
    ("speaking", ev.Partial): "listening",
    ("speaking", ev.Interrupt): "listening",
    ("speaking", ev.TurnFailed): "listening",
    ("speaking", ev.SpeechStarted): "hesitating",
    ("hesitating", ev.Configure): "listening",
    ("hesitating", ev.TextPrompt): "thinking",
    ("hesitating", ev.Committed): "thinking",
    ("hesitating", ev.Partial): "listening",
    ("hesitating", ev.Interrupt): "listening",
    ("hesitating", ev.TurnFailed): "listening",
} | {(state, event): "closed" for state in STATES for event in (ev.Disconnect, ev.Drain, ev.Abort)}


def test_the_walk_knows_every_event() -> None:
    """A new event class has to be given its place in the walk."""
    assert {cls.__name__ for cls in concrete(ev.Event)} == {cls.__name__ for cls in make_events()}


@pytest.mark.parametrize("event", make_events(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("state", STATES)
def test_every_state_takes_every_event(state: str, event: type[ev.Event]) -> None:
    """No input is unhandled, and each leads where the table says."""
    session = at(state)
    session.receive(make_events()[event])
    assert session.state == TARGETS.get((state, event), state)


@pytest.mark.parametrize("event", [cls for cls in make_events() if issubclass(cls, ev.TurnEvent)])
@pytest.mark.parametrize("state", STATES)
def test_reports_of_another_turn_change_nothing(state: str, event: type[ev.Event]) -> None:
    """A late report is not even noticed."""
    session = at(state)
    deadline_s = session.deadline_s
    assert session.receive(make_events(turn_id=7)[event]) == ()
    assert (session.state, session.deadline_s) == (state, deadline_s)


@pytest.mark.parametrize("state", STATES[1:-1])
def test_no_state_is_dead(state: str) -> None:
    """From every state time alone leads on, and a session can always be talked to again."""
    session = at(state)
    session.receive(ev.TurnDone(at_s=0, turn_id=1))
    for _ in range(10):
        if session.state == "closed":
            break
        assert math.isfinite(session.deadline_s)
        session.receive(ev.Tick(at_s=session.deadline_s))
    assert session.state == "closed"
    assert session.deadline_s == math.inf


@pytest.mark.parametrize(
    "event",
    [ev.Update, ev.TextPrompt, ev.Interrupt, ev.PlaybackProgress],
    ids=lambda cls: cls.__name__,
)
def test_an_unconfigured_session_says_what_it_needs(event: type[ev.Event]) -> None:
    """Anything the client asks for before configuring gets an error with a code."""
    (effect,) = at("unconfigured").receive(make_events()[event])
    assert isinstance(effect, ErrorTold)
    assert effect.code == "not_configured"


def names(effects: tuple[Effect, ...]) -> list[type[object]]:
    return [type(effect) for effect in effects if not isinstance(effect, StateChanged | TurnTimed)]


def test_the_order_of_an_interruption() -> None:
    """Cancel, end of audio, interrupted, done: in this order."""
    effects = at("speaking").receive(make_events()[ev.Partial])
    assert names(effects)[1:] == [PartialHeard, CancelTurn, AudioEnded, TurnInterrupted, TurnEnded]
    assert isinstance(effects[-1], StateChanged)


def test_audio_is_ended_once_when_its_tail_is_interrupted() -> None:
    """All was sent and is still being played: the audio has ended already, the turn has not."""
    session = at("speaking")
    assert names(session.receive(ev.TurnDone(at_s=0.1, turn_id=1))) == [AudioEnded]
    assert session.deadline_s == pytest.approx(1.0)
    effects = session.receive(ev.Interrupt(at_s=0.5))
    assert names(effects) == [CancelTurn, TurnInterrupted, TurnEnded]
    (interrupted,) = (effect for effect in effects if isinstance(effect, TurnInterrupted))
    assert interrupted.heard_ms == pytest.approx(500)


def test_a_changed_configuration_ends_the_turn_first() -> None:
    """The old turn is over before the new settings are told."""
    effects = at("speaking").receive(make_events()[ev.Configure])
    assert names(effects) == [CancelTurn, AudioEnded, TurnInterrupted, TurnEnded, EnsureStt, Configured]


def test_an_update_leaves_the_turn_alone() -> None:
    """New settings are for what comes next."""
    session = at("speaking")
    options = attrs.evolve(OPTIONS, stt=SttOptions(language_code="en"))
    assert names(session.receive(ev.Update(at_s=1, options=options))) == [EnsureStt, Configured]
    assert session.options == options


def test_closing_tells_why_and_closes_last() -> None:
    """The turn ends, the reason is told, the socket is closed."""
    effects = at("thinking").receive(make_events()[ev.Abort])
    assert names(effects) == [CancelTurn, TurnEnded, ErrorTold, Closing, CloseSession]


def test_what_is_told_of_a_turn_that_failed() -> None:
    """Its audio ends, and the error is the upstream's own."""
    effects = at("speaking").receive(make_events(at_s=0.4)[ev.TurnFailed])
    assert [effect for effect in effects if not isinstance(effect, TurnTimed | StateChanged)] == [
        CancelTurn(1),
        AudioEnded(1, OPTIONS.tts.output_format, whole=False),
        ErrorTold(code="c", message="m", turn_id=1, retryable=True),
        TurnEnded(1, "failed"),
    ]


def test_closing_ends_what_is_being_said_first() -> None:
    """The client is told that the turn was interrupted, and then why the session ends."""
    effects = at("speaking").receive(ev.Drain(at_s=0.4))
    assert names(effects) == [CancelTurn, AudioEnded, TurnInterrupted, TurnEnded, Closing, CloseSession]


@pytest.mark.parametrize(
    ("state", "limits", "told"),
    [
        ("unconfigured", {"configure_within_s": 5}, [ErrorTold, Closing("policy"), CloseSession(1008)]),
        ("unconfigured", {"session_s": 5}, [Closing("max_duration"), CloseSession(1000)]),
        ("listening", {"idle_s": 5}, [Closing("idle"), CloseSession(1000)]),
    ],
)
def test_a_session_that_time_ends_says_why(state: str, limits: dict[str, Any], told: list[Any]) -> None:
    """With a reason, and an error where the client was at fault."""
    session = Session(Limits(**limits), at_s=0)
    if state == "listening":
        session.receive(make_events(at_s=0)[ev.Configure])
    effects = session.receive(ev.Tick(at_s=session.deadline_s))
    assert session.deadline_s == math.inf
    shown = [effect for effect in effects if not isinstance(effect, StateChanged)]
    if told[0] is ErrorTold:
        error, *shown = shown
        assert isinstance(error, ErrorTold)
        assert (error.code, error.fatal) == ("configure_timeout", True)
        told = told[1:]
    assert shown == told


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ev.Partial, "speech"),
        (ev.Committed, "speech"),
        (ev.TextPrompt, "prompt"),
        (ev.Interrupt, "client"),
        (ev.Configure, "configure"),
        (ev.Drain, "closing"),
    ],
)
def test_an_interruption_says_who_it_was(event: type[ev.Event], reason: str) -> None:
    """Each cause has its word."""
    effects = at("speaking").receive(make_events()[event])
    (interrupted,) = (effect for effect in effects if isinstance(effect, TurnInterrupted))
    assert interrupted.reason == reason


def test_thinking_ends_by_itself() -> None:
    """Whatever upstreams do, the backstop brings the session back to listening with an error."""
    session = at("thinking")
    assert session.deadline_s == pytest.approx(180)
    assert session.receive(ev.Tick(at_s=179.9)) == ()
    effects = session.receive(ev.Tick(at_s=180))
    assert names(effects) == [CancelTurn, ErrorTold, TurnEnded]
    (error,) = (effect for effect in effects if isinstance(effect, ErrorTold))
    assert (error.code, error.turn_id, error.retryable) == ("turn_timeout", 1, True)
    assert session.state == "listening"


@pytest.mark.parametrize(
    ("turn", "event", "stops"),
    [
        (TurnOptions(), ev.Partial(at_s=1, text="stop it now"), True),
        (TurnOptions(), ev.Partial(at_s=1, text="   "), False),
        (TurnOptions(barge_in="off"), ev.Partial(at_s=1, text="stop it now"), False),
        (TurnOptions(barge_in="off"), ev.Committed(at_s=1, text="stop it now"), False),
        (TurnOptions(barge_in="off"), ev.TextPrompt(at_s=1, text="stop it now"), True),
        (TurnOptions(min_words=4), ev.Partial(at_s=1, text="what about Rome"), False),
        (TurnOptions(min_words=3), ev.Partial(at_s=1, text="what about Rome"), True),
        (TurnOptions(min_words=4), ev.Committed(at_s=1, text="what about Rome"), False),
        (TurnOptions(min_words=4), ev.Partial(at_s=1, text="stop it now"), True),
        (TurnOptions(), ev.Partial(at_s=1, text="mm-hmm"), False),
        (TurnOptions(), ev.Committed(at_s=1, text="Okay."), False),
        (TurnOptions(backchannels="interrupt"), ev.Partial(at_s=1, text="mm-hmm"), True),
        (TurnOptions(grace_ms=1001), ev.Partial(at_s=1, text="stop it now"), False),
        (TurnOptions(grace_ms=1000), ev.Partial(at_s=1, text="stop it now"), True),
        (TurnOptions(min_speech_ms=1), ev.Partial(at_s=1, text="what about Rome"), False),
    ],
)
def test_the_barge_in_policy(turn: TurnOptions, event: ev.AnyEvent, *, stops: bool) -> None:
    """What is said interrupts only as far as the session's options let it."""
    session = Session(Limits(), at_s=0)
    made = make_events(at_s=0)
    session.receive(ev.Configure(at_s=0, session_id="s", options=SessionOptions(turn=turn)))
    for cls in (ev.Committed, ev.FirstAudio, ev.AudioSent):
        session.receive(made[cls])
    effects = session.receive(event)
    assert any(isinstance(effect, TurnInterrupted) for effect in effects) == stops
    assert (session.state == "speaking") == (not stops)


def heard(session: Session, *events: ev.AnyEvent) -> list[type[object]]:
    """What a session asks for on hearing these."""
    return [name for event in events for name in names(session.receive(event))]


def interruptible(reply: str = "The weather in Paris is sunny today.", **turn: Any) -> Session:
    """A session that speaks, two seconds of audio sent and all of it; ``vad`` unless told otherwise."""
    session, _ = configured_with(**{"barge_in": "vad", "pausable": True} | turn)
    for event in (
        ev.TextPrompt(at_s=0, text="hello"),
        ev.FirstAudio(at_s=0, turn_id=1),
        ev.SpeechAligned(at_s=0, turn_id=1, spans=(ev.SpokenSpan(reply, 0.0),)),
        ev.AudioSent(at_s=0, turn_id=1, duration_ms=4000),
        ev.TurnDone(at_s=0, turn_id=1),
    ):
        session.receive(event)
    return session


def test_a_cough_costs_half_a_second() -> None:
    """The reply is paused at once, and goes on at the sample where it paused when no words come."""
    session = interruptible()
    effects = session.receive(ev.SpeechStarted(at_s=1, speech_ms=60))
    assert names(effects) == [SpeechBegan, PrepareVoice, TurnPaused]
    assert TurnPaused(1, 1000.0) in effects
    assert (session.state, session.voice_due_s) == ("hesitating", math.inf)
    session.receive(ev.SpeechStopped(at_s=1.4, silence_ms=200))
    assert session.deadline_s == pytest.approx(1.6)
    effects = session.receive(ev.Tick(at_s=1.6))
    assert effects[:2] == (TurnResumed(1, 1000.0), ResumeTurn(1))
    assert (session.state, session.voice_due_s) == ("speaking", -math.inf)
    assert session.deadline_s == pytest.approx(4.6), "the clock stood still"


def test_speech_that_goes_on_interrupts_even_before_its_words() -> None:
    """Nobody coughs for a second and a half; the client is told what was heard before the pause."""
    session = interruptible()
    session.receive(ev.SpeechStarted(at_s=1))
    assert session.deadline_s == pytest.approx(2.5)
    effects = session.receive(ev.Tick(at_s=2.5))
    assert names(effects) == [CancelTurn, TurnInterrupted, TurnEnded]
    (interrupted,) = (effect for effect in effects if isinstance(effect, TurnInterrupted))
    assert (interrupted.reason, interrupted.heard_ms) == ("speech", 1000)


@pytest.mark.parametrize(
    ("words", "stops"),
    [("wait", True), ("what about Rome", True), ("mm-hmm", False), ("the weather in Paris", False)],
)
@pytest.mark.parametrize("cls", [ev.Partial, ev.Committed])
def test_words_decide_about_a_paused_reply(cls: Any, words: str, *, stops: bool) -> None:
    """The user's own words stop it for good; sounds of listening and its echo do not."""
    session = interruptible()
    session.receive(ev.SpeechStarted(at_s=1))
    effects = session.receive(cls(at_s=1.3, text=words))
    assert (TurnEnded(1, "interrupted") in effects) == stops
    if not stops and cls is ev.Partial:
        assert session.state == "hesitating"
        effects = session.receive(ev.Tick(at_s=session.deadline_s))
    assert (ResumeTurn(1) in effects) == (not stops)


def test_speech_long_enough_is_judged_when_the_time_is_up() -> None:
    """Words that came too early for ``min_speech_ms`` interrupt at the decision."""
    session = interruptible(min_speech_ms=1000)
    session.receive(ev.SpeechStarted(at_s=1))
    session.receive(ev.Partial(at_s=1.4, text="what about Rome"))
    assert session.state == "hesitating"
    assert TurnEnded(1, "interrupted") in session.receive(ev.Tick(at_s=2.5))


def test_a_client_that_cannot_pause_plays_what_it_has() -> None:
    """It is told nothing, its clock runs on, and it may hear the end while the session hesitates."""
    session = interruptible(pausable=False, decide_within_ms=10_000)
    assert heard(session, ev.SpeechStarted(at_s=1)) == [SpeechBegan, PrepareVoice]
    assert session.state == "hesitating"
    assert session.deadline_s == pytest.approx(4)
    assert TurnEnded(1, "completed") in session.receive(ev.Tick(at_s=4))


def test_a_noisy_room_pauses_a_reply_three_times_and_no_more() -> None:
    """After that only words stop it."""
    session = interruptible()
    for number in range(1, 5):
        session.receive(ev.SpeechStarted(at_s=number))
        assert session.state == ("hesitating" if number <= 3 else "speaking")
        session.receive(ev.SpeechStopped(at_s=number + 0.1))
        session.receive(ev.Tick(at_s=number + 0.5))
    session.receive(ev.Partial(at_s=5, text="what about Rome"))
    assert session.state == "listening"


def test_a_client_that_cannot_pause_is_not_told_to_go_on() -> None:
    """It never stopped, nor did its clock."""
    session = interruptible(pausable=False)
    session.receive(ev.SpeechStarted(at_s=1))
    session.receive(ev.SpeechStopped(at_s=1.2))
    assert names(session.receive(ev.Tick(at_s=1.6))) == [ResumeTurn]
    assert session.deadline_s == pytest.approx(4)


def test_a_grace_time_holds_for_the_voice_detector() -> None:
    """``grace_ms`` keeps a reply from being paused."""
    session = interruptible(grace_ms=2000)
    session.receive(ev.SpeechStarted(at_s=1.9))
    assert session.state == "speaking"
    session.receive(ev.SpeechStarted(at_s=2.1))
    assert session.state == "hesitating"


def test_yes_to_the_last_words_is_an_answer() -> None:
    """A sound of listening that comes as the reply ends is one no longer."""
    session = interruptible(barge_in="partial")
    session.receive(ev.Committed(at_s=1, text="yes"))
    assert session.state == "speaking"
    session.receive(ev.Committed(at_s=3, text="yes"))
    assert session.state == "thinking"


def test_an_echo_is_nobodys() -> None:
    """It is not told, does not interrupt and is not answered, also when it comes after the end."""
    session = interruptible(barge_in="partial")
    assert heard(session, ev.Partial(at_s=2, text="Paris is sunny")) == [PrepareVoice]
    assert session.receive(ev.Committed(at_s=2.5, text="Paris is sunny today")) == (
        UtteranceCommitted("", ()),
    )
    session.receive(ev.Tick(at_s=4))
    assert session.state == "listening"
    session.receive(ev.Partial(at_s=4.4, text="is sunny"))
    assert session.receive(ev.Committed(at_s=5, text="is sunny today")) == (UtteranceCommitted("", ()),)


def test_the_users_words_are_kept_of_an_echo() -> None:
    """What was said over the assistant's voice begins a turn, alone."""
    session = interruptible(barge_in="partial")
    effects = session.receive(ev.Committed(at_s=2.5, text="in Paris is sunny no I meant Rome"))
    assert started(effects).text == "no I meant Rome"


@pytest.mark.parametrize(
    ("turn", "at_s"), [({"echo_filter": False}, 4.4), ({}, 6.0)], ids=["switched off", "too late"]
)
def test_whoever_repeats_the_assistant_is_heard(turn: dict[str, Any], at_s: float) -> None:
    """An utterance that begins when the echo is over is the user's own."""
    session = interruptible(**turn)
    session.receive(ev.Tick(at_s=4))
    session.receive(ev.Partial(at_s=at_s, text="is sunny"))
    assert (
        started(session.receive(ev.Committed(at_s=at_s + 1, text="is sunny today"))).text == "is sunny today"
    )


def test_audio_is_sent_no_further_ahead_than_asked() -> None:
    """``max_lead_ms`` before what was sent has been heard, the next may go."""
    session = interruptible(max_lead_ms=1000)
    assert session.voice_due_s == pytest.approx(3)
    session.receive(ev.PlaybackProgress(at_s=2, turn_id=1, played_ms=1000))
    assert session.voice_due_s == pytest.approx(4)


def test_speech_interrupts_once_it_has_lasted_long_enough() -> None:
    """``min_speech_ms`` counts from the utterance's first partial."""
    session = Session(Limits(), at_s=0)
    made = make_events(at_s=0)
    options = SessionOptions(turn=TurnOptions(min_speech_ms=300))
    session.receive(ev.Configure(at_s=0, session_id="s", options=options))
    for cls in (ev.Committed, ev.FirstAudio, ev.AudioSent):
        session.receive(made[cls])
    session.receive(ev.Partial(at_s=0.5, text="a"))
    session.receive(ev.Partial(at_s=0.7, text="a b"))
    assert session.state == "speaking"
    session.receive(ev.Partial(at_s=0.8, text="a b c"))
    assert session.state == "listening"


def test_the_voice_is_prepared_when_the_user_begins_to_speak() -> None:
    """Once an utterance, not once a partial."""
    session = at("listening")
    assert session.receive(ev.Partial(at_s=1, text="a"))[0] == PrepareVoice(OPTIONS.tts)
    assert names(session.receive(ev.Partial(at_s=1, text="a b"))) == [PartialHeard]
    session.receive(ev.Committed(at_s=1, text=""))
    assert session.receive(ev.Partial(at_s=2, text="c"))[0] == PrepareVoice(OPTIONS.tts)


def test_the_voice_detector_prepares_the_voice_earlier() -> None:
    """It is told, and the partial that follows does not prepare the voice again."""
    session = at("listening")
    started = session.receive(ev.SpeechStarted(at_s=1, speech_ms=100))
    assert started == (SpeechBegan(), PrepareVoice(OPTIONS.tts))
    assert names(session.receive(ev.Partial(at_s=1.3, text="a"))) == [PartialHeard]
    assert session.receive(ev.SpeechStopped(at_s=2)) == (SpeechEnded(),)


def test_a_noise_without_words_begins_no_utterance() -> None:
    """Speech counts from the last start before its first words, not from a cough of long ago."""
    session = Session(Limits(), at_s=0)
    options = SessionOptions(turn=TurnOptions(min_speech_ms=500))
    session.receive(ev.Configure(at_s=0, session_id="s", options=options))
    session.receive(ev.SpeechStarted(at_s=1))
    session.receive(ev.SpeechStopped(at_s=1.2))
    for cls in (ev.TextPrompt, ev.FirstAudio, ev.AudioSent):
        session.receive(make_events(at_s=10)[cls])
    session.receive(ev.SpeechStarted(at_s=11, speech_ms=200))
    session.receive(ev.Partial(at_s=11.2, text="uh"))
    assert session.state == "speaking"
    session.receive(ev.Partial(at_s=11.3, text="uh no"))
    assert session.state == "listening"


@pytest.mark.parametrize(
    ("window_ms", "text"), [(None, "one two"), (1000, "one two"), (999, "two"), (0, "two")]
)
def test_the_merge_window(window_ms: int | None, text: str) -> None:
    """An utterance within the window is joined to the one still being thought about."""
    session = Session(Limits(), at_s=0)
    options = SessionOptions(turn=TurnOptions(merge_window_ms=window_ms))
    session.receive(ev.Configure(at_s=0, session_id="s", options=options))
    session.receive(ev.Committed(at_s=1, text="one"))
    effects = session.receive(ev.Committed(at_s=2, text="two"))
    assert [effect.text for effect in effects if isinstance(effect, StartTurn)] == [text]


@pytest.mark.parametrize("end", [ev.SttOpened, ev.SttFailed])
def test_an_utterance_that_died_with_its_link_does_not_count(end: type[ev.Event]) -> None:
    """Speech of long ago does not make a cough an interruption."""
    session = Session(Limits(), at_s=0)
    options = SessionOptions(turn=TurnOptions(min_speech_ms=500))
    session.receive(ev.Configure(at_s=0, session_id="s", options=options))
    session.receive(ev.Partial(at_s=1, text="I was"))
    session.receive(make_events(at_s=2)[end])
    for cls in (ev.TextPrompt, ev.FirstAudio, ev.AudioSent):
        session.receive(make_events(at_s=100)[cls])
    session.receive(ev.Partial(at_s=101, text="uh"))
    assert session.state == "speaking"


def test_what_is_answered_together_is_bounded() -> None:
    """A flood of prompts while thinking keeps its newest part."""
    session = at("thinking")
    for number in range(50):
        effects = session.receive(ev.TextPrompt(at_s=1, text=f"{number} " + "x" * 3000))
    (start,) = (effect for effect in effects if isinstance(effect, StartTurn))
    assert len(start.text) == MAX_JOINED_CHARS
    assert start.text.endswith("49 " + "x" * 3000)


@pytest.mark.parametrize("turns", [0, 2, 9])
def test_history_is_bounded(turns: int) -> None:
    """Only the newest exchanges go to the chat backend."""
    session = Session(Limits(history_turns=turns), at_s=0)
    session.receive(ev.Configure(at_s=0, session_id="s", options=OPTIONS))
    for number in range(1, 5):
        session.receive(ev.TextPrompt(at_s=number, text=f"q{number}"))
        session.receive(ev.ReplyComplete(at_s=number, turn_id=number, text=f"a{number}", metadata={}))
        session.receive(ev.TurnDone(at_s=number, turn_id=number))
    (start,) = (e for e in session.receive(ev.TextPrompt(at_s=9, text="q")) if isinstance(e, StartTurn))
    told = [(exchange.user, exchange.assistant) for exchange in start.history]
    assert told == [("q1", "a1"), ("q2", "a2"), ("q3", "a3"), ("q4", "a4")][4 - min(turns, 4) :]


def configured_with(**turn: Any) -> tuple[Session, tuple[Effect, ...]]:
    """A session just configured with these options of its turns, and what that had it do."""
    session = Session(Limits(), at_s=0)
    options = SessionOptions(turn=TurnOptions(**turn))
    return session, session.receive(ev.Configure(at_s=0, session_id="s", options=options))


def started(effects: tuple[Effect, ...]) -> StartTurn:
    (start,) = (effect for effect in effects if isinstance(effect, StartTurn))
    return start


def test_the_first_message_is_a_turn_of_its_own() -> None:
    """It is spoken as it is, once, and what was heard of it is the first line of the history."""
    session, effects = configured_with(first_message="Good day.")
    assert names(effects) == [EnsureStt, Configured, TurnStarted, StartTurn]
    assert (started(effects).say, started(effects).cause) == ("Good day.", "first_message")
    assert TurnStarted(1, "", "first_message") in effects
    session.receive(ev.ReplyComplete(at_s=1, turn_id=1, text="Good day.", metadata={}))
    session.receive(ev.TurnDone(at_s=1, turn_id=1))
    again = session.receive(ev.Configure(at_s=2, session_id="s", options=session.options))
    assert names(again) == [EnsureStt, Configured]
    answer = started(session.receive(ev.TextPrompt(at_s=3, text="hello")))
    assert answer.history == (Exchange("", "Good day."),)
    assert answer.say is None


@pytest.mark.parametrize("audible", [False, True])
@pytest.mark.parametrize("cls", [ev.Partial, ev.Committed])
def test_an_uninterruptible_first_message_is_spoken_to_its_end(cls: type[ev.Event], *, audible: bool) -> None:
    """Speech leaves it alone, thinking or speaking; a prompt and a stop button do not."""

    def greeting() -> Session:
        session, _ = configured_with(first_message="Good day.", first_message_uninterruptible=True)
        if audible:
            session.receive(ev.FirstAudio(at_s=0, turn_id=1))
            session.receive(ev.AudioSent(at_s=0, turn_id=1, duration_ms=1000))
        return session

    session = greeting()
    state = session.state
    effects = session.receive(make_events()[cls])
    assert (session.state, CancelTurn(1) in effects) == (state, False)
    for client in (ev.TextPrompt, ev.Interrupt, ev.Disconnect, ev.Configure):
        assert CancelTurn(1) in greeting().receive(make_events()[client])


def test_a_first_message_gives_way_to_words() -> None:
    """Unless it was asked to be spoken to its end."""
    session, _ = configured_with(first_message="Good day.")
    for cls in (ev.FirstAudio, ev.AudioSent):
        session.receive(make_events(at_s=0)[cls])
    assert CancelTurn(1) in session.receive(ev.Partial(at_s=0.5, text="stop it now"))


def test_an_utterance_that_breaks_off_is_waited_upon() -> None:
    """What follows in time is joined to it; a further one that breaks off is waited upon too."""
    session, _ = configured_with(patience_ms=800)
    assert names(session.receive(ev.Committed(at_s=1, text="I would like a table and"))) == [
        UtteranceCommitted
    ]
    assert (session.state, session.deadline_s) == ("holding", 1.8)
    session.receive(ev.SpeechStarted(at_s=1.7))
    session.receive(ev.Partial(at_s=2.4, text="for"))
    assert session.deadline_s == pytest.approx(3.2)
    assert session.receive(ev.Tick(at_s=3.1)) == ()
    session.receive(ev.Committed(at_s=3.1, text="for, um"))
    assert session.state == "holding"
    effects = session.receive(ev.Committed(at_s=3.5, text="two please"))
    assert started(effects).text == "I would like a table and for, um two please"


def test_patience_ends() -> None:
    """When nothing more is said the turn begins with what there is, and forgets it."""
    session, _ = configured_with(patience_ms=800)
    session.receive(ev.Committed(at_s=1, text="It is 0 1 7"))
    assert started(session.receive(ev.Tick(at_s=1.8))).text == "It is 0 1 7"
    session.receive(ev.TurnDone(at_s=2, turn_id=1))
    assert started(session.receive(ev.Committed(at_s=3, text="thanks a lot"))).text == "thanks a lot"


def test_a_broken_off_interruption_silences_the_assistant_at_once() -> None:
    """It is waited upon with the assistant silent."""
    session = interruptible(patience_ms=800, barge_in="partial")
    effects = session.receive(ev.Committed(at_s=1, text="No I meant the"))
    assert TurnEnded(1, "interrupted") in effects
    assert session.state == "holding"


@pytest.mark.parametrize("event", [ev.Configure, ev.Disconnect], ids=lambda cls: cls.__name__)
def test_what_was_held_is_forgotten_with_its_session(event: type[ev.Event]) -> None:
    """No turn begins of it later."""
    session = at("holding")
    session.receive(make_events(at_s=0.1)[event])
    if session.state == "listening":
        assert started(session.receive(ev.Committed(at_s=1, text="hello there"))).text == "hello there"


def speculating(**turn: Any) -> Session:
    """A session that has asked for the reply to "what is the time" half a second after it was heard."""
    session, _ = configured_with(speculative_ms=500, **turn)
    session.receive(ev.Partial(at_s=1, text="what is the"))
    session.receive(ev.Partial(at_s=1.4, text="what is the time"))
    session.receive(ev.Partial(at_s=1.6, text="What is the time"))
    assert session.deadline_s == pytest.approx(1.9)
    (speculate, *moved) = session.receive(ev.Tick(at_s=1.9))
    assert isinstance(speculate, Speculate)
    assert (speculate.start.text, speculate.start.turn_id) == ("What is the time", 1)
    assert names(tuple(moved)) == []
    return session


def timed(effects: tuple[Effect, ...]) -> TurnTimed:
    (metrics,) = (effect for effect in effects if isinstance(effect, TurnTimed))
    return metrics


def test_a_guess_that_was_right_is_used() -> None:
    """The turn begins with the commit, as any other; its reply was asked for before."""
    session = speculating()
    effects = session.receive(ev.Committed(at_s=2.4, text="What is the time?"))
    assert names(effects) == [UtteranceCommitted, TurnStarted, StartTurn]
    assert started(effects).speculated
    assert started(effects).text == "What is the time?"
    metrics = timed(session.receive(ev.TurnDone(at_s=3, turn_id=1)))
    assert metrics.asked_early_ms == pytest.approx(500)
    assert metrics.wasted_calls == 0


def test_a_guess_that_was_wrong_was_never_made() -> None:
    """The call is ended, nobody is told, and the turn asks anew under the same number."""
    session = speculating()
    effects = session.receive(ev.Committed(at_s=2.4, text="What is the time in Rome?"))
    assert names(effects) == [UtteranceCommitted, DropSpeculation, TurnStarted, StartTurn]
    assert (started(effects).turn_id, started(effects).speculated) == (1, False)
    metrics = timed(session.receive(ev.TurnDone(at_s=3, turn_id=1)))
    assert (metrics.asked_early_ms, metrics.wasted_calls) == (None, 1)


def test_all_guesses_in_vain_are_counted() -> None:
    """Since the turn before."""
    session = speculating()
    session.receive(ev.Partial(at_s=2, text="What is the time in Rome"))
    session.receive(ev.Tick(at_s=2.5))
    session.receive(ev.Committed(at_s=3, text="What is the time in Paris?"))
    assert timed(session.receive(ev.TurnDone(at_s=4, turn_id=1))).wasted_calls == 2


def test_no_guess_is_made_of_words_that_wait_for_a_request() -> None:
    """Nobody has asked for a reply yet."""
    session, _ = configured_with(speculative_ms=500, respond="asked")
    session.receive(ev.Partial(at_s=1, text="what is the time"))
    assert session.receive(ev.Tick(at_s=5)) == ()


def test_what_breaks_off_depends_on_the_language() -> None:
    """English "um" is a German word; a guess and patience agree on it."""
    options = SessionOptions(stt=SttOptions(language_code="de"), turn=TurnOptions(speculative_ms=500))
    session = Session(Limits(), at_s=0)
    session.receive(ev.Configure(at_s=0, session_id="s", options=options))
    session.receive(ev.Partial(at_s=1, text="Wir fahren um"))
    assert Speculate in names(session.receive(ev.Tick(at_s=1.5)))


def test_a_user_who_goes_on_ends_the_guess() -> None:
    """The same words in another spelling do not; further words do, and may be guessed upon again."""
    session = speculating()
    assert names(session.receive(ev.Partial(at_s=2, text="What is the time?"))) == [PartialHeard]
    assert session.state == "speculating"
    assert names(session.receive(ev.Partial(at_s=2.1, text="What is the time in Rome"))) == [
        PartialHeard,
        DropSpeculation,
    ]
    assert session.state == "listening"
    assert session.deadline_s == pytest.approx(2.6)


@pytest.mark.parametrize(
    "event",
    [
        ev.Committed(at_s=2, text=" "),
        ev.SttFailed(at_s=2, code="c", message="m", retryable=True),
        ev.Disconnect(at_s=2),
        ev.Configure(at_s=2, session_id="s", options=OPTIONS),
        ev.Tick(at_s=11.9),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_guess_about_lost_words_is_dropped(event: ev.AnyEvent) -> None:
    """Whatever takes the words away ends the call."""
    session = speculating()
    assert DropSpeculation() in session.receive(event)
    assert session.state in {"listening", "closed"}


@pytest.mark.parametrize("text", ["I would like, um", "my number is five five"])
def test_words_that_break_off_are_no_ground_for_a_guess(text: str) -> None:
    """They are not final, however long they stand."""
    session, _ = configured_with(speculative_ms=500)
    session.receive(ev.Partial(at_s=1, text=text))
    assert session.receive(ev.Tick(at_s=2)) == ()


def test_a_guess_gives_way_to_patience() -> None:
    """A commit that breaks off is held, whatever was guessed."""
    session = speculating(patience_ms=800)
    assert DropSpeculation() in session.receive(ev.Committed(at_s=2, text="What is the time and"))
    assert session.state == "holding"


@pytest.mark.parametrize("audible", [False, True])
def test_turns_in_general_may_be_uninterruptible(*, audible: bool) -> None:
    """``turn.uninterruptible`` holds for the turns that begin under it, until the client lets go."""
    session, _ = configured_with(uninterruptible=True, barge_in="vad")
    session.receive(ev.Committed(at_s=1, text="tell me the rules"))
    if audible:
        session.receive(ev.FirstAudio(at_s=1, turn_id=1))
        session.receive(ev.AudioSent(at_s=1, turn_id=1, duration_ms=9000))
    state = session.state
    for event in (
        ev.SpeechStarted(at_s=2),
        ev.Partial(at_s=2.5, text="stop that"),
        ev.Committed(at_s=3, text="stop that please"),
    ):
        assert CancelTurn(1) not in session.receive(event)
        assert session.state == state
    assert CancelTurn(1) in session.receive(ev.Interrupt(at_s=4))


def test_the_assistant_breaks_a_silence() -> None:
    """So often and no oftener, with its own text or by asking; and silence still ends the session."""
    session, _ = configured_with(idle_prompt_s=5, idle_prompt_times=2, idle_timeout_s=30)
    assert session.deadline_s == 5
    asked = started(session.receive(ev.Tick(at_s=5)))
    assert (asked.cause, asked.say) == ("silence", None)
    assert asked.text == SILENCE_PROMPT.format(silent_s=5)
    session.receive(ev.TurnDone(at_s=6, turn_id=1))
    assert session.deadline_s == 11
    again = started(session.receive(ev.Tick(at_s=11)))
    assert again.text == SILENCE_PROMPT.format(silent_s=11), "since the user was active"
    session.receive(ev.TurnDone(at_s=12, turn_id=2))
    assert session.deadline_s == 30
    session.receive(ev.TextPrompt(at_s=20, text="I am back"))
    session.receive(ev.TurnDone(at_s=21, turn_id=3))
    assert session.deadline_s == 26
    for due_s, turn_id in ((26, 4), (32, 5)):
        asked = started(session.receive(ev.Tick(at_s=due_s)))
        assert asked.text == SILENCE_PROMPT.format(silent_s=due_s - 21)
        session.receive(ev.TurnDone(at_s=due_s + 1, turn_id=turn_id))
    assert session.deadline_s == 51
    assert Closing("idle") in session.receive(ev.Tick(at_s=51))


def test_a_set_text_breaks_a_silence_without_asking_anybody() -> None:
    """``idle_prompt_text`` is spoken as it is."""
    session, _ = configured_with(idle_prompt_s=5, idle_prompt_text="Are you there?")
    assert started(session.receive(ev.Tick(at_s=5))).say == "Are you there?"


@settings(deadline=None)  # machines differ
@given(
    st.lists(st.sampled_from(list("abcdefghijklmnopqrst")), min_size=3, max_size=20, unique=True),
    st.data(),
)
def test_an_echo_never_makes_a_turn(letters: list[str], data: st.DataObject) -> None:
    """Three or more words in a row of what is audible, heard at any time up to a second after the end."""
    words = [letter * 2 + str(number) for number, letter in enumerate(letters)]
    reply_s = len(words) * 0.4
    session, _ = configured_with(barge_in=data.draw(st.sampled_from(["partial", "vad"])))
    for event in (
        ev.TextPrompt(at_s=0, text="hello"),
        ev.FirstAudio(at_s=0, turn_id=1),
        ev.SpeechAligned(at_s=0, turn_id=1, spans=(ev.SpokenSpan(" ".join(words), 0.0),)),
        ev.AudioSent(at_s=0, turn_id=1, duration_ms=reply_s * 1000),
        ev.TurnDone(at_s=0, turn_id=1),
    ):
        session.receive(event)
    last = data.draw(st.integers(2, len(words) - 1))
    first = max(last - data.draw(st.integers(2, 6)), 0)
    at_s = (last + 1) * 0.4 + data.draw(st.floats(0, 1))
    if at_s >= reply_s:
        session.receive(ev.Tick(at_s=reply_s))
    echo = " ".join(words[first : last + 1])
    effects = (
        *session.receive(ev.Partial(at_s=at_s, text=echo)),
        *session.receive(ev.Committed(at_s=at_s + 0.1, text=echo)),
    )
    assert not {TurnStarted, TurnInterrupted, PartialHeard} & set(names(effects))


def test_activity_without_a_word_puts_the_idle_limit_off() -> None:
    """Who is busy in the front end has not left."""
    session = at("listening")
    before_s = session.deadline_s
    assert session.receive(ev.UserActive(at_s=5)) == ()
    assert session.deadline_s == before_s + 5


def asked(*events: ev.AnyEvent, **turn: Any) -> tuple[Session, tuple[Effect, ...]]:
    """A session that answers on request, after these events; the effects of the last."""
    session, effects = configured_with(respond="asked", **turn)
    for event in events:
        effects = session.receive(event)
    return session, effects


def test_what_is_said_waits_for_a_request() -> None:
    """Spoken and added, in order; one turn answers all of it, once."""
    session, effects = asked(
        ev.Committed(at_s=1, text="I have two questions."),
        ev.Added(at_s=2, role="user", text="Who are you?"),
        ev.Committed(at_s=3, text="And where?"),
    )
    assert names(effects) == [UtteranceCommitted]
    effects = session.receive(ev.Respond(at_s=4))
    assert started(effects).text == "I have two questions. Who are you? And where?"
    session.receive(ev.TurnDone(at_s=5, turn_id=1))
    again = started(session.receive(ev.Respond(at_s=6)))
    assert (again.text, again.cause, again.turn_id) == (GO_ON_PROMPT, "asked", 2)


@pytest.mark.parametrize(
    "end",
    [
        ev.Interrupt(at_s=3),
        ev.TurnFailed(at_s=3, turn_id=1, code="chat_timeout", message="No answer.", retryable=True),
    ],
)
def test_a_question_that_got_no_answer_is_answered_on_request(end: ev.AnyEvent) -> None:
    """Also when that is stopped as well; once the user has heard something, the chat goes on with it."""
    session, _ = asked(ev.Committed(at_s=1, text="Who are you?"), ev.Respond(at_s=2), end)
    second = started(session.receive(ev.Respond(at_s=4)))
    assert (second.text, second.cause) == (ANSWER_PROMPT, "asked")
    assert [exchange.user for exchange in second.history] == ["Who are you?"]
    session.receive(ev.Interrupt(at_s=5))
    third = started(session.receive(ev.Respond(at_s=6)))
    assert third.text == ANSWER_PROMPT
    session.receive(ev.ReplyComplete(at_s=7, turn_id=3, text="A demo.", metadata={}))
    session.receive(ev.TurnDone(at_s=8, turn_id=3))
    assert started(session.receive(ev.Respond(at_s=9))).text == GO_ON_PROMPT


def test_a_request_waits_for_the_words_of_its_question() -> None:
    """All utterances that the client ended are transcribed first; a blank one counts."""
    session, _ = asked(ev.CommitAsked(at_s=1), ev.CommitAsked(at_s=2), ev.Respond(at_s=2))
    assert session.state == "holding"
    assert names(session.receive(ev.Committed(at_s=2.5, text="Good day."))) == [UtteranceCommitted]
    assert started(session.receive(ev.Committed(at_s=3, text=" "))).text == "Good day."


@pytest.mark.parametrize("respond", ["auto", "asked"])
def test_a_request_does_not_wait_for_ever(respond: str) -> None:
    """Speech goes on, words do not come: the reply begins without."""
    session, _ = configured_with(respond=respond)
    for event in (ev.CommitAsked(at_s=1), ev.Respond(at_s=1), ev.SpeechStarted(at_s=3)):
        session.receive(event)
    assert session.deadline_s == 1 + WORDS_WITHIN_S
    assert started(session.receive(ev.Tick(at_s=1 + WORDS_WITHIN_S))).cause == "asked"


def test_words_held_when_replies_come_to_be_made_on_request_are_kept() -> None:
    """There was patience for more; what comes is no request."""
    session, _ = configured_with(patience_ms=2000)
    session.receive(ev.Committed(at_s=1, text="So and ..."))
    assert session.state == "holding"
    session.receive(ev.Update(at_s=2, options=SessionOptions(turn=TurnOptions(respond="asked"))))
    assert names(session.receive(ev.Committed(at_s=2, text="yes"))) == [UtteranceCommitted]
    assert session.state == "listening"
    assert started(session.receive(ev.Respond(at_s=4))).text == "So and ... yes"


def test_a_request_waits_for_words_that_are_being_guessed() -> None:
    """The partial stood long enough for a guess, and its utterance is still being transcribed."""
    session, _ = configured_with(speculative_ms=200)
    for event in (ev.Partial(at_s=1, text="Who are you"), ev.CommitAsked(at_s=1), ev.Tick(at_s=2)):
        session.receive(event)
    assert session.state == "speculating"
    session.receive(ev.Respond(at_s=2))
    assert session.state == "holding"
    assert started(session.receive(ev.Committed(at_s=3, text="Who are you?"))).text == "Who are you?"


def test_a_request_can_be_withdrawn() -> None:
    """Before its turn has begun: nothing begins, and what was said still waits."""
    session, _ = asked(ev.CommitAsked(at_s=1), ev.Respond(at_s=1), ev.Interrupt(at_s=2))
    assert session.state == "listening"
    assert names(session.receive(ev.Committed(at_s=3, text="Good day."))) == [UtteranceCommitted]
    assert started(session.receive(ev.Respond(at_s=4))).text == "Good day."


def test_the_options_of_a_request_are_those_of_its_turn_alone() -> None:
    """Whether it begins at once or later."""
    silent = SessionOptions(tts=TtsOptions(silent=True))
    session, effects = asked(ev.Respond(at_s=1, options=silent))
    assert started(effects).options == silent
    session.receive(ev.TurnDone(at_s=2, turn_id=1))
    assert started(session.receive(ev.Respond(at_s=3))).options == session.options


def test_a_request_while_the_reply_before_is_still_heard() -> None:
    """All of it has been sent: it counts as heard, and the next begins."""
    session = interruptible(respond="asked")
    effects = session.receive(ev.Respond(at_s=1))
    assert TurnEnded(1, "completed") in effects
    assert started(effects).history == (Exchange("hello", ""),)


def test_speech_interrupts_and_still_waits_for_a_request() -> None:
    """Interrupting is one thing, being answered another."""
    session = interruptible(respond="asked", barge_in="partial")
    effects = session.receive(ev.Committed(at_s=1, text="No, in Rome"))
    assert TurnEnded(1, "interrupted") in effects
    assert session.state == "listening"
    assert started(session.receive(ev.Respond(at_s=2))).text == "No, in Rome"


def test_added_text_joins_what_is_said() -> None:
    """It starts nothing, and is answered with the next utterance, also in the place of a turn."""
    session, _ = configured_with()
    assert session.receive(ev.Added(at_s=1, role="user", text="My name is Ann.")) == ()
    assert started(session.receive(ev.Committed(at_s=2, text="Hello"))).text == "My name is Ann. Hello"
    session.receive(ev.Added(at_s=2.1, role="user", text="I am from Rome."))
    effects = session.receive(ev.Committed(at_s=2.2, text="And you?"))
    assert started(effects).text == "My name is Ann. Hello I am from Rome. And you?"


def test_an_added_reply_is_history() -> None:
    """With what was added before it as its question."""
    session, _ = configured_with()
    session.receive(ev.Added(at_s=1, role="user", text="Who are you?"))
    session.receive(ev.Added(at_s=1, role="assistant", text="I am Max."))
    start = started(session.receive(ev.Respond(at_s=2)))
    assert start.history == (Exchange("Who are you?", "I am Max."),)


def test_a_client_may_say_late_how_much_was_heard() -> None:
    """Of the turn that was interrupted last, and no other."""
    session = interruptible("one two three four")
    session.receive(ev.Interrupt(at_s=2))
    session.receive(ev.PlaybackProgress(at_s=2.1, turn_id=1, played_ms=3000))
    start = started(session.receive(ev.TextPrompt(at_s=3, text="go on")))
    assert start.history == (Exchange("hello", "one two", interrupted=True),)
    session.receive(ev.PlaybackProgress(at_s=3.1, turn_id=1, played_ms=4000))
    session.receive(ev.Interrupt(at_s=4))
    session.receive(ev.PlaybackProgress(at_s=4.1, turn_id=2, played_ms=0))
    start = started(session.receive(ev.TextPrompt(at_s=5, text="and on")))
    assert start.history[1] == Exchange("go on", "", interrupted=True)
    assert start.history[0] == Exchange("hello", "one two three four", interrupted=True)
