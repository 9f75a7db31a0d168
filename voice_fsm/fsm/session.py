"""The typed door to the chart: one event in, the effects it has out."""

import math
from typing import Final, TypeVar, assert_never

import attrs

from voice_fsm.errors import ClientFault, SessionFault
from voice_fsm.fsm.actions import Closure, joined
from voice_fsm.fsm.barge_in import LAST_WORDS_MS
from voice_fsm.fsm.deadlines import Limits, deadlines
from voice_fsm.fsm.echo import without_echo
from voice_fsm.fsm.effects import (
    CloseSession,
    Configured,
    Effect,
    EnsureStt,
    ErrorTold,
    PartialHeard,
    PrepareVoice,
    ReplyTold,
    SpeechBegan,
    SpeechEnded,
    SttStarted,
    UtteranceCommitted,
)
from voice_fsm.fsm.events import (
    Abort,
    Added,
    AnyEvent,
    AnyTurnEvent,
    AudioSent,
    BadInput,
    CommitAsked,
    Committed,
    Configure,
    Disconnect,
    Drain,
    FirstAudio,
    Interrupt,
    Partial,
    PlaybackProgress,
    ReplyComplete,
    ReplyStarted,
    Respond,
    SessionEvent,
    SpeechAligned,
    SpeechStarted,
    SpeechStopped,
    SttFailed,
    SttOpened,
    TextPrompt,
    Tick,
    TurnDone,
    TurnEvent,
    TurnFailed,
    Update,
    UserActive,
)
from voice_fsm.fsm.facts import Facts
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.machine import Machine
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.fsm.words import same_words

ECHO_LATE_S: Final = 4.0
"""How long after the assistant said a word the recogniser may come with it."""
ECHO_EARLY_S: Final = 1.5
"""How far our reckoning may be behind what the listener hears."""
ECHO_TAIL_S: Final = 1.0
"""How long after a turn an utterance that begins may still be its echo; later it is the user's own words."""

TranscriptT = TypeVar("TranscriptT", Partial, Committed)


