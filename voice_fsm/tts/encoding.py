"""A synthesiser's PCM as the client wants it: resampled, mu-law, MP3 or Opus, as a stream."""

from importlib.util import find_spec
from typing import Final, Protocol

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import Resampler, ulaw_encode
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.tts.opus import BIT_RATES_KBPS, OpusEncoder

_MP3_FORMATS: Final = tuple(
    AudioFormat("mp3", rate_hz, kbps)
    for rate_hz, kbps in (
        (22050, 32),
        (24000, 48),
        (44100, 32),
        (44100, 64),
        (44100, 96),
        (44100, 128),
        (44100, 192),
    )
)
_OPUS_FORMATS: Final = tuple(AudioFormat("opus", 48000, kbps) for kbps in BIT_RATES_KBPS)
_LAME_QUALITY: Final = 5
"""Of 2 (best) to 7 (fastest): 4 ms of CPU time a second of sound."""


class SpeechEncoder(Protocol):
    """The state of one reply's audio."""

    def feed(self, pcm: bytes, *, last: bool = False) -> bytes:
        """Encode the next PCM; with ``last`` what was held back comes too. May be empty."""


def check_format(audio_format: AudioFormat) -> None:
    """Say whether `make_encoder` knows a format.

    Raises:
        ClientError: ``unsupported_format``.
    """
    if audio_format.codec in ("pcm", "ulaw"):
        return
    if audio_format in _MP3_FORMATS and find_spec("lameenc") is not None:
        return
    if audio_format in _OPUS_FORMATS and find_spec("av") is not None:
        return
    others = [str(_MP3_FORMATS[-2])] if find_spec("lameenc") else []
    others += [str(_OPUS_FORMATS[1])] if find_spec("av") else []
    raise ClientError(
        ClientFault.UNSUPPORTED_FORMAT,
        f"Speech synthesis on this server does not write {audio_format}; "
        f"ask for {' or '.join(['pcm_24000', 'ulaw_8000', *others])}.",
        field="tts.output_format",
    )


def make_encoder(from_hz: int, audio_format: AudioFormat) -> SpeechEncoder:
    """Start one reply's audio, of PCM at ``from_hz``."""
    resampler = Resampler(from_hz, audio_format.sample_rate_hz)
    match audio_format.codec:
        case "pcm":
            return resampler
        case "ulaw":
            return _UlawEncoder(resampler)
        case "opus":
            return OpusEncoder(resampler, audio_format)
        case _:
            return _Mp3Encoder(resampler, audio_format)


class Transcoder:
    """One reply's audio on its way from a provider's format to the client's."""

    def __init__(self, source: AudioFormat, output: AudioFormat) -> None:
        """Take PCM in ``source``."""
        self._encoder = make_encoder(source.sample_rate_hz, output)
        self._begun = False

    def feed(self, audio: bytes) -> bytes:
        """Give as much as can be given of whole samples. May be empty."""
        self._begun = True
        return self._encoder.feed(audio)

    def end(self) -> bytes:
        """Give what was held back."""
        return self._encoder.feed(b"", last=True) if self._begun else b""


class _UlawEncoder:
    def __init__(self, resampler: Resampler) -> None:
        self._resampler = resampler

    def feed(self, pcm: bytes, *, last: bool = False) -> bytes:
        return ulaw_encode(self._resampler.feed(pcm, last=last))


class _Mp3Encoder:
    def __init__(self, resampler: Resampler, audio_format: AudioFormat) -> None:
        import lameenc  # type: ignore[import-not-found]  # it has no stubs

        self._resampler = resampler
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(1)
        self._lame.set_in_sample_rate(audio_format.sample_rate_hz)
        self._lame.set_bit_rate(audio_format.bit_rate_kbps)
        self._lame.set_quality(_LAME_QUALITY)
        # An encoder that was never fed cannot be flushed.
        self._lame.encode(b"")

    def feed(self, pcm: bytes, *, last: bool = False) -> bytes:
        frames = bytes(self._lame.encode(self._resampler.feed(pcm, last=last)))
        return frames + bytes(self._lame.flush()) if last else frames
