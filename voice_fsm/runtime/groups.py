"""Reading exception groups where somebody decides: at the end of a turn, of a link, of a conversation."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def first_error(group: BaseExceptionGroup[E]) -> E:
    """The first single error in a group, however deep."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
