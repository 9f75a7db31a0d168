"""How loud sound is, and how loud it has to be to stand out from what is always there. Pure."""

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
