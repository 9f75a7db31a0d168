"""What the transitions of the chart do: guards look at the facts, actions change them and ask for effects."""

import math
from typing import Final

import attrs

from voice_fsm.fsm.barge_in import interrupts
from voice_fsm.fsm.effects import (
    AudioEnded,
    AudioStarted,
    CancelTurn,
    Closing,
    ClosingReason,
    Configured,
    DropSpeculation,
    EnsureStt,
    ErrorTold,
    InterruptReason,
    Outcome,
    ResumeTurn,
    Speculate,
    StartTurn,
    TurnEnded,
    TurnInterrupted,
    TurnPaused,
    TurnResumed,
    TurnStarted,
)
from voice_fsm.fsm.events import (
    Committed,
    Configure,
    Interrupt,
    Partial,
    Respond,
    TextPrompt,
    Tick,
    TurnFailed,
)
from voice_fsm.fsm.facts import Facts
from voice_fsm.fsm.history import Exchange, TurnCause, unanswered
from voice_fsm.fsm.turn import Turn
from voice_fsm.fsm.unfinished import is_unfinished
from voice_fsm.fsm.words import same_words

MAX_JOINED_CHARS: Final = 8000
"""Of utterances that are answered together the newest part is kept."""
MOST_PAUSES: Final = 3
"""A reply that was paused so often for nothing waits for words: the noise around is no interruption."""
ECHO_WITHIN_S: Final = 10.0
"""How much of a turn is remembered when it ends, for its echo."""
WORDS_WITHIN_S: Final = 5.0
"""How long a reply that was asked for waits for the transcript of its question."""
GO_ON_PROMPT: Final = "[The user has said nothing new. Open the conversation, or go on with it.]"
"""What the chat backend is asked where a client wants a reply to nothing; documented in docs/backend.md."""
ANSWER_PROMPT: Final = "[The user has heard no answer to what they said last. Answer it.]"
"""The same where the turn of the last question failed or was stopped unheard; documented there too."""
SILENCE_PROMPT: Final = "[The user has said nothing for {silent_s} seconds. Say something short that helps.]"
"""What the chat backend is asked where no text is set for a silence; documented in docs/backend.md."""


@attrs.frozen(kw_only=True)
class Closure:
    """Why and how a session ends."""

    close_code: int
    reason: ClosingReason | None = None
    """For `session.closing`; ``None`` when nobody is there to be told."""
    error: ErrorTold | None = None


