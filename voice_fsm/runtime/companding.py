"""The microphones of all sessions, whose kept audio is made smaller now and then, one after the other.

Not by each session for itself: after 3 ms in which other things were done, NumPy takes 118 us to make 300 ms
of audio mu-law, its code and the table being in no cache any more, and in a loop 5.
"""

from typing import Final
from weakref import WeakSet

import trio

from voice_fsm.runtime.microphone import Microphone

EVERY_S: Final = 0.5
AT_ONCE: Final = 20
"""Microphones between two checkpoints: a fraction of a millisecond's work."""


class Companding:
    """Goes through all microphones that are there, twice a second."""

    def __init__(self) -> None:
        self._microphones: WeakSet[Microphone] = WeakSet()

    def add(self, microphone: Microphone) -> None:
        """Go to this one too, for as long as anybody holds it."""
        self._microphones.add(microphone)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await trio.sleep(EVERY_S)
            for number, microphone in enumerate(list(self._microphones), 1):
                microphone.compand()
                if number % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
