"""PCM to Opus in Ogg (RFC 7845), as a stream, with the libraries of FFmpeg."""

from fractions import Fraction
from typing import Final

import numpy as np

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import Resampler

BIT_RATES_KBPS: Final = (32, 64, 96, 128, 192)
_PAGE_US: Final = 200_000
"""How much sound waits for its page (a second by default). At 64 kbit/s the pages add 3 % to the bytes."""


class OpusEncoder:
    """One reply's audio. At a constant bit rate, so that its bytes tell its length."""

    def __init__(self, resampler: Resampler, audio_format: AudioFormat) -> None:
        import av

        self._av = av
        self._resampler = resampler
        self._rate_hz = audio_format.sample_rate_hz
        self._written = bytearray()
        self._container = av.open(
            _Sink(self._written), "w", format="ogg", options={"page_duration": str(_PAGE_US)}
        )
        options = {"vbr": "off", "application": "voip"}
        self._stream = self._container.add_stream("libopus", rate=self._rate_hz, options=options)
        self._stream.layout = "mono"
        self._stream.bit_rate = (audio_format.bit_rate_kbps or BIT_RATES_KBPS[0]) * 1000
        self._samples = 0

    def feed(self, pcm: bytes, *, last: bool = False) -> bytes:
        """Encode the next PCM; with ``last`` the end too. Nothing comes of nothing."""
        samples = np.frombuffer(self._resampler.feed(pcm, last=last), "<i2")
        if len(samples):
            frame = self._av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate_hz, self._samples
            frame.time_base = Fraction(1, self._rate_hz)
            self._samples += len(samples)
            self._container.mux(self._stream.encode(frame))
        if last and self._samples:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        encoded = bytes(self._written)
        self._written.clear()
        return encoded


class _Sink:
    """A file that can only be appended to."""

    def __init__(self, written: bytearray) -> None:
        self._written = written

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)
