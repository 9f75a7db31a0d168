"""Samples in other shapes: mu-law and resampling. PCM is signed 16-bit little-endian mono."""

from typing import Final

import numpy as np
import numpy.typing as npt
import soxr


def ulaw_decode(data: bytes) -> bytes:
    """G.711 mu-law to PCM of the same rate."""
    return _ULAW_TO_PCM[np.frombuffer(data, np.uint8)].tobytes()


def ulaw_encode(pcm: bytes) -> bytes:
    """PCM to G.711 mu-law of the same rate."""
    return _PCM_TO_ULAW.take(np.frombuffer(pcm, "<u2")).tobytes()


_ULAW_BIAS: Final = 0x84
_ULAW_CLIP: Final = 32635


def _ulaw_table() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + _ULAW_BIAS) << ((code >> 4) & 7)
    return np.where(code & 0x80, _ULAW_BIAS - magnitude, magnitude - _ULAW_BIAS).astype("<i2")


def _pcm_table() -> npt.NDArray[np.uint8]:
    """The mu-law of every sample, by its 16 bits."""
    samples = np.arange(1 << 16, dtype=np.uint16).astype(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(samples), _ULAW_CLIP) + _ULAW_BIAS
    # The segment is the position of the highest set bit above bit 7.
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    sign = np.where(samples < 0, 0x80, 0)
    code: npt.NDArray[np.int32] = ~(sign | (exponent << 4) | mantissa) & 0xFF
    return code.astype(np.uint8)


_ULAW_TO_PCM: Final = _ulaw_table()
_PCM_TO_ULAW: Final = _pcm_table()


class Resampler:
    """PCM at one rate to PCM at another, as a stream: state carries over between chunks.

    A ``prompt`` one interpolates without a filter: it keeps nothing back, where the other keeps 40 to 120 ms,
    but what lies above half the new rate is folded into the result. Good enough to tell speech from silence.
    """

    def __init__(self, from_hz: int, to_hz: int, *, prompt: bool = False) -> None:
        quality = "QQ" if prompt else "HQ"
        self._stream = (
            None
            if from_hz == to_hz
            else soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16", quality=quality)
        )

    def feed(self, pcm: bytes, *, last: bool = False) -> bytes:
        """Resample whole samples; with ``last`` the tail held back by the filter comes too."""
        if self._stream is None:
            return pcm
        out: npt.NDArray[np.int16] = self._stream.resample_chunk(np.frombuffer(pcm, "<i2"), last=last)
        return out.tobytes()
