"""How full this process's core is, and whether a session more would be too much.

A session that was just let in has not shown its load yet: it connects and configures before it speaks. So one
that comes has to find room beside what is measured and beside what those who came shortly before will add,
each as much as a session has used so far. And load comes in waves, a turn in some seconds: whoever came in
between two of them would be too much at the next, so what is measured counts for long.
"""

import math
from typing import Final

import attrs
import structlog

log = structlog.get_logger()

MEMORY_S: Final = 2.0
"""Time constant of the moving averages: what was so long ago counts for a third."""
WAVE_S: Final = 8.0
"""Time constant with which a wave of load is forgotten."""
NEW_S: Final = 4.0
"""Time constant with which a newcomer comes to show its load: after so long two thirds of it."""
CALM_PART: Final = 0.9
"""Part of the limit to which the core has to empty before anybody is let in again."""
GUESSED_COST: Final = 0.01
"""Share of a core that a session is taken to need, as long as few have shown what they do."""
GUESSED_SESSIONS: Final = 10
"""How many measured sessions weigh as much as that guess."""


@attrs.define
class Occupancy:
    """The share of a core that is in use, and what it says; shares are from 0 to 1."""

    limit: float | None = None
    """Share beyond which nobody is let in; None: whatever it is."""
    share: float = 0.0
    """In use by this process, or by others while it waited, on average over the last moments."""
    crest: float = 0.0
    """The share at the last wave."""
    is_full: bool = False
    """Whether the limit was passed, and room is not back since."""
    _used: float = 0.0
    """What this process used alone, on the same average."""
    _sessions: float = 0.0
    """How many there were, on the same average."""
    _newcomers: float = 0.0
    """How many of them have not shown their load."""

    @property
    def cost(self) -> float:
        """The share that a session uses."""
        return (self._used + GUESSED_SESSIONS * GUESSED_COST) / (self._sessions + GUESSED_SESSIONS)

    @property
    def expected(self) -> float:
        """The share that the next wave will use, with all who were let in."""
        return self.crest + self._newcomers * self.cost

    def note(self, used_s: float, waited_s: float, took_s: float, sessions: int) -> None:
        """Take a measurement.

        Args:
            used_s: For how long the process used the core.
            waited_s: For how long it waited for it, which others held.
            took_s: Since the measurement before.
            sessions: How many there are.
        """
        weight = _weight(took_s, MEMORY_S)
        self.share += weight * (min((used_s + waited_s) / took_s, 1.0) - self.share)
        self._used += weight * (min(used_s / took_s, 1.0) - self._used)
        self._sessions += weight * (sessions - self._sessions)
        self.crest = max(self.share, self.crest + _weight(took_s, WAVE_S) * (self.share - self.crest))
        self._newcomers = min(float(sessions), self._newcomers * (1 - _weight(took_s, NEW_S)))
        self._judge()

    def admit(self) -> None:
        """Count a session that was let in."""
        self._newcomers += 1
        self._judge()

    def _judge(self) -> None:
        if self.limit is None:
            return
        if not self.is_full and self.expected > self.limit:
            self.is_full = True
            log.warning("overloaded", **self._figures())
        elif self.is_full and self.expected < CALM_PART * self.limit:
            self.is_full = False
            log.info("calm_again", **self._figures())

    def _figures(self) -> dict[str, int]:
        return {
            "occupancy_percent": round(100 * self.share),
            "expected_percent": round(100 * self.expected),
        }


def _weight(took_s: float, memory_s: float) -> float:
    """Of a measurement in a moving average."""
    return 1 - math.exp(-took_s / memory_s)
