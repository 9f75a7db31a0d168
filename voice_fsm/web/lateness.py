"""How late this process is with everything: the measured sign that its core is full.

Once more work comes in than a core can do, every task waits for its turn, and a turn of the conversation is a
dozen such waits, one after the other. A task that asks to be woken ten times a second sees how long that is.
"""

import math
from typing import Final

import structlog
import trio

log = structlog.get_logger()

EVERY_S: Final = 0.1
MEMORY_S: Final = 2.0
"""Time constant of the moving average: what was so long ago counts for a third."""
CALM_PART: Final = 0.5
"""Part of the limit to which the lateness has to fall before the process counts as calm again."""
HICCUP_PART: Final = 4.0
"""Parts of the limit that one moment counts for at most: one pause is not a full core."""


class Lateness:
    """The moving average, and what it says; nothing, without a limit."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self.now_s = 0.0
        """How late tasks run, in seconds, on average over the last moments."""
        self.is_high = False
        """Whether it passed the limit, and has not fallen to half of it since."""

    async def measure(self) -> None:
        """Go on measuring for ever."""
        while True:
            due_s = trio.current_time() + EVERY_S
            await trio.sleep_until(due_s)
            self.note(trio.current_time() - due_s)

    def note(self, late_s: float) -> None:
        """Take a measurement of a task that was to run `EVERY_S` after the one before."""
        if self._limit_s is None:
            return
        share = 1 - math.exp(-(EVERY_S + late_s) / MEMORY_S)
        self.now_s += share * (min(late_s, HICCUP_PART * self._limit_s) - self.now_s)
        if not self.is_high and self.now_s > self._limit_s:
            self.is_high = True
            log.warning("overloaded", late_ms=round(self.now_s * 1000))
        elif self.is_high and self.now_s < CALM_PART * self._limit_s:
            self.is_high = False
            log.info("calm_again", late_ms=round(self.now_s * 1000))
