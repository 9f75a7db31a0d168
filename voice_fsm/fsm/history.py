"""The conversation so far, as the user heard it."""

import attrs


@attrs.frozen
class Exchange:
    """One turn that is over."""

    user: str
    assistant: str
    """Only what was heard of the reply; blank where the user heard nothing."""
    interrupted: bool = False
