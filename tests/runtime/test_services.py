from typing import Any, Final, get_args

import pytest
import trio

from tests.fakes.cartesia import FakeCartesia, serve_cartesia
from tests.fakes.deepgram_tts import FakeDeepgramTts, serve_deepgram_tts
from tests.fakes.elevenlabs_batch import FakeElevenLabsBatch
from tests.fakes.elevenlabs_tts import CHAR_MS
from tests.fakes.http_server import serve_http
from tests.fakes.openai_tts import FakeOpenAiTts, serve_openai_tts
from tests.fakes.scripted import ScriptedTts
from voice_fsm.config import Settings, load_settings
from voice_fsm.runtime.services import (
    TtsName,
    default_options,
    make_transcribe,
    open_recogniser,
    open_services,
    open_speech_service,
    recogniser_lag_s,
    voice_identity,
)
from voice_fsm.speech.service import SpeechRequest
from voice_fsm.stt.recording import RecordedSpeech
from voice_fsm.tts.base import SpeechAudio
from voice_fsm.upstream.http import open_client

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


SERVICES: Final[dict[str, tuple[Any, Any, dict[str, str], str]]] = {
    "openai": (
        FakeOpenAiTts,
        serve_openai_tts,
        {"OPENAI_API_KEY": "sk-key", "OPENAI_TTS_MODEL": "tts-1", "OPENAI_TTS_VOICE": "echo"},
        "OPENAI_BASE_URL",
    ),
    "deepgram": (
        FakeDeepgramTts,
        serve_deepgram_tts,
        {"DG_API_KEY": "dg-key", "DG_TTS_MODEL_VOICE": "aura-asteria-en"},
        "DEEPGRAM_BASE_URL",
    ),
    "cartesia": (
        FakeCartesia,
        serve_cartesia,
        {
            "CARTESIA_API_KEY": "sk_car_key",
            "CARTESIA_VOICE_ID": "voice-2",
            "CARTESIA_MODEL_ID": "sonic-2",
            "CARTESIA_VERSION": "2024-06-10",
        },
        "CARTESIA_BASE_URL",
    ),
}


@pytest.mark.parametrize(
    ("stt", "fallback", "lag_s"),
    [("elevenlabs", None, 2.5), ("local", None, 5.0), ("elevenlabs", "local", 5.0)],
)
def test_audio_is_kept_as_long_as_the_slowest_recogniser_may_be_behind(
    stt: str, fallback: str | None, lag_s: float
) -> None:
    """Ours takes audio ahead of its work, and may step in for the other."""
    chosen = {"STT_PROVIDER": stt, **({"STT_FALLBACK": fallback} if fallback else {})}
    assert recogniser_lag_s(load_settings({**chosen, **KEYS})) == lag_s


async def speak_once(settings: Settings) -> bytes:
    write, read = trio.open_memory_channel[str](1)
    await write.send("Hello.")
    write.close()
    async with open_services(settings, trio.Event()) as services:
        options = services.defaults.tts
        services.tts.check(options)
        services.tts.prewarm(options)
        async with services.tts.speak(read, options) as speech:
            return b"".join([item.data async for item in speech if isinstance(item, SpeechAudio)])


@pytest.mark.parametrize("provider", SERVICES)
async def test_a_voice_on_the_network_is_asked_as_the_settings_say(provider: str) -> None:
    """With the names and values that deployments already have, and its address by either scheme."""
    make_fake, serve, environ, address = SERVICES[provider]
    fake = make_fake()
    chosen = {"TTS_PROVIDER": provider, "STT_PROVIDER": "elevenlabs", "ELEVENLABS_API_KEY": "k", **environ}
    async with serve(fake) as url:
        shown = url.replace("http", "ws", 1) if provider != "openai" else url
        audio = await speak_once(load_settings({**chosen, address: shown}))

    assert len(audio) == pytest.approx(len("Hello.") * CHAR_MS * 48, rel=0.2)
    assert [text.strip() for text in fake.spoken] == ["Hello."]


async def test_a_voice_steps_in_for_another() -> None:
    """Any of them may be the fallback."""
    fake = FakeDeepgramTts()
    async with serve_deepgram_tts(fake) as url:
        settings = load_settings(
            {
                "STT_PROVIDER": "elevenlabs",
                "ELEVENLABS_API_KEY": "k",
                "ELEVENLABS_BASE_URL": "http://127.0.0.1:9",
                "TTS_FALLBACK": "deepgram",
                "DG_API_KEY": "dg-key",
                "DG_BASE_URL": url,
            }
        )
        assert await speak_once(settings)
    assert fake.spoken == ["Hello. "]


async def test_elevenlabs_transcribes_recordings_as_the_settings_say() -> None:
    """By its service for them, with the operator's account and model; nothing of its realtime service."""
    fake = FakeElevenLabsBatch("Good morning.")
    async with serve_http(fake) as server, open_client(trust_env=False) as client:
        settings = load_settings(
            {
                "STT_PROVIDER": "elevenlabs",
                "ELEVENLABS_API_KEY": "the-key",
                "ELEVENLABS_BASE_URL": server.url,
                "ELEVENLABS_STT_BATCH_MODEL_ID": "scribe_v1",
            }
        )
        async with open_recogniser(settings) as stt:
            transcribe = make_transcribe(settings, stt, client)
            heard = await transcribe(RecordedSpeech(pcm=bytes(32000)))
    assert heard.text == "Good morning."
    assert [form["model_id"] for form in fake.forms] == [b"scribe_v1"]
