from typing import get_args

import pytest

from tests.fakes.scripted import ScriptedTts
from voice_fsm.config import load_settings
from voice_fsm.runtime.services import TtsName, default_options, open_speech_service, voice_identity
from voice_fsm.speech.service import SpeechRequest

KEYS = dict.fromkeys(("ELEVENLABS_API_KEY", "OPENAI_API_KEY", "DG_API_KEY", "CARTESIA_API_KEY"), "secret-key")


@pytest.mark.parametrize("provider", get_args(TtsName))
def test_every_provider_has_an_identity(provider: str) -> None:
    """What is cached belongs to the provider and its settings, and no secret is among them."""
    settings = load_settings({"TTS_PROVIDER": provider, **KEYS})
    assert voice_identity(settings).startswith(f"{provider} ")
    assert "secret-key" not in voice_identity(settings)


def test_another_voice_of_the_server_is_another_identity() -> None:
    """So a change of the settings does not give out what the old voice said."""
    voices = [load_settings({"LOCAL_VOICE": voice}) for voice in ("en", "fr")]
    assert voice_identity(voices[0]) != voice_identity(voices[1])


@pytest.mark.parametrize(
    ("settings", "cached"), [({}, True), ({"CACHE": "off"}, False), ({"CACHE_MEMORY_MB": "0"}, True)]
)
async def test_what_the_settings_say_of_the_cache(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], cached: bool
) -> None:
    """It is on, on disk and in memory, unless it is switched off."""
    directory = tmp_path_factory.mktemp("cache")
    chosen = load_settings({"CACHE_DIR": str(directory), **settings})
    for _ in range(2):
        async with open_speech_service(chosen, ScriptedTts()) as speech:
            request = SpeechRequest(text="Hello there, my friend.")
            async with speech.synthesize(request) as synthesis:
                _ = [data async for data in synthesis.audio()]
    assert synthesis.cached is cached


@pytest.mark.parametrize(
    ("environ", "output_format"),
    [
        ({}, "pcm_24000"),
        ({"TTS_SAMPLE_RATE": "16000"}, "pcm_16000"),
        ({"TTS_SAMPLE_RATE": "16000", "TTS_OUTPUT_FORMAT": "ulaw_8000"}, "ulaw_8000"),
    ],
)
def test_the_voices_rate_is_that_of_pcm(environ: dict[str, str], output_format: str) -> None:
    """A rate alone means PCM; a format says its own rate."""
    assert str(default_options(load_settings(environ)).tts.output_format) == output_format
