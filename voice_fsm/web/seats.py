"""How many sessions this process has at a time, whichever doors they came in by."""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from voice_fsm.errors import SessionFault, VoiceError


class NoSeat(VoiceError):  # noqa: N818  # says what happened
    """The process has as many sessions as it may have."""

    def __init__(self) -> None:
        super().__init__(
            SessionFault.OVERLOADED,
            "This server has as many sessions as it can serve well. Try again later.",
            retryable=True,
        )


@attrs.define
class Seats:
    """The places for sessions."""

    limit: int
    taken: int = 0

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Hold a place for the block.

        Raises:
            NoSeat: all are taken.
        """
        if self.taken >= self.limit:
            raise NoSeat
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
