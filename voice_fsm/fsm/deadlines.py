"""What time alone brings about in each state, and when."""

from typing import Final

import attrs

from voice_fsm.fsm.facts import Facts
from voice_fsm.fsm.unfinished import is_unfinished

GUESS_S: Final = 10.0
"""How long words may stand without a commit before they are taken to have been lost."""

Deadline = tuple[float, str]
"""When, and what: an event of the chart, or a reason to close."""


@attrs.frozen(kw_only=True)
class Limits:
    """How long a session may do what, in seconds."""

    configure_within_s: float = 30.0
    session_s: float = 3600.0
    idle_s: float = 600.0
    """A client may ask for less."""
    thinking_s: float = 180.0
    """Backstop: the deadlines of chat and TTS are shorter."""
    history_turns: int = 20


def deadlines(facts: Facts, limits: Limits) -> list[Deadline]:
    """All that is due some time in the state that the session is in, which is not closed."""
    due = [(facts.opened_s + limits.session_s, "max_duration")]
    match facts.state:
        case "unconfigured":
            due.append((facts.opened_s + limits.configure_within_s, "configure"))
        case "listening":
            due += _of_silence(facts, limits)
            due += _of_words(facts)
        case "speculating":
            due.append((facts.guessed_s + GUESS_S, "words_lost"))
        case "holding":
            due.append((facts.patient_until_s, "patience_over"))
        case "thinking":
            due.append((facts.current.started_s + limits.thinking_s, "thought_enough"))
        case "speaking":
            due += _of_playback(facts)
        case "hesitating":
            due += _of_hesitation(facts)
            due += _of_playback(facts)
    return due


def _of_silence(facts: Facts, limits: Limits) -> list[Deadline]:
    turn = facts.options.turn
    due = [(facts.user_active_s + min(turn.idle_timeout_s, limits.idle_s), "idle")]
    if turn.idle_prompt_s is not None and facts.silences_broken < turn.idle_prompt_times:
        due.append((facts.quiet_since_s + turn.idle_prompt_s, "silence"))
    return due


def _of_words(facts: Facts) -> list[Deadline]:
    speculative_ms = facts.options.turn.speculative_ms
    is_kept = facts.options.turn.respond == "asked" or facts.held_text
    if speculative_ms is None or not facts.utterance or is_kept:
        return []
    if is_unfinished(facts.utterance, facts.options.stt.language_code):
        return []
    return [(facts.utterance_s + speculative_ms / 1000, "words_stand")]


def _of_playback(facts: Facts) -> list[Deadline]:
    """A listener whose client cannot stand still may hear the end while the session hesitates."""
    turn = facts.current
    return [] if turn.sent_s is None else [(turn.clock.over_at_s(), "playback_over")]


def _of_hesitation(facts: Facts) -> list[Deadline]:
    options, since_s = facts.options.turn, facts.current.hesitating_since_s
    decide_s = since_s + options.decide_within_ms / 1000
    if facts.silent_since_s is not None:
        quiet_s = max(facts.silent_since_s, since_s) + options.resume_after_ms / 1000
        decide_s = min(decide_s, quiet_s)
    return [(decide_s, "decision_due")]
