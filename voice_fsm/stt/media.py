"""Recordings as people have them (WAV, MP3, Ogg, FLAC, WebM, MP4) to PCM, with the libraries of FFmpeg.

Reading is confined to formats of single files that hold their sound themselves: no playlists, no networks, no
other files, however a recording was made up.
"""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream

if TYPE_CHECKING:
    from av.container import InputContainer

_FORMATS: Final = "wav,mp3,ogg,flac,matroska,webm,mov,mp4,m4a,aac,aiff,caf,w64"
"""FFmpeg's names of what is read."""
_SAMPLE_BYTES: Final = 2


def decode_recording(recording: bytes, sample_rate_hz: int, max_s: float) -> bytes:
    """Give a recording's sound as PCM, its channels mixed to one. Blocks; 600 s of MP3 take about 1 s.

    Raises:
        ClientError: ``invalid_audio``: not a recording, broken, or longer than ``max_s``.
        ProviderError: ``stt_unavailable``: the library is not installed.
    """
    try:
        import av
    except ImportError:
        raise ProviderError(
            Upstream.STT,
            ProviderFault.UNAVAILABLE,
            "This server reads only raw PCM: its operator has not installed voice-fsm[media].",
        ) from None
    max_bytes = round(max_s * sample_rate_hz) * _SAMPLE_BYTES
    pcm = bytearray()
    try:
        with av.open(io.BytesIO(recording), mode="r", options={"format_whitelist": _FORMATS}) as container:
            for piece in _sound(container, sample_rate_hz):
                pcm += piece
                if len(pcm) > max_bytes:
                    raise ClientError(
                        ClientFault.INVALID_AUDIO,
                        f"The recording is longer than {max_s:g} seconds.",
                        field="file",
                    )
    except (av.FFmpegError, ValueError, EOFError):
        raise unreadable() from None
    if not pcm:
        raise unreadable()
    return bytes(pcm)


def unreadable() -> ClientError:
    """What is told of a file that is no recording."""
    return ClientError(
        ClientFault.INVALID_AUDIO,
        "The file is no recording that this server can read; send WAV, MP3, Ogg, FLAC, WebM or MP4.",
        field="file",
    )


def _sound(container: "InputContainer", sample_rate_hz: int) -> Iterator[bytes]:
    from av import AudioResampler

    if not container.streams.audio:
        raise unreadable()
    resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate_hz)
    for frame in container.decode(audio=0):
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray().tobytes()
    for resampled in resampler.resample(None):
        yield resampled.to_ndarray().tobytes()
