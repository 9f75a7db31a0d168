"""Facts of audio: formats by name, bytes to milliseconds and back; mu-law and resampling are in `samples`.

PCM everywhere is signed 16-bit little-endian mono. Format names are ElevenLabs' (``pcm_16000``,
``ulaw_8000``, ``mp3_44100_128``, ``opus_48000_64``), since clients and most providers already use them.
"""

import re
import struct
from functools import cached_property
from typing import Final, Literal, Self

import attrs

WAV_HEADER_BYTES: Final = 44

Codec = Literal["pcm", "ulaw", "alaw", "mp3", "opus"]

PCM_RATES_HZ: Final = (8000, 16000, 22050, 24000, 32000, 44100, 48000)

_BYTES_PER_SAMPLE: Final = {"pcm": 2, "ulaw": 1, "alaw": 1}
_UNKNOWN_BYTES: Final = 0xFFFFFFFF
_CONTENT_TYPES: Final = {
    "pcm": "application/octet-stream",
    "ulaw": "audio/basic",
    "alaw": "audio/x-alaw-basic",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
}
_NAME: Final = re.compile(r"(pcm|ulaw|alaw|mp3|opus)_([1-9][0-9]{3,4})(?:_([1-9][0-9]{1,2}))?")


@attrs.frozen
class AudioFormat:
    """One audio format; ``str()`` gives back its name."""

    codec: Codec
    sample_rate_hz: int
    bit_rate_kbps: int | None = None

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a format's name.

        Raises:
            ValueError: there is no such format; the message says which there are.
        """
        match = _NAME.fullmatch(name)
        if match is not None:
            codec, rate, kbps = match[1], int(match[2]), match[3]
            plain = codec in _BYTES_PER_SAMPLE
            if plain == (kbps is None) and (codec != "pcm" or rate in PCM_RATES_HZ):
                return cls(codec, rate, int(kbps) if kbps else None)  # type: ignore[arg-type]  # by the regex
        rates = "|".join(map(str, PCM_RATES_HZ))
        raise ValueError(
            f"unknown audio format {name!r}; use pcm_<{rates}>, ulaw_8000, mp3_44100_128 or opus_48000_64"
        )

    def __str__(self) -> str:
        tail = f"_{self.bit_rate_kbps}" if self.bit_rate_kbps else ""
        return f"{self.codec}_{self.sample_rate_hz}{tail}"

    @property
    def content_type(self) -> str:
        """The MIME type that the client contract gives this codec."""
        return _CONTENT_TYPES[self.codec]

    @cached_property  # asked for with every frame
    def bytes_per_sample(self) -> int:
        """Bytes of one sample; 1 for compressed formats, which may be cut anywhere."""
        return _BYTES_PER_SAMPLE.get(self.codec, 1)

    @cached_property  # likewise
    def bytes_per_second(self) -> int:
        """Bytes of one second of sound; for MP3 and Opus by their constant bit rate."""
        if self.bit_rate_kbps is not None:
            return self.bit_rate_kbps * 125
        return self.sample_rate_hz * self.bytes_per_sample

    def duration_ms(self, size_bytes: int) -> float:
        """How long ``size_bytes`` of this format sound, in milliseconds."""
        return size_bytes * 1000 / self.bytes_per_second

    def size_bytes(self, duration_ms: float) -> int:
        """How many bytes (whole samples) sound for ``duration_ms``."""
        samples = duration_ms * self.bytes_per_second / (1000 * self.bytes_per_sample)
        # The margin undoes rounding: what `duration_ms` makes of a size gives that size back.
        return int(samples + 1e-6) * self.bytes_per_sample


def wav_header(audio_format: AudioFormat, pcm_bytes: int | None, channels: int = 1) -> bytes:
    """The header of 16-bit PCM; ``None`` for a length that is not known yet, as streams have it."""
    size = _UNKNOWN_BYTES if pcm_bytes is None else pcm_bytes
    rate, block = audio_format.sample_rate_hz, channels * audio_format.bytes_per_sample
    whole = min(size + WAV_HEADER_BYTES - 8, _UNKNOWN_BYTES)
    bits = 8 * audio_format.bytes_per_sample
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * block, block, bits)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + fmt + struct.pack("<4sI", b"data", size)
