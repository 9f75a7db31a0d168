"""The chart of a voice session: its states, its transitions, and what each transition asks for.

Only this file decides in which phase a session is. What the diagram leaves out, in prose:

* Reports of a turn carry its number, and `Session` lets only those of the turn in hand through, so no
  late report can move the chart.
* Audio never reaches the chart, and of a transcript only what the assistant did not say itself.
* A turn is cut short in one of two ways. Nothing of it was audible yet (thinking): it is *cancelled*. It
  was audible (speaking), or the client asked for silence: it is *interrupted*, and the client is told
  what had been heard.
* The assistant may speak without being asked: first of all (``configure``), and when the user says nothing
  for long (``silence``). Such turns have no text of the user's.
* ``speculating``: the user's words have stood for a while and may be final; the chat backend has been asked
  as if they were (``turn.speculative_ms``). Nothing of that is told before the commit, nor is it a turn.
* ``holding``: what was said breaks off, and there is patience for more (``turn.patience_ms``); or a reply is
  asked for whose question is still being transcribed.
* Where replies are made on request (``turn.respond``), utterances are ``kept`` until ``respond``. That may
  come while the listener still hears the turn before, if all of it has been sent.
* ``hesitating``: somebody began to speak while the assistant did, and it is not known yet whether to stop. No
  audio is sent. What is said decides, or time does (``decision_due``).
* ``speaking`` ends when the listener has heard the end, which `PlaybackClock` reckons; all audio is sent
  long before.
"""

from statemachine import State, StateMachine

from voice_fsm.fsm.actions import Actions
from voice_fsm.fsm.facts import Facts


