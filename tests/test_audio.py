"""Formats, mu-law and resampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.audio import PCM_RATES_HZ, AudioFormat
from voice_fsm.audio.samples import Resampler, ulaw_decode, ulaw_encode

NAMES = [
    *(f"pcm_{rate}" for rate in PCM_RATES_HZ),
    "ulaw_8000",
    "alaw_8000",
    "mp3_44100_128",
    "mp3_22050_32",
    "opus_48000_64",
]

# Output of the decoder of ITU-T G.711, scaled to 16 bits, for the first code of each segment.
G711_SEGMENTS = {
    0x00: -32124,
    0x10: -15996,
    0x20: -7932,
    0x30: -3900,
    0x40: -1884,
    0x50: -876,
    0x60: -372,
    0x70: -120,
    0x7F: 0,
    0x80: 32124,
    0x90: 15996,
    0xA0: 7932,
    0xB0: 3900,
    0xC0: 1884,
    0xD0: 876,
    0xE0: 372,
    0xF0: 120,
    0xFF: 0,
}


def pcm(*samples: int) -> bytes:
    return np.array(samples, "<i2").tobytes()


def tone(rate_hz: int, *, hz: float = 440.0, amplitude: int = 20000, seconds: float = 1.0) -> bytes:
    time_s = np.arange(int(rate_hz * seconds)) / rate_hz
    return (np.sin(2 * np.pi * hz * time_s) * amplitude).astype("<i2").tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_its_name(name: str) -> None:
    """What was parsed prints as it was written."""
    assert str(AudioFormat.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "pcm",
        "pcm_",
        "pcm_11025",
        "pcm_16000_16",
        "ulaw_8000_64",
        "mp3_44100",
        "PCM_16000",
        "pcm_16000 ",
        "wav_1",
    ],
)
def test_a_wrong_name_is_refused_with_the_right_ones(name: str) -> None:
    """The message of a refusal says which formats there are."""
    with pytest.raises(ValueError, match=r"pcm_<8000\|16000.*ulaw_8000") as caught:
        AudioFormat.parse(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content_type", "bytes_per_second", "bytes_per_sample"),
    [
        ("pcm_16000", "application/octet-stream", 32000, 2),
        ("pcm_22050", "application/octet-stream", 44100, 2),
        ("ulaw_8000", "audio/basic", 8000, 1),
        ("mp3_44100_128", "audio/mpeg", 16000, 1),
        ("opus_48000_64", "audio/ogg", 8000, 1),
    ],
)
def test_facts_of_a_format(
    name: str, content_type: str, bytes_per_second: int, bytes_per_sample: int
) -> None:
    """MIME type and sizes follow from the codec and its rates."""
    audio_format = AudioFormat.parse(name)
    assert audio_format.content_type == content_type
    assert audio_format.bytes_per_second == bytes_per_second
    assert audio_format.bytes_per_sample == bytes_per_sample
    assert audio_format.duration_ms(bytes_per_second) == 1000


@pytest.mark.parametrize("name", NAMES)
def test_duration_and_size_undo_each_other(name: str) -> None:
    """The size of a duration that came from a size is that size, whatever the rate."""
    audio_format = AudioFormat.parse(name)
    for samples in (*range(2000), 10**7 + 1):
        size = samples * audio_format.bytes_per_sample
        assert audio_format.size_bytes(audio_format.duration_ms(size)) == size


@given(st.sampled_from(NAMES), st.floats(0, 10**6))
def test_a_size_is_whole_samples_and_no_longer_than_asked(name: str, duration_ms: float) -> None:
    """No duration gives half a sample, or more than fits into it."""
    audio_format = AudioFormat.parse(name)
    size = audio_format.size_bytes(duration_ms)
    assert size % audio_format.bytes_per_sample == 0
    assert audio_format.duration_ms(size) <= duration_ms + 1e-3


def test_ulaw_decodes_as_g711_says() -> None:
    """Each segment starts at the value of the published table."""
    decoded = np.frombuffer(ulaw_decode(bytes(G711_SEGMENTS)), "<i2")
    assert decoded.tolist() == list(G711_SEGMENTS.values())


def test_ulaw_steps_double_from_segment_to_segment() -> None:
    """Within a segment the sixteen values are evenly spaced, by 8 in the lowest and 1,024 in the highest."""
    decoded = np.frombuffer(ulaw_decode(bytes(range(0x80, 0x100))), "<i2").astype(int).reshape(8, 16)
    steps = -np.diff(decoded, axis=1)
    assert [set(row.tolist()) for row in steps] == [{8 << k} for k in range(7, -1, -1)]


@pytest.mark.parametrize(
    ("sample", "code"),
    [(0, 0xFF), (8, 0xFE), (-8, 0x7E), (100, 0xF2), (-100, 0x72), (1000, 0xCE), (-1000, 0x4E), (10000, 0x9C)],
)
def test_ulaw_encodes_as_g711_says(sample: int, code: int) -> None:
    """Well-known samples become their published codes."""
    assert ulaw_encode(pcm(sample)) == bytes([code])


def test_ulaw_clips_at_full_scale() -> None:
    """The loudest samples become the outermost codes, not wrapped ones."""
    assert ulaw_encode(pcm(32767, -32768, -32767)) == b"\x80\x00\x00"


def test_every_ulaw_code_survives_a_round_trip() -> None:
    """Decoding and encoding gives the same code, apart from the second zero."""
    codes = bytes(code for code in range(256) if code != 0x7F)
    assert ulaw_encode(ulaw_decode(codes)) == codes


def test_ulaw_error_is_within_half_a_step() -> None:
    """No sample moves by more than half the step of its segment."""
    samples = np.arange(-32635, 32636)
    decoded = np.frombuffer(ulaw_decode(ulaw_encode(samples.astype("<i2").tobytes())), "<i2").astype(int)
    half_step = np.maximum(4, 2.0 ** (np.floor(np.log2(np.abs(samples) + 132)) - 5))
    assert np.all(np.abs(decoded - samples) <= half_step)


def test_ulaw_of_nothing_is_nothing() -> None:
    """Empty audio is legal."""
    assert ulaw_encode(b"") == b""
    assert ulaw_decode(b"") == b""


@pytest.mark.parametrize("from_hz", PCM_RATES_HZ)
@pytest.mark.parametrize("to_hz", [8000, 16000, 22050, 24000, 48000])
def test_resampling_keeps_the_duration(from_hz: int, to_hz: int) -> None:
    """A second fed in chunks and flushed is a second again, to the sample."""
    resampler, sound = Resampler(from_hz, to_hz), tone(from_hz)
    chunk = from_hz // 10 * 2
    out = b"".join(resampler.feed(sound[i : i + chunk]) for i in range(0, len(sound), chunk))
    out += resampler.feed(b"", last=True)
    assert abs(len(out) // 2 - to_hz) <= 1


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 16000), (8000, 16000), (22050, 24000)])
def test_resampling_in_chunks_is_resampling_at_once(from_hz: int, to_hz: int) -> None:
    """Where the chunks end cannot be heard: only the dither of the last bits differs."""
    sound = tone(from_hz)
    chunked, whole = Resampler(from_hz, to_hz), Resampler(from_hz, to_hz)
    out = b"".join(chunked.feed(sound[i : i + 998]) for i in range(0, len(sound), 998))
    out += chunked.feed(b"", last=True)
    difference = np.frombuffer(out, "<i2").astype(int) - np.frombuffer(whole.feed(sound, last=True), "<i2")
    assert np.max(np.abs(difference)) <= 3


@pytest.mark.parametrize("from_hz", [8000, 22050, 24000, 44100, 48000])
def test_a_prompt_resampler_keeps_nothing_back(from_hz: int) -> None:
    """After each 20 ms it has given all but a sample or so; what it gives is the same tone."""
    resampler, sound = Resampler(from_hz, 16000, prompt=True), tone(from_hz)
    chunk = from_hz // 50 * 2
    given = b""
    for start in range(0, len(sound) - chunk, chunk):
        given += resampler.feed(sound[start : start + chunk])
        assert len(given) / 32 >= (start + chunk) / 2 * 1000 / from_hz - 0.3
    spectrum = np.abs(np.fft.rfft(np.frombuffer(given, "<i2"), 16000))
    assert np.argmax(spectrum) == 440


def test_resampling_keeps_the_tone() -> None:
    """440 Hz stays 440 Hz, as loud as before."""
    out = np.frombuffer(Resampler(44100, 16000).feed(tone(44100), last=True), "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(out)) / len(out) * 2
    assert np.argmax(spectrum) == 440
    assert abs(spectrum[440] - 20000) < 200


def test_the_same_rate_passes_through() -> None:
    """Nothing is touched or held back when there is nothing to do."""
    resampler = Resampler(16000, 16000)
    assert resampler.feed(b"\x01\x02") == b"\x01\x02"
    assert resampler.feed(b"", last=True) == b""
