"""What only OpenAI's text to speech, and that of servers like it, has to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.http_server import Request
from tests.fakes.openai_tts import FakeOpenAiTts, serve_openai_tts, wav_head
from tests.fakes.troubles import Refuse
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.tts.base import SpeechAudio
from voice_fsm.tts.openai import OpenAiTts, OpenAiTtsConfig, open_openai_tts
from voice_fsm.tts.openai_wire import PcmReader, rate_told
from voice_fsm.upstream.http import open_client

PCM = AudioFormat("pcm", 24000)


@asynccontextmanager
async def provider(fake: FakeOpenAiTts, **config: Any) -> AsyncIterator[OpenAiTts]:
    async with serve_openai_tts(fake) as url, open_client(verify=False) as client:
        settings = {"api_key": fake.api_key, "base_url": url, **config}
        async with open_openai_tts(OpenAiTtsConfig(**settings), client) as tts:
            yield tts


async def say(tts: OpenAiTts, text: str, options: TtsOptions | None = None) -> bytes:
    write, read = trio.open_memory_channel[str](1)
    await write.send(text)
    write.close()
    async with tts.speak(read, options or TtsOptions()) as speech:
        return b"".join([item.data async for item in speech if isinstance(item, SpeechAudio)])


async def asked(options: TtsOptions, **config: Any) -> Request:
    fake = FakeOpenAiTts()
    async with provider(fake, **config) as tts:
        await say(tts, "Hello.", options)
    return fake.requests[0]


async def test_a_request_says_what_the_session_chose() -> None:
    """Voice, model and pace; what it leaves open is the operator's, and the pace the voice's own."""
    options = TtsOptions(voice_id="echo", model_id="tts-1", voice_settings=VoiceSettings(speed=1.5))

    request = await asked(options)
    plain = await asked(TtsOptions())

    common = {"input": "Hello.", "response_format": "pcm"}
    assert request.json() == {**common, "model": "tts-1", "voice": "echo", "speed": 1.5}
    assert plain.json() == {**common, "model": "gpt-4o-mini-tts", "voice": "alloy"}
    assert request.headers["authorization"] == "Bearer sk-key"


async def test_a_server_without_keys_gets_none() -> None:
    """Nothing is sent in place of a key that is not set."""
    fake = FakeOpenAiTts()
    async with provider(fake, api_key="") as tts:
        with pytest.raises(ProviderError):
            await say(tts, "Hello.")
    assert "authorization" not in fake.requests[0].headers


@pytest.mark.parametrize("chunk_bytes", [77, 4801])
async def test_a_wav_file_is_taken_for_the_pcm_that_is_in_it(chunk_bytes: int) -> None:
    """Servers that only make files are heard too, however their head is cut."""
    async with provider(FakeOpenAiTts(always_wav=True, chunk_bytes=chunk_bytes)) as tts:
        assert await say(tts, "A.") == speech_of("A.", PCM)


@pytest.mark.parametrize(
    "fake",
    [
        FakeOpenAiTts(always_wav=True, rate_hz=48000),
        FakeOpenAiTts(always_wav=True, rate_hz=22050),
        FakeOpenAiTts(rate_hz=16000, told_rate_hz=16000),
    ],
)
async def test_another_rate_is_resampled(fake: FakeOpenAiTts) -> None:
    """A file's own rate, or the one that a header tells, is made into the one that was promised."""
    async with provider(fake) as tts:
        audio = await say(tts, "Hello there.")
    assert len(audio) == pytest.approx(len(speech_of("Hello there.", PCM)), rel=0.001)


@pytest.mark.parametrize(
    "head",
    [
        b"ID3\x04 and so on",
        b"OggS and so on",
        wav_head(24000).replace(b"\x01\x00\x01\x00", b"\x01\x00\x02\x00"),
        wav_head(24000).replace(b"\x01\x00\x01\x00", b"\x03\x00\x01\x00"),
        b"RIFF\0\0\0\0WAVEjunk\xff\xff\x00\x00" + bytes(5000),
    ],
)
def test_what_is_no_pcm_is_no_answer(head: bytes) -> None:
    """Compressed files, stereo, floats and endless heads are refused rather than heard as noise."""
    with pytest.raises(ProviderError) as caught:
        PcmReader(24000).feed(head)
    assert caught.value.code == "tts_bad_response"


@pytest.mark.parametrize(
    ("header", "rate_hz"), [("", 24000), ("16000", 16000), ("16 kHz", 24000), ("1", 24000), ("999999", 24000)]
)
def test_only_a_rate_counts_as_one(header: str, rate_hz: int) -> None:
    """What is no rate in the header is passed over."""
    assert rate_told(header) == rate_hz


@pytest.mark.parametrize(
    ("model", "said"), [("tts-1", "gpt-realtime-2.1-mini"), ("tts-9", "knows no model 'tts-9'")]
)
async def test_a_model_that_is_gone_is_named_with_its_successor(model: str, said: str) -> None:
    """The client is told which field is at fault, and what to use instead."""
    body = b'{"error": {"message": "gone", "type": "invalid_request_error", "code": "model_not_found"}}'
    async with provider(FakeOpenAiTts(troubles=[Refuse(404, body)]), model_id=model) as tts:
        with pytest.raises(ProviderError, match=said) as caught:
            await say(tts, "Hello.")
    assert (caught.value.code, caught.value.field) == ("tts_rejected", "tts.model_id")


async def test_a_used_up_quota_is_not_asked_again() -> None:
    """The same status as for haste, but no retry helps."""
    body = b'{"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}'
    fake = FakeOpenAiTts(troubles=[Refuse(429, body)])
    async with provider(fake) as tts:
        with pytest.raises(ProviderError) as caught:
            await say(tts, "Hello.")
    assert caught.value.code == "tts_quota_exceeded"
    assert len(fake.requests) == 1


async def test_a_very_long_piece_is_cut_at_its_words() -> None:
    """No request holds more than the service takes, and no word is lost."""
    fake = FakeOpenAiTts(chunk_bytes=10**6)
    text = "word " * 1000
    async with provider(fake) as tts:
        await say(tts, text)
    assert len(fake.spoken) == 2
    assert " ".join(fake.spoken) == text.strip()


async def test_prewarming_connects_once_until_the_connection_grows_cold(autojump_clock: Any) -> None:
    """The first request then finds a connection; one that was just used is as good."""
    fake = FakeOpenAiTts()
    async with provider(fake) as tts:
        tts.prewarm(TtsOptions())
        await fake.http.wait_until(lambda server: len(server.requests) == 1)
        await trio.sleep(1)
        tts.prewarm(TtsOptions())
        await say(tts, "Hello.")
        tts.prewarm(TtsOptions())
        await trio.sleep(1)

        assert [request.method for request in fake.http.requests] == ["HEAD", "POST"]
        assert fake.http.connections == 1
        await trio.sleep(25)
        tts.prewarm(TtsOptions())
        await fake.http.wait_until(lambda server: len(server.requests) == 3)


async def test_prewarming_in_vain_is_not_noticed(autojump_clock: Any) -> None:
    """A service that is away is found so by the reply, not before."""
    async with provider(FakeOpenAiTts(), base_url="http://127.0.0.1:9/v1") as tts:
        tts.prewarm(TtsOptions())
        await trio.sleep(1)


async def test_its_voices_are_a_list_of_ours() -> None:
    """All of them may be asked for by name."""
    async with provider(FakeOpenAiTts()) as tts:
        assert "alloy" in {voice.id for voice in await tts.voices()}