class SessionChart(Actions, StateMachine):
    """One voice session."""

    model: Facts

    unconfigured = State(initial=True)
    listening = State()
    speculating = State()
    holding = State()
    thinking = State()
    speaking = State()
    hesitating = State()
    closed = State(final=True)

    configure = (
        unconfigured.to(thinking, cond="has_greeting", on=["adopt_options", "greet"])
        | unconfigured.to(listening, on="adopt_options")
        | listening.to(listening, on="adopt_options")
        | speculating.to(listening, on=["drop_guess", "adopt_options"])
        | holding.to(listening, on=["forget_held", "adopt_options"])
        | thinking.to(listening, on=["cancel_turn", "adopt_options"])
        | speaking.to(listening, on=["interrupt_turn", "adopt_options"])
        | hesitating.to(listening, on=["interrupt_turn", "adopt_options"])
    )
    utterance = (
        listening.to(holding, cond="breaks_off", on="hold_utterance")
        | listening.to(thinking, on="start_turn")
        | speculating.to(holding, cond="breaks_off", on=["drop_guess", "hold_utterance"])
        | speculating.to(thinking, cond="was_guessed", on="start_guessed_turn")
        | speculating.to(thinking, on=["drop_guess", "start_turn"])
        | holding.to(holding, cond="breaks_off", on="hold_utterance")
        | holding.to(thinking, on="start_turn")
        | thinking.to(thinking, cond="may_extend", on="extend_turn")
        | thinking.to(thinking, internal=True)
        | speaking.to(holding, cond=["may_interrupt", "breaks_off"], on=["interrupt_turn", "hold_utterance"])
        | speaking.to(thinking, cond="may_interrupt", on=["interrupt_turn", "start_turn"])
        | speaking.to(speaking, internal=True)
        | hesitating.to(
            holding, cond=["may_interrupt", "breaks_off"], on=["interrupt_turn", "hold_utterance"]
        )
        | hesitating.to(thinking, cond="may_interrupt", on=["interrupt_turn", "start_turn"])
        | hesitating.to(speaking, on="resume_turn")
    )
    kept = (
        listening.to(listening, internal=True, on="keep_utterance")
        | speculating.to(listening, on=["drop_guess", "keep_utterance"])
        | holding.to(holding, cond=["is_asked", "has_unheard"], internal=True, on="keep_utterance")
        | holding.to(thinking, cond="is_asked", on="start_turn")
        | holding.to(listening, on="keep_utterance")
        | thinking.to(thinking, internal=True, on="keep_utterance")
        | speaking.to(listening, cond="may_interrupt", on=["interrupt_turn", "keep_utterance"])
        | speaking.to(speaking, internal=True, on="keep_utterance")
        | hesitating.to(listening, cond="may_interrupt", on=["interrupt_turn", "keep_utterance"])
        | hesitating.to(speaking, on=["keep_utterance", "resume_turn"])
    )
    respond = (
        listening.to(holding, cond="has_unheard", on="await_words")
        | listening.to(thinking, on="answer_asked")
        | speculating.to(holding, cond="has_unheard", on=["drop_guess", "await_words"])
        | speculating.to(thinking, on=["drop_guess", "answer_asked"])
        | holding.to(holding, cond="has_unheard", internal=True, on="await_words")
        | holding.to(thinking, on="answer_asked")
        | thinking.to(thinking, internal=True)
        | speaking.to(holding, cond=["is_sent", "has_unheard"], on=["complete_turn", "await_words"])
        | speaking.to(thinking, cond="is_sent", on=["complete_turn", "answer_asked"])
        | speaking.to(speaking, internal=True)
        | hesitating.to(holding, cond=["is_sent", "has_unheard"], on=["complete_turn", "await_words"])
        | hesitating.to(thinking, cond="is_sent", on=["complete_turn", "answer_asked"])
        | hesitating.to(hesitating, internal=True)
    )
    nothing_said = (
        hesitating.to(speaking, on="resume_turn")
        | holding.to(thinking, cond="was_last_awaited", on="answer_held")
        | speculating.to(listening, on="drop_guess")
        | listening.to(listening, internal=True)
        | holding.to(holding, internal=True)
        | thinking.to(thinking, internal=True)
        | speaking.to(speaking, internal=True)
    )
    words_stand = listening.to(speculating, on="make_guess")
    words_lost = speculating.to(listening, on="drop_guess")
    patience_over = holding.to(thinking, on="answer_held")
    silence = listening.to(thinking, on="break_silence")
    first_audio = thinking.to(speaking, on="open_audio")
    voice = (
        speaking.to(hesitating, cond="may_hesitate", on="pause_turn")
        | speaking.to(speaking, internal=True)
        | hesitating.to(hesitating, internal=True)
        | holding.to(holding, internal=True, on="wait_longer")
        | listening.to(listening, internal=True)
        | speculating.to(speculating, internal=True)
        | thinking.to(thinking, internal=True)
    )
    words = (
        speculating.to(listening, cond="was_not_guessed", on="drop_guess")
        | speculating.to(speculating, internal=True)
        | speaking.to(listening, cond="may_interrupt", on="interrupt_turn")
        | speaking.to(speaking, internal=True)
        | hesitating.to(listening, cond="may_interrupt", on="interrupt_turn")
        | hesitating.to(hesitating, internal=True)
        | holding.to(holding, internal=True, on="wait_longer")
        | listening.to(listening, internal=True)
        | thinking.to(thinking, internal=True)
    )
    decision_due = hesitating.to(listening, cond="is_being_interrupted", on="interrupt_turn") | hesitating.to(
        speaking, on="resume_turn"
    )
    interrupt = (
        thinking.to(listening, on="interrupt_turn")
        | speaking.to(listening, on="interrupt_turn")
        | hesitating.to(listening, on="interrupt_turn")
        | listening.to(listening, internal=True)
        | speculating.to(speculating, internal=True)
        | holding.to(listening, cond="is_asked", on="withdraw_request")
        | holding.to(holding, internal=True)
    )
    turn_done = (
        thinking.to(listening, on="complete_turn")
        | speaking.to(speaking, internal=True, on="close_audio")
        | hesitating.to(hesitating, internal=True, on="close_audio")
    )
    playback_over = speaking.to(listening, on="complete_turn") | hesitating.to(listening, on="complete_turn")
    turn_failed = (
        thinking.to(listening, on="fail_turn")
        | speaking.to(listening, on="fail_turn")
        | hesitating.to(listening, on="fail_turn")
    )
    close = (
        unconfigured.to(closed, on="close_session")
        | listening.to(closed, on="close_session")
        | speculating.to(closed, on=["drop_guess", "close_session"])
        | holding.to(closed, on="close_session")
        | thinking.to(closed, on=["cancel_turn", "close_session"])
        | speaking.to(closed, on=["interrupt_turn", "close_session"])
        | hesitating.to(closed, on=["interrupt_turn", "close_session"])
    )
