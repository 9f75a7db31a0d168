"""WAV files in and out, as the PCM that the contract speaks."""

import wave
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from voice_fsm.audio.samples import Resampler

SAMPLE_BYTES: Final = 2
_AUDIBLE: Final = 500
"""Amplitude, of 32,767, that tells speech from a recording's noise."""


def read_wav(source: Path | BinaryIO, sample_rate_hz: int) -> bytes:
    """Read 16-bit PCM, channels mixed to one, resampled.

    Raises:
        ValueError: it is no WAV file, or not of 16-bit PCM.
    """
    try:
        with wave.open(source if not isinstance(source, Path) else str(source)) as file:
            width, channels, rate_hz = file.getsampwidth(), file.getnchannels(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV file: {error}") from error
    if width != SAMPLE_BYTES:
        raise ValueError(f"its samples have {8 * width} bits; 16 are needed")
    samples = np.frombuffer(frames, "<i2").reshape(-1, channels).mean(axis=1).astype("<i2")
    return Resampler(rate_hz, sample_rate_hz).feed(samples.tobytes(), last=True)


def write_wav(path: Path, pcm: bytes, sample_rate_hz: int) -> None:
    """Write 16-bit mono PCM."""
    # Opened here: a `wave.open` that fails leaves a traceback behind.
    with path.open("wb") as target, wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(sample_rate_hz)
        file.writeframes(pcm)


def speech_end_s(pcm: bytes, sample_rate_hz: int) -> float:
    """When the last audible sample sounds, in seconds from the start; the end if none is audible."""
    (audible,) = np.nonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > _AUDIBLE)
    last = audible[-1] if len(audible) else len(pcm) // SAMPLE_BYTES
    return float(last) / sample_rate_hz