class Session:
    """A session's brain. Pure: the same events give the same effects.

    ``receive`` is not re-entrant: carry out the effects before the next event.
    """

    def __init__(self, limits: Limits, *, at_s: float, machine: Machine | None = None) -> None:
        """``machine`` may serve other sessions too."""
        self._limits = limits
        self._facts = Facts(opened_s=at_s, now_s=at_s, history_turns=limits.history_turns)
        self._machine = machine or Machine()

    @property
    def state(self) -> str:
        """The id of the state in which the chart is."""
        return self._facts.state

    @property
    def session_id(self) -> str:
        """What the client calls the session, or was given as its name; blank until it is configured."""
        return self._facts.session_id

    @property
    def options(self) -> SessionOptions:
        """The session's settings as they are now."""
        return self._facts.options

    @property
    def deadline_s(self) -> float:
        """When to send the next `Tick`; infinity for never. Changes with every event."""
        if self._facts.state == "closed":
            return math.inf
        due_s, _ = min(deadlines(self._facts, self._limits))
        return due_s

    @property
    def voice_due_s(self) -> float:
        """When more of the turn's audio may go to the client; infinity while it is held back."""
        facts = self._facts
        if facts.state == "hesitating":
            return math.inf
        lead_ms = facts.options.turn.max_lead_ms
        if facts.turn is None or lead_ms is None:
            return -math.inf
        return facts.turn.clock.over_at_s() - lead_ms / 1000

    @property
    def is_replying(self) -> bool:
        """Whether a turn is being made or sent; what the listener still hears of it does not count."""
        turn = self._facts.turn
        return turn is not None and turn.sent_s is None

    def receive(self, event: AnyEvent) -> tuple[Effect, ...]:
        """Take one event; give the effects to carry out, in order."""
        facts = self._facts
        if facts.state == "closed":
            return ()
        facts.now_s = event.at_s
        if facts.state == "unconfigured":
            self._before_configuration(event)
        elif not isinstance(event, TurnEvent):
            self._take(event)
        elif facts.turn is not None and facts.turn.turn_id == event.turn_id:
            self._take_from_turn(event)
        effects = tuple(facts.effects)
        facts.effects.clear()
        return effects

    def _before_configuration(self, event: AnyEvent) -> None:
        match event:
            case Configure() | BadInput() | Disconnect() | Drain() | Abort() | Tick():
                self._take(event)
            case Update() | TextPrompt() | Added() | Respond() | Interrupt() | PlaybackProgress():
                self._emit(
                    ErrorTold(code=ClientFault.NOT_CONFIGURED, message="Send session.configure first.")
                )
            case _:  # Reports of links and turns that this session does not have.
                pass

    def _take(self, event: SessionEvent) -> None:  # noqa: C901, PLR0912, PLR0915  # a table, an event a line or two
        facts = self._facts
        match event:
            case Configure():
                facts.user_is_active()
                self._send("configure", event)
            case Update():
                if event.options.stt != facts.options.stt:
                    facts.unheard = 0  # nobody will answer for what the old link heard
                facts.options = event.options
                self._emit(EnsureStt(event.options.stt), Configured(facts.session_id, event.options))
            case TextPrompt():
                facts.user_is_active()
                self._send("utterance", event)
            case Added():
                self._added(event)
            case CommitAsked():
                facts.unheard += 1
            case Respond():
                facts.user_is_active()
                self._send("respond", event)
            case UserActive():
                facts.user_is_active()
            case Partial():
                self._partial(event)
            case Committed():
                self._committed(event)
            case SpeechStarted():
                self._speech_started(event)
            case SpeechStopped():
                self._speech_stopped(event)
            case Interrupt():
                if event.turn_id is None or (facts.turn and facts.turn.turn_id == event.turn_id):
                    self._send("interrupt", event)
            case PlaybackProgress():
                if facts.turn is not None and facts.turn.turn_id == event.turn_id:
                    facts.turn.clock.progress_reported(event.played_ms, event.at_s)
                elif facts.cut_short is not None and facts.cut_short.turn_id == event.turn_id:
                    facts.correct_heard(event.played_ms)
            case SttOpened():
                self._forget_speech()  # the utterance went with the old link, or comes again
                self._emit(SttStarted(event.session_id, event.config))
            case SttFailed():
                self._forget_speech()
                facts.unheard = 0
                self._emit(
                    ErrorTold(
                        code=event.code, message=event.message, field=event.field, retryable=event.retryable
                    )
                )
            case BadInput():
                self._emit(ErrorTold(code=event.code, message=event.message, field=event.field))
            case Tick():
                self._tick()
            case Disconnect():
                self._close(Closure(close_code=1000))
            case Drain():
                self._close(Closure(close_code=1012, reason="draining"))
            case Abort():
                error = ErrorTold(code=event.code, message=event.message, fatal=True)
                self._close(Closure(close_code=event.close_code, reason=event.reason, error=error))
            case _:
                assert_never(event)

    def _take_from_turn(self, event: AnyTurnEvent) -> None:
        facts, turn = self._facts, self._facts.current
        match event:
            case AudioSent():
                turn.audio_sent(event.duration_ms, event.at_s)
            case ReplyStarted():
                turn.first_text_s = event.at_s
            case ReplyComplete():
                turn.reply_text = event.text
                self._emit(ReplyTold(turn.turn_id, event.text, event.metadata))
            case SpeechAligned():
                turn.spans.extend(event.spans)
            case FirstAudio():
                if facts.state == "thinking":
                    self._send("first_audio")
            case TurnDone():
                if turn.sent_s is None:
                    self._send("turn_done")
            case TurnFailed():
                self._send("turn_failed", event)
            case _:
                assert_never(event)

    def _partial(self, event: Partial) -> None:
        facts = self._facts
        if not event.text.strip():
            return
        if facts.speech_since_s is None:
            self._hear_speech_since(event.at_s)
        facts.has_words = True
        own = self._users_own(event)
        if not same_words(own.text, facts.utterance):
            facts.utterance_s = event.at_s
        facts.utterance = own.text
        if own.text:
            facts.user_is_active()
            self._emit(PartialHeard(own.text))
            self._send("words", own)

    def _speech_started(self, event: SpeechStarted) -> None:
        facts = self._facts
        facts.user_is_active()
        facts.silent_since_s = None
        self._emit(SpeechBegan())
        if not facts.has_words:
            self._hear_speech_since(event.at_s - event.speech_ms / 1000)
        self._send("voice")

    def _speech_stopped(self, event: SpeechStopped) -> None:
        facts = self._facts
        facts.user_is_active()
        facts.silent_since_s = event.at_s - event.silence_ms / 1000
        self._emit(SpeechEnded())

    def _hear_speech_since(self, since_s: float) -> None:
        self._facts.speech_since_s = since_s
        self._emit(PrepareVoice(self._facts.options.tts))

    def _forget_speech(self) -> None:
        facts = self._facts
        facts.speech_since_s, facts.utterance, facts.has_words = None, "", False
        if facts.state == "speculating":
            self._send("words_lost")

    def _committed(self, event: Committed) -> None:
        facts = self._facts
        own = self._users_own(event)
        self._emit(UtteranceCommitted(own.text, own.words if own.text == event.text else ()))
        facts.unheard = max(facts.unheard - 1, 0)
        if own.text.strip():
            facts.user_is_active()
            is_kept = facts.options.turn.respond == "asked" or facts.is_asked
            self._send("kept" if is_kept else "utterance", own)
        else:
            self._send("nothing_said")
        self._forget_speech()

    def _added(self, event: Added) -> None:
        facts = self._facts
        facts.user_is_active()
        if facts.state == "speculating":
            self._send("words_lost")
        if event.role == "user":
            facts.held_text = joined(facts.held_text, event.text)
        else:
            facts.remember(Exchange(facts.held_text, event.text))
            facts.held_text = ""

    def _users_own(self, event: TranscriptT) -> TranscriptT:
        """What the assistant did not say itself."""
        facts = self._facts
        if not facts.options.turn.echo_filter:
            return event
        now_s, turn = facts.now_s, facts.turn
        since_s = now_s if facts.speech_since_s is None else facts.speech_since_s
        said, short = "", False
        if since_s - facts.lately_s <= ECHO_TAIL_S:
            said = facts.lately_said
        if turn is not None and turn.first_audio_sent_s is not None:
            said += " " + turn.said_between(since_s - ECHO_LATE_S, now_s + ECHO_EARLY_S, now_s)
            short = turn.rest_ms(now_s) > LAST_WORDS_MS
        if not said.strip():
            return event
        text = without_echo(
            event.text,
            said,
            short=short,
            unfinished=isinstance(event, Partial),
            language_code=facts.options.stt.language_code,
        )
        return event if text == event.text else attrs.evolve(event, text=text)

    def _tick(self) -> None:
        """Bring about what is due; what is not listed is an event of the chart."""
        facts = self._facts
        due_s, what = min(deadlines(facts, self._limits))
        if due_s > facts.now_s:
            return
        match what:
            case "decision_due":
                self._send(what, Tick(at_s=facts.now_s))
            case "words_lost":
                self._forget_speech()
            case "thought_enough":
                failed = TurnFailed(
                    at_s=facts.now_s,
                    turn_id=facts.current.turn_id,
                    code=SessionFault.TURN_TIMEOUT,
                    message="The assistant took too long to answer.",
                    retryable=True,
                )
                self._send("turn_failed", failed)
            case "idle":
                self._close(Closure(close_code=1000, reason="idle"))
            case "max_duration":
                self._close(Closure(close_code=1000, reason="max_duration"))
            case "configure":
                error = ErrorTold(
                    code=SessionFault.CONFIGURE_TIMEOUT,
                    message="No session.configure came in time.",
                    fatal=True,
                )
                self._close(Closure(close_code=1008, reason="policy", error=error))
            case _:
                self._send(what)

    def _close(self, closure: Closure) -> None:
        self._send("close", closure)
        self._emit(CloseSession(closure.close_code))

    def _send(self, event: str, message: object = None) -> None:
        self._machine.send(self._facts, event, message)

    def _emit(self, *effects: Effect) -> None:
        self._facts.effects.extend(effects)
