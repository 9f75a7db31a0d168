"""The conversation so far, as the user heard it."""

from collections.abc import Sequence
from typing import Literal

import attrs

TurnCause = Literal["user", "first_message", "silence", "asked"]
"""Why the assistant speaks: it was spoken to, it speaks first, the user has been silent for long, or the
client asked for a reply although nothing new was said."""


@attrs.frozen
class Exchange:
    """One turn that is over."""

    user: str
    """Blank where the assistant spoke without being asked."""
    assistant: str
    """Only what was heard of the reply; blank where the user heard nothing."""
    interrupted: bool = False


def unanswered(history: Sequence[Exchange]) -> str:
    """Give what the user said last, if its turn was cut short before a word was heard; else a blank text."""
    last = next((exchange for exchange in reversed(history) if exchange.user or exchange.assistant), None)
    return last.user if last is not None and last.interrupted and not last.assistant else ""
