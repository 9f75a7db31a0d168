"""When what the user says interrupts the assistant."""

from voice_fsm.fsm.options import TurnOptions


def interrupts(text: str, options: TurnOptions, *, speech_ms: float, audible_ms: float) -> bool:
    """Decide by what is known so far of the utterance.

    ``speech_ms`` is how long the utterance has gone on, ``audible_ms`` how long the turn has been audible.
    """
    return (
        options.barge_in != "off"
        and len(text.split()) >= options.min_words
        and speech_ms >= options.min_speech_ms
        and audible_ms >= options.grace_ms
    )
