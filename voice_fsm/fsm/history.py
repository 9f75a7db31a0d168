"""The conversation so far, as the user heard it."""

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
