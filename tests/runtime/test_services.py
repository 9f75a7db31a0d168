from typing import get_args

import pytest

from tests.fakes.scripted import ScriptedTts
from voice_fsm.config import load_settings
from voice_fsm.runtime.services import SpeechProvider, open_speech_service, voice_identity
from voice_fsm.speech.service import SpeechRequest

KEYS = {"ELEVENLABS_API_KEY": "secret-key"}


@pytest.mark.parametrize("provider", get_args(SpeechProvider))
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