class Actions:
    """Guards and actions; the chart names them at its transitions."""

    model: Facts

    # --- guards -------------------------------------------------------------------------------------

    def has_greeting(self, message: Configure) -> bool:
        """Whether the assistant is to speak first."""
        return message.options.turn.first_message is not None

    def may_extend(self, message: Committed | TextPrompt) -> bool:
        """Whether a turn that nobody has heard yet may give way to one that answers more."""
        return isinstance(message, TextPrompt) or self.model.current.interruptible

    def may_interrupt(self, message: Partial | Committed | TextPrompt) -> bool:
        """Whether what the user says or types stops the assistant."""
        if isinstance(message, TextPrompt):
            return True
        return self._would_interrupt(message.text)

    def breaks_off(self, message: Committed | TextPrompt) -> bool:
        """Whether there is patience for more than was said."""
        options = self.model.options
        patient = options.turn.patience_ms is not None and isinstance(message, Committed)
        return patient and is_unfinished(message.text, options.stt.language_code)

    def has_unheard(self) -> bool:
        """Whether what the user said is still being transcribed."""
        return self.model.unheard > 0

    def is_asked(self) -> bool:
        """Whether the client waits for a reply that has not begun."""
        return self.model.is_asked

    def was_last_awaited(self) -> bool:
        """Whether the reply that the client asked for can begin."""
        return self.model.is_asked and not self.model.unheard

    def is_sent(self) -> bool:
        """Whether nothing more of the turn is to be sent, though its audio may still be playing."""
        return self.model.current.sent_s is not None

    def was_guessed(self, message: Committed | TextPrompt) -> bool:
        """Whether the reply that was asked for is the one to this."""
        return same_words(message.text, self.model.guess)

    def was_not_guessed(self, message: Partial) -> bool:
        return not same_words(message.text, self.model.guess)

    def may_hesitate(self) -> bool:
        """Whether the voice detector's word alone pauses the reply."""
        facts, turn = self.model, self.model.current
        options = facts.options.turn
        audible = turn.audible_ms(facts.now_s) >= options.grace_ms
        trusted = turn.times_resumed < MOST_PAUSES
        return options.barge_in == "vad" and turn.interruptible and audible and trusted

    def is_being_interrupted(self) -> bool:
        """Whether the user means to speak: enough was said, or speech goes on and its words are to come."""
        facts = self.model
        still_speaks = facts.silent_since_s is None and not facts.has_words
        return still_speaks or self._would_interrupt(facts.utterance)

    # --- actions ------------------------------------------------------------------------------------

    def adopt_options(self, message: Configure) -> None:
        facts = self.model
        facts.session_id, facts.options = message.session_id, message.options
        self.model.emit(EnsureStt(message.options.stt), Configured(message.session_id, message.options))

    def start_turn(self, message: Committed | TextPrompt) -> None:
        self._start(self._with_held(message.text))

    def make_guess(self) -> None:
        """The words stand: ask for the reply as if they were final."""
        facts = self.model
        facts.guess, facts.guessed_s = facts.utterance, facts.now_s
        order = StartTurn(
            turn_id=facts.turns_started + 1,
            text=facts.utterance,
            session_id=facts.session_id,
            history=facts.history,
            options=facts.options,
        )
        facts.emit(Speculate(order))

    def drop_guess(self) -> None:
        facts = self.model
        facts.guess = ""
        facts.wasted_calls += 1
        facts.emit(DropSpeculation())

    def start_guessed_turn(self, message: Committed | TextPrompt) -> None:
        """The guess was right: its reply is on the way already."""
        self.model.guess = ""
        self._start(message.text, speculated=True)

    def hold_utterance(self, message: Committed) -> None:
        self.model.held_text = self._with_held(message.text)
        self.wait_longer()

    def wait_longer(self) -> None:
        """The user is still speaking: patience begins anew, unless a reply is waited for."""
        facts = self.model
        if not facts.is_asked:
            facts.patient_until_s = facts.now_s + (facts.options.turn.patience_ms or 0) / 1000

    def keep_utterance(self, message: Committed) -> None:
        """Nobody has asked for a reply yet."""
        self.model.held_text = self._with_held(message.text)

    def await_words(self, message: Respond) -> None:
        """A reply is asked for before its question has been transcribed."""
        facts = self.model
        facts.is_asked, facts.reply_options = True, message.options
        facts.patient_until_s = facts.now_s + WORDS_WITHIN_S

    def answer_asked(self, message: Respond) -> None:
        self.model.reply_options = message.options
        self.answer_held()

    def answer_held(self) -> None:
        self.model.unheard = 0
        text = self._with_held()
        if text:
            self._start(text)
        else:
            is_owed = unanswered(self.model.history)
            self._start(ask=ANSWER_PROMPT if is_owed else GO_ON_PROMPT, cause="asked")

    def forget_held(self) -> None:
        self.model.held_text = ""
        self.withdraw_request()

    def withdraw_request(self) -> None:
        """No reply is asked for any more."""
        self.model.is_asked, self.model.reply_options = False, None

    def greet(self, message: Configure) -> None:
        """The assistant speaks first."""
        turn = message.options.turn
        self._start(
            say=turn.first_message,
            cause="first_message",
            interruptible=not turn.first_message_uninterruptible,
        )

    def break_silence(self) -> None:
        """The user has said nothing for long: the assistant does."""
        facts = self.model
        turn = facts.options.turn
        facts.silences_broken += 1
        silent_s = round(facts.now_s - facts.user_active_s)
        self._start(ask=SILENCE_PROMPT.format(silent_s=silent_s), say=turn.idle_prompt_text, cause="silence")

    def extend_turn(self, message: Committed | TextPrompt) -> None:
        """The user went on before anything was heard: one turn answers both utterances."""
        facts = self.model
        before, window_ms = facts.current, facts.options.turn.merge_window_ms
        belongs = window_ms is None or (facts.now_s - before.started_s) * 1000 <= window_ms
        self.cancel_turn()
        text = self._with_held(message.text)
        self._start(joined(before.user_text, text) if belongs else text)

    def open_audio(self) -> None:
        facts, turn = self.model, self.model.current
        turn.first_speech_s = facts.now_s
        self.model.emit(AudioStarted(turn.turn_id, turn.output_format))

    def close_audio(self) -> None:
        facts, turn = self.model, self.model.current
        turn.sent_s = facts.now_s
        self.model.emit(AudioEnded(turn.turn_id, turn.output_format))

    def pause_turn(self) -> None:
        """Somebody speaks: be silent until it is known whether to stop."""
        facts, turn = self.model, self.model.current
        turn.hesitating_since_s = facts.now_s
        if facts.options.turn.pausable:
            turn.clock.pause(facts.now_s)
            facts.emit(TurnPaused(turn.turn_id, turn.clock.heard_ms(facts.now_s)))

    def resume_turn(self) -> None:
        """It was nothing: go on where the listener heard the last of it."""
        facts, turn = self.model, self.model.current
        if turn.clock.is_paused:
            facts.emit(TurnResumed(turn.turn_id, turn.clock.heard_ms(facts.now_s)))
            turn.clock.resume(facts.now_s)
        turn.times_resumed += 1
        facts.emit(ResumeTurn(turn.turn_id))

    def complete_turn(self) -> None:
        self._end_turn("completed", self.model.current.completed())

    def cancel_turn(self) -> None:
        self.model.emit(CancelTurn(self.model.current.turn_id))
        self._end_turn("cancelled", None)

    def interrupt_turn(self, message: object) -> None:
        facts, turn = self.model, self.model.current
        exchange = turn.cut_short(facts.now_s)
        facts.emit(CancelTurn(turn.turn_id))
        self._end_audio()
        facts.emit(
            TurnInterrupted(
                turn.turn_id,
                _REASONS.get(type(message), "closing"),
                exchange.assistant,
                turn.clock.heard_ms(facts.now_s),
            )
        )
        self._end_turn("interrupted", exchange)

    def fail_turn(self, message: TurnFailed) -> None:
        facts, turn = self.model, self.model.current
        self.model.emit(CancelTurn(turn.turn_id))
        self._end_audio()
        self.model.emit(
            ErrorTold(
                code=message.code, message=message.message, turn_id=turn.turn_id, retryable=message.retryable
            )
        )
        self._end_turn("failed", turn.cut_short(facts.now_s))

    def close_session(self, message: Closure) -> None:
        if message.error is not None:
            self.model.emit(message.error)
        if message.reason is not None:
            self.model.emit(Closing(message.reason))

    def _with_held(self, text: str = "") -> str:
        facts = self.model
        held, facts.held_text = facts.held_text, ""
        return joined(held, text)

    def _start(
        self,
        user_text: str = "",
        *,
        ask: str | None = None,
        say: str | None = None,
        cause: TurnCause = "user",
        interruptible: bool = True,
        speculated: bool = False,
    ) -> None:
        facts = self.model
        options = facts.reply_options or facts.options
        facts.turns_started += 1
        facts.turn = Turn(
            turn_id=facts.turns_started,
            user_text=user_text,
            cause=cause,
            interruptible=interruptible and not options.turn.uninterruptible,
            output_format=options.tts.output_format,
            started_s=facts.now_s,
            asked_s=facts.guessed_s if speculated else None,
            wasted_calls=facts.wasted_calls,
        )
        facts.wasted_calls = 0
        order = StartTurn(
            turn_id=facts.turns_started,
            text=user_text if ask is None else ask,
            say=say,
            cause=cause,
            session_id=facts.session_id,
            history=facts.history,
            options=options,
            speculated=speculated,
        )
        facts.emit(TurnStarted(facts.turns_started, user_text, cause), order)
        self.withdraw_request()

    def _would_interrupt(self, text: str) -> bool:
        facts, turn = self.model, self.model.current
        since_s = facts.speech_since_s
        return turn.interruptible and interrupts(
            text,
            facts.options.turn,
            language_code=facts.options.stt.language_code,
            speech_ms=math.inf if since_s is None else (facts.now_s - since_s) * 1000,
            audible_ms=turn.audible_ms(facts.now_s),
            rest_ms=turn.rest_ms(facts.now_s),
        )

    def _end_audio(self) -> None:
        turn = self.model.current
        if turn.first_speech_s is not None and turn.sent_s is None:
            self.model.emit(AudioEnded(turn.turn_id, turn.output_format, whole=False))

    def _end_turn(self, outcome: Outcome, exchange: Exchange | None) -> None:
        facts, turn = self.model, self.model.current
        if exchange is not None:
            facts.remember(exchange)
            turn.exchange = exchange
        if outcome == "interrupted":
            facts.cut_short = turn
        heard_out = outcome == "completed" and turn.first_speech_s is not None
        self.model.emit(turn.timed(facts.now_s if heard_out else None), TurnEnded(turn.turn_id, outcome))
        if turn.first_audio_sent_s is not None:
            facts.lately_s = facts.now_s
            facts.lately_said = turn.said_between(facts.now_s - ECHO_WITHIN_S, facts.now_s, facts.now_s)
        facts.turn = None
        facts.quiet_since_s = facts.now_s
        if turn.cause != "silence":
            facts.user_active_s = facts.now_s


def joined(before: str, text: str) -> str:
    """What is answered together, as one text."""
    return f"{before} {text}".strip()[-MAX_JOINED_CHARS:]


_REASONS: dict[type, InterruptReason] = {
    Partial: "speech",
    Committed: "speech",
    Tick: "speech",
    TextPrompt: "prompt",
    Interrupt: "client",
    Configure: "configure",
}
