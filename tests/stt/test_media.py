"""Recordings as people have them."""

import io
from typing import cast

import av
import numpy as np
import pytest

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.stt.media import decode_recording


def encoded(container: str, codec: str, rate_hz: int, seconds: float = 1.0) -> bytes:
    """A tone of 440 Hz in a file of this kind."""
    file = io.BytesIO()
    tone = (8000 * np.sin(np.arange(int(rate_hz * seconds)) * 2 * np.pi * 440 / rate_hz)).astype("<i2")
    with av.open(file, "w", format=container) as output:
        stream = cast(av.AudioStream, output.add_stream(codec, rate=rate_hz))
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate_hz)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(part))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz"),
    [
        ("wav", "pcm_s16le", 44100),
        ("mp3", "libmp3lame", 44100),
        ("ogg", "libopus", 48000),
        ("webm", "libopus", 48000),
        ("flac", "flac", 16000),
        ("mp4", "aac", 44100),
    ],
)
def test_a_recording_of_any_usual_kind_is_read(container: str, codec: str, rate_hz: int) -> None:
    """Its length and its tone are kept."""
    pcm = decode_recording(encoded(container, codec, rate_hz), 16000, 10)
    samples = np.frombuffer(pcm, "<i2")
    assert len(samples) / 16000 == pytest.approx(1.0, abs=0.1)
    loudest = np.argmax(np.abs(np.fft.rfft(samples[4000:12000])))
    assert loudest * 2 == pytest.approx(440, abs=4)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"hello",
        b"RIFF\0\0\0\0WAVE",
        b"#EXTM3U\n#EXTINF:1\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"<?xml version='1.0'?><MPD/>",
    ],
)
def test_what_is_no_recording_is_refused(file: bytes) -> None:
    """A list of other files too: nothing but the upload is read."""
    with pytest.raises(ClientError) as caught:
        decode_recording(file, 16000, 10)
    assert caught.value.fault == ClientFault.INVALID_AUDIO


def test_a_long_recording_is_refused_however_small_its_file() -> None:
    """Silence and tones are packed a hundredfold; it is read to the limit and no further."""
    file = encoded("ogg", "libopus", 48000, seconds=12)
    with pytest.raises(ClientError, match="longer than 10 seconds"):
        decode_recording(file, 16000, 10)
