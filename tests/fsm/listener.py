"""Whoever hears a turn: goes through time step by step, where the core reckons in one go."""

import attrs

from voice_fsm.fsm.events import SpokenSpan
from voice_fsm.fsm.playback import MAX_CLIENT_LAG_S

WORD_MS = 223.7
"""No multiple of it is a time at which something happens, so that no rounding decides what was heard."""


@attrs.define
class Listener:
    """Plays what has come, without a gap, but for when asked to stand still."""

    sent_ms: float = 0.0
    heard_ms: float = 0.0
    words: int = 0
    stands_still: bool = False
    is_exact: bool = True
    """Not where the listener claims to be so far behind that the core need not believe it."""
    _since_sent_s: float = 0.0

    @property
    def rest_ms(self) -> float:
        return self.sent_ms - self.heard_ms

    def wait(self, by_s: float) -> None:
        self._since_sent_s += by_s
        if not self.stands_still:
            self.heard_ms = min(self.sent_ms, self.heard_ms + by_s * 1000)

    def take(self, duration_ms: float) -> None:
        self.sent_ms += duration_ms
        self._since_sent_s = 0.0

    def report(self, played_ms: float) -> None:
        self.heard_ms = min(max(played_ms, 0.0), self.sent_ms)
        self.is_exact = self.is_exact and self.rest_ms / 1000 + self._since_sent_s <= MAX_CLIENT_LAG_S

    def align(self, words: int) -> tuple[SpokenSpan, ...]:
        """The next words of the turn's audio."""
        first, self.words = self.words, self.words + words
        return tuple(
            SpokenSpan(f"z{number}", number * WORD_MS, (number + 1) * WORD_MS)
            for number in range(first, self.words)
        )

    def text(self, heard_ms: float) -> str:
        """What somebody has heard who has heard so much."""
        return " ".join(f"z{number}" for number in range(self.words) if (number + 1) * WORD_MS <= heard_ms)
