"""Piper, by a stand-in for its package: no voice's file is to be had without a network.

The stand-in honours what `voice_fsm.tts.piper` uses of piper-tts 1.3 to 1.8: ``PiperVoice.load(path)`` reads
``path.json``, ``synthesize(text, syn_config)`` yields chunks with ``audio_int16_bytes``, one per sentence.
"""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Self

import attrs
import numpy as np
import pytest
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ProviderError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.tts.base import SpeechAudio, SpokenText, VoiceInfo
from voice_fsm.tts.local import LocalTts, open_local_tts


@attrs.define
class SynthesisConfig:
    speaker_id: int | None = None
    length_scale: float | None = None
    noise_scale: float | None = None
    noise_w_scale: float | None = None
    normalize_audio: bool = True
    volume: float = 1.0


@attrs.define
class PiperConfig:
    sample_rate: int
    speaker_id_map: dict[str, int]
    length_scale: float = 1.0


@attrs.define
class AudioChunk:
    audio_int16_bytes: bytes


@attrs.define
class PiperVoice:
    """Each word of a sentence is a tenth of a second at its length scale, as loud as its volume."""

    config: PiperConfig
    asked: list[tuple[str, SynthesisConfig]] = attrs.field(factory=list)

    @classmethod
    def load(cls, model_path: str | Path) -> Self:
        if Path(model_path).read_bytes() != b"a voice":
            raise ValueError("INVALID_PROTOBUF")
        config = json.loads(Path(f"{model_path}.json").read_text())
        return cls(PiperConfig(config["audio"]["sample_rate"], config.get("speaker_id_map", {})))

    def synthesize(self, text: str, syn_config: SynthesisConfig) -> Iterator[AudioChunk]:
        self.asked.append((text, syn_config))
        for sentence in filter(str.strip, text.split(".")):
            if "crash" in sentence:
                raise RuntimeError("onnxruntime")
            assert syn_config.length_scale
            seconds = len(sentence.split()) / 10 * syn_config.length_scale
            level = round(32767 * syn_config.volume)
            yield AudioChunk(np.full(int(self.config.sample_rate * seconds), level, "<i2").tobytes())


@pytest.fixture
def voice_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = ModuleType("piper")
    package.PiperVoice = PiperVoice  # type: ignore[attr-defined]  # a module made up here
    package.SynthesisConfig = SynthesisConfig  # type: ignore[attr-defined]  # same
    monkeypatch.setitem(sys.modules, "piper", package)
    path = tmp_path / "en_US-amy-medium.onnx"
    path.write_bytes(b"a voice")
    Path(f"{path}.json").write_text(
        json.dumps({"audio": {"sample_rate": 22050}, "speaker_id_map": {"amy": 0, "bob": 3}})
    )
    return path


def voice_of(tts: LocalTts) -> PiperVoice:
    voice = tts._engine._voice  # type: ignore[attr-defined]  # only Piper's engine has one
    assert isinstance(voice, PiperVoice)
    return voice


async def say(tts: LocalTts, text: str, options: TtsOptions) -> tuple[list[str], bytes]:
    async def pieces() -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        yield text

    texts, audio = [], b""
    async with tts.speak(pieces(), options) as speech:
        async for part in speech:
            if isinstance(part, SpokenText):
                texts.append(part.text)
            elif isinstance(part, SpeechAudio):
                audio += part.data
    return texts, audio


async def test_a_voice_speaks(voice_file: Path) -> None:
    """Its sound comes resampled from its own rate, and below full scale."""
    async with open_local_tts(piper_voice=voice_file) as tts:
        texts, audio = await say(tts, "One two. Three four.", TtsOptions())
    assert texts == ["One two. Three four."]
    assert len(audio) / 48000 == pytest.approx(0.4, abs=0.01)
    assert np.frombuffer(audio, "<i2").max() < 30000


@pytest.mark.parametrize(("speed", "expected_s"), [(0.5, 0.8), (2.0, 0.2)])
async def test_speed_is_its_length_scale(voice_file: Path, speed: float, expected_s: float) -> None:
    """Twice as fast is half as long."""
    options = TtsOptions(output_format=AudioFormat("pcm", 22050), voice_settings=VoiceSettings(speed=speed))
    async with open_local_tts(piper_voice=voice_file) as tts:
        _, audio = await say(tts, "One two three four.", options)
    assert len(audio) / 44100 == pytest.approx(expected_s, abs=0.01)


async def test_the_voice_and_its_speakers_are_listed(voice_file: Path) -> None:
    """The file's name gives the voice's id and language."""
    async with open_local_tts(piper_voice=voice_file) as tts:
        voices = await tts.voices()
    assert voices == tuple(VoiceInfo(name, name, "en-US") for name in ("en_US-amy-medium", "amy", "bob"))


@pytest.mark.parametrize(
    ("voice_id", "speaker_id"),
    [(None, None), ("en_US-amy-medium", None), ("bob", 3), ("JBFqnCBsd6RMkjVDRZzb", None)],
)
async def test_voices_are_its_speakers(
    voice_file: Path, voice_id: str | None, speaker_id: int | None
) -> None:
    """A speaker's name picks it; an id of ElevenLabs' form stands for the default."""
    async with open_local_tts(piper_voice=voice_file) as tts:
        await say(tts, "Hello.", TtsOptions(voice_id=voice_id))
        assert voice_of(tts).asked[0][1].speaker_id == speaker_id
        with pytest.raises(ClientError):
            tts.check(TtsOptions(voice_id="carol"))


async def test_phoneme_brackets_are_text(voice_file: Path) -> None:
    """Double brackets are Piper's phoneme input; a reply must not get there."""
    async with open_local_tts(piper_voice=voice_file) as tts:
        await say(tts, "Hello [[[h@l]] there.", TtsOptions())
        assert "[[" not in voice_of(tts).asked[0][0]


async def test_a_crash_inside_is_a_providers_error(voice_file: Path) -> None:
    """Whatever ONNX Runtime raises ends the turn, not the session."""
    async with open_local_tts(piper_voice=voice_file) as tts:
        with pytest.raises(ProviderError) as caught:
            await say(tts, "One. crash.", TtsOptions())
    assert caught.value.code == "tts_server_error"


async def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(ProviderError, match=r"install voice-fsm\[piper\]"):
        async with open_local_tts(piper_voice=tmp_path / "voice.onnx"):
            pass


def make_broken_files(folder: Path) -> dict[str, Path]:
    """What the error has to say, and a file that it is said of."""
    missing, orphan, broken = (folder / f"{name}.onnx" for name in ("missing", "orphan", "broken"))
    orphan.write_bytes(b"a voice")
    broken.write_bytes(b"not a voice")
    Path(f"{broken}.json").write_text("{}")
    return {
        r"there is no file missing\.onnx\.$": missing,
        r"there is no file orphan\.onnx\.json\.$": orphan,
        r"cannot be loaded from broken\.onnx\.$": broken,
    }


async def test_missing_and_broken_files_are_named(voice_file: Path) -> None:
    """The operator reads which file is at fault, without its folder."""
    for message, path in make_broken_files(voice_file.parent).items():
        with pytest.raises(ProviderError, match=message) as caught:
            async with open_local_tts(piper_voice=path):
                pass
        assert caught.value.code == "tts_unavailable"
        assert str(path.parent) not in caught.value.message
