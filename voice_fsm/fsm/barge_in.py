"""When what the user says interrupts the assistant."""

from typing import Final

from voice_fsm.fsm.backchannels import remark
from voice_fsm.fsm.options import TurnOptions

LAST_WORDS_MS: Final = 1500.0
"""What is said so shortly before the end of a reply answers it: "yes" is no mere sound of listening then."""


def interrupts(
    text: str,
    options: TurnOptions,
    *,
    language_code: str | None,
    speech_ms: float,
    audible_ms: float,
    rest_ms: float,
) -> bool:
    """Decide by what is known so far of the utterance.

    ``speech_ms`` is how long the utterance has gone on, ``audible_ms`` how long the turn has been audible,
    ``rest_ms`` how much of its audio is still to be heard.
    """
    if options.barge_in == "off" or audible_ms < options.grace_ms or not text.strip():
        return False
    said = remark(text, language_code)
    if said == "command":
        return True
    if said == "backchannel" and options.backchannels == "ignore" and rest_ms > LAST_WORDS_MS:
        return False
    return len(text.split()) >= options.min_words and speech_ms >= options.min_speech_ms
