"""The kept audio of all sessions is made smaller now and then, one session's after the other's.

Not by each session for itself: after 3 ms in which other things were done, NumPy takes 118 us to make 300 ms
of audio mu-law, its code and the table being in no cache any more, and in a loop 5.
"""

from typing import Final

import trio

from voice_fsm.runtime.unanswered import Unanswered

EVERY_S: Final = 0.5
AT_ONCE: Final = 20
"""Sessions between two checkpoints: a fraction of a millisecond's work."""


class Companding:
    """Half a second after audio was kept, makes mu-law of it and of what else came meanwhile."""

    def __init__(self) -> None:
        self._due: set[Unanswered] = set()
        self._is_due = trio.Event()

    def add(self, kept: Unanswered) -> None:
        """Make this smaller the next time, once, however often it is added."""
        self._due.add(kept)
        self._is_due.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._is_due.wait()
            await trio.sleep(EVERY_S)
            due, self._due, self._is_due = self._due, set(), trio.Event()
            for number, kept in enumerate(due, 1):
                kept.compand()
                if number % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
