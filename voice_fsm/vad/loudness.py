"""How loud sound is, and how loud it has to be to stand out from what is always there. Pure."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

QUIETEST_DB: Final = -65.0
"""A room is taken to be no quieter than this, relative to full scale."""
MARGIN_DB: Final = 5.0
"""By how much speech stands out from noise. With 7 dB a tenth of utterances 10 dB above it were missed."""
_STEP_DB: Final = 0.6
"""How far the floor moves with a frame: about 15 dB a second."""
_SHARE_IN_SPEECH: Final = 0.05
"""Of that, how much it rises while somebody speaks: speech is not noise, but endless speech is."""
_ECHO_DB: Final = 10.0
"""Sound so much below the user's vowels is taken for an echo while the assistant is audible. Of echoes 20 dB
below speech, 12 % pass; with 12 dB 29 % did."""
_LOUDER_SHARE: Final = 0.3
_FAINTER_SHARE: Final = 0.02
"""Weights of a hop in the talker's level: it is that of vowels, whatever lies between them."""
_FORGOTTEN_DB_PER_S: Final = 0.5


def levels_db(samples: npt.NDArray[np.int16], size: int) -> list[float]:
    """The level of each ``size`` samples, relative to full scale."""
    pieces = samples.reshape(-1, size).astype(np.float32)
    power = np.einsum("ij,ij->i", pieces, pieces) / size
    levels: list[float] = (10 * np.log10(power + 1e-3) - 90.3).tolist()
    return levels


class NoiseFloor:
    """The level that half of the time is not exceeded: noise and hum, however it fluctuates."""

    def __init__(self) -> None:
        self._floor_db = QUIETEST_DB

    @property
    def audible_db(self) -> float:
        """The level from which a sound stands out."""
        return self._floor_db + MARGIN_DB

    def note(self, level_db: float, *, in_speech: bool) -> None:
        """Learn from one frame."""
        if level_db < self._floor_db:
            self._floor_db = max(QUIETEST_DB, self._floor_db - _STEP_DB / 2)
        else:
            self._floor_db += _STEP_DB / 2 * (_SHARE_IN_SPEECH if in_speech else 1)


class TalkerLevel:
    """How loud the user speaks; unknown until the user has spoken, and slowly forgotten."""

    def __init__(self) -> None:
        self._level_db = -math.inf

    @property
    def beyond_echo_db(self) -> float:
        """The level from which a sound is not the assistant's voice, come back through the microphone."""
        return self._level_db - _ECHO_DB

    def note_speech(self, level_db: float) -> None:
        """The user spoke at this level for a hop."""
        if self._level_db == -math.inf:
            self._level_db = level_db
        share = _LOUDER_SHARE if level_db > self._level_db else _FAINTER_SHARE
        self._level_db += share * (level_db - self._level_db)

    def note_silence(self, duration_ms: float) -> None:
        """The user did not speak for a time: who speaks next may be further away."""
        self._level_db -= _FORGOTTEN_DB_PER_S * duration_ms / 1000
