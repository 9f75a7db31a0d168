"""How many sessions this process has at a time, whichever doors they came in by."""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from voice_fsm.errors import SessionFault, VoiceError
from voice_fsm.web.occupancy import Occupancy


class NoSeat(VoiceError):  # noqa: N818  # says what happened
    """The process has as many sessions as it may have, or as its core can carry."""

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
    occupancy: Occupancy = attrs.field(factory=Occupancy)
    """While the core is full nobody else is let in, so that those who are do not suffer. To an empty house it
    is no matter: whatever keeps the core busy then, it is not us, and nobody would suffer."""
    taken: int = 0

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Hold a place for the block.

        Raises:
            NoSeat: all are taken, or the core is full.
        """
        if self.taken >= self.limit or (self.taken and self.occupancy.is_full):
            raise NoSeat
        self.taken += 1
        self.occupancy.admit()
        try:
            yield
        finally:
            self.taken -= 1

    def note_core(self, used_s: float, waited_s: float, took_s: float) -> None:
        """Take a measurement of the core: see `Occupancy.note`."""
        self.occupancy.note(used_s, waited_s, took_s, self.taken)
