"""Human speech out of the recogniser's own wheel, what it says, and how far a transcript is from that."""

import re
import wave

import numpy as np
import soxr
from moonshine_voice.utils import get_assets_path

from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples

BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
TWO_CITIES = """
    It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
    foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it
    was the season of Darkness, it was the spring of hope, it was the winter of despair, we had everything
    before us, we had nothing before us, we were all going direct to Heaven, we were all going direct the
    other way, in short, the period was so far like the present period, that some of its noisiest authorities
    insisted on its being received, for good or for evil, in the superlative degree of comparison only.
"""


def load(name: str, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Samples:
    """Read one of the wheel's 16-bit mono recordings: ``beckett`` (10 s) or ``two_cities`` (44 s)."""
    with wave.open(str(get_assets_path() / f"{name}.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        resampled: Samples = soxr.resample(sound, file.getframerate(), sample_rate_hz).astype(np.float32)
    return resampled


def to_pcm(samples: Samples) -> bytes:
    """16-bit PCM of samples between -1 and 1."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def from_pcm(pcm: bytes) -> Samples:
    """Samples between -1 and 1 of 16-bit PCM."""
    return (np.frombuffer(pcm, "<i2") / 32768).astype(np.float32)


def word_error_rate(said: str, heard: str) -> float:
    """Words to change, insert or delete, as a share of the words said."""
    wanted, got = _words(said), _words(heard)
    costs = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, costs[0] = costs[0], i
        for j, other in enumerate(got, 1):
            substituted = diagonal + (word != other)
            diagonal, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, substituted)
    return costs[-1] / len(wanted)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())
