import wave
from pathlib import Path

import pytest

from voice_fsm.client.say import make_order, say
from voice_fsm.config import load_settings
from voice_fsm.errors import ClientError


@pytest.mark.parametrize(
    ("format_name", "out", "named"),
    [
        (None, None, "reply.wav"),
        ("pcm_16000", None, "reply.wav"),
        ("mp3_44100_128", None, "reply.mp3"),
        ("ulaw_8000", None, "reply.ulaw"),
        ("pcm_16000", Path("a.raw"), "a.raw"),
    ],
)
def test_where_it_goes(format_name: str | None, out: Path | None, named: str) -> None:
    """The file that was named, or one that fits the format."""
    assert make_order("Hi.", default_hz=24000, format_name=format_name, out=out).out == Path(named)


@pytest.mark.parametrize(
    ("format_name", "out", "message"),
    [
        ("flac", None, "unknown audio format"),
        ("mp3_44100_128", Path("a.WAV"), "A .wav file is written of PCM"),
    ],
)
def test_what_cannot_be_written(format_name: str, out: Path | None, message: str) -> None:
    """An unknown format, or one that does not go into the file, is told in a sentence."""
    with pytest.raises(ClientError, match=message):
        make_order("Hi.", default_hz=24000, format_name=format_name, out=out)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("say")


async def test_a_text_becomes_a_file(directory: Path) -> None:
    """WAV of what was said; asked again it comes from the cache, the same to the bit."""
    settings = load_settings({"CACHE_DIR": str(directory / "cache")})
    files = [directory / name for name in ("first.wav", "second.wav", "third.raw")]
    told = [
        await say(settings, make_order("Hello, how are you?", default_hz=16000, out=path)) for path in files
    ]
    assert told[0].endswith("s of pcm_16000, by local.")
    assert told[1].endswith("from the cache.")
    with wave.open(str(files[0])) as wav:
        assert (wav.getframerate(), wav.getsampwidth(), wav.getnchannels()) == (16000, 2, 1)
        pcm = wav.readframes(wav.getnframes())
    assert len(pcm) > 16000
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[2].read_bytes() == pcm
