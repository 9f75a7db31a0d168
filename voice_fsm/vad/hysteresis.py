"""When single judgements of "speech here" become speech that has started, or has stopped. Pure.

Positions are milliseconds of the session's audio, so that it does not matter how it was cut into chunks.
"""

from collections import deque
from typing import Final

import attrs

_WINDOW_MS: Final = 200.0
_SLACK: Final = 0.25
"""By how much a hop that follows speech may be less probable."""


@attrs.frozen(kw_only=True)
class VadRules:
    """What counts as speech in one session."""

    threshold: float = 0.9
    """Probability from which a hop of sound counts as speech."""
    min_speech_ms: float = 30.0
    """Speech within twice this time, or 0.2 s, that is a start. One hop is enough: it only pauses a reply."""
    silence_ms: float = 600.0
    """Silence after which speech has stopped; a shorter one is a pause."""

    @property
    def window_ms(self) -> float:
        """The stretch in which a start's speech is looked for."""
        return max(_WINDOW_MS, 2 * self.min_speech_ms)


@attrs.frozen
class Started:
    """Speech has started; ``speech_ms`` of it have been heard by ``at_ms``."""

    at_ms: float
    speech_ms: float


@attrs.frozen
class Stopped:
    """Speech has stopped: its last was heard at ``spoke_until_ms``."""

    at_ms: float
    spoke_until_ms: float


Change = Started | Stopped


class Hysteresis:
    """Takes judgements in order of time and tells what they change."""

    def __init__(self, rules: VadRules) -> None:
        self._rules = rules
        self._recent: deque[tuple[float, float]] = deque()
        """Speech lately: where each hop ended, and how long it was."""
        self._spoke_until_ms = 0.0
        self.is_speaking = False

    @property
    def threshold(self) -> float:
        """The probability that the next hop needs to count as speech."""
        return self._rules.threshold - (_SLACK if self.is_speaking else 0.0)

    def note_speech(self, until_ms: float, duration_ms: float) -> Started | None:
        """A hop that ended at ``until_ms`` was speech."""
        self._spoke_until_ms = until_ms
        if self.is_speaking:
            return None
        self._recent.append((until_ms, duration_ms))
        while self._recent[0][0] <= until_ms - self._rules.window_ms:
            self._recent.popleft()
        speech_ms = sum(duration_ms for _, duration_ms in self._recent)
        if speech_ms < self._rules.min_speech_ms:
            return None
        self._recent.clear()
        self.is_speaking = True
        return Started(until_ms, speech_ms)

    def note_silence(self, until_ms: float) -> Stopped | None:
        """Nothing up to ``until_ms`` was speech, since the last hop that was."""
        if not self.is_speaking or until_ms - self._spoke_until_ms < self._rules.silence_ms:
            return None
        self.is_speaking = False
        return Stopped(until_ms, self._spoke_until_ms)
