"""The network that tells speech from other sounds, on human speech and on noise."""

import numpy as np
import numpy.typing as npt
import pytest

from tests.fakes.recordings import load, to_pcm
from voice_fsm.stt.moonshine import Samples
from voice_fsm.vad.engines import HOP, RATE_HZ, ThoroughJudges


def judged(samples: Samples) -> npt.NDArray[np.float64]:
    """The probability of speech of each hop."""
    judge = ThoroughJudges().lend()
    pcm = to_pcm(samples[: len(samples) // HOP * HOP])
    return np.array([judge.process_chunk(pcm[at : at + 2 * HOP]) for at in range(0, len(pcm), 2 * HOP)])


def noise(kind: str, seconds: float = 2.0) -> Samples:
    random = np.random.default_rng(7)
    size = int(RATE_HZ * seconds)
    white = random.standard_normal(size)
    time_s = np.arange(size) / RATE_HZ
    kinds: dict[str, npt.NDArray[np.float64]] = {
        "silence": np.zeros(size),
        "hiss": white * 0.03,
        "loud hiss": white * 0.2,
        "hum": np.sin(2 * np.pi * 100 * time_s) * 0.2,
        "chord": np.sin(2 * np.pi * np.outer((220, 277, 330), time_s)).sum(axis=0) * 0.1,
        "clicks": np.where(np.arange(size) % 4000 < 200, white, 0) * 0.3,
    }
    return kinds[kind].astype(np.float32)


def test_speech_is_found_where_it_is() -> None:
    """Six short sentences with pauses between them are six stretches of speech."""
    found = judged(load("beckett")) > 0.5
    assert np.count_nonzero(np.diff(found.astype(int)) == 1) == 6
    assert 0.3 < np.mean(found) < 0.7


@pytest.mark.parametrize("kind", ["silence", "hiss", "loud hiss", "hum", "chord", "clicks"])
def test_noise_is_not_speech(kind: str) -> None:
    """What is not a voice begins no utterance, loud or not."""
    assert max(judged(noise(kind))) < 0.5
