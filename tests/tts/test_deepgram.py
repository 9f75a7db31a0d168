"""What only Deepgram's text to speech has to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.fakes.deepgram_tts import FakeDeepgramTts, serve_deepgram_tts
from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.troubles import CloseWith, Misfortune, Refuse, Say, Trouble
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText, VoiceInfo
from voice_fsm.tts.deepgram import DeepgramTts, DeepgramTtsConfig, open_deepgram_tts
from voice_fsm.upstream.http import Deadlines, open_client

PCM = AudioFormat("pcm", 24000)
OPTIONS = TtsOptions()
TEXTS = ("Hello there.", "How are you today?", "I am fine.")


@asynccontextmanager
async def provider(fake: FakeDeepgramTts, **config: Any) -> AsyncIterator[DeepgramTts]:
    async with serve_deepgram_tts(fake) as url, open_client(verify=False) as client:
        settings = {"api_key": fake.api_key, "base_url": url, **config}
        async with open_deepgram_tts(DeepgramTtsConfig(**settings), client) as tts:
            yield tts


async def say(
    tts: DeepgramTts, *texts: str, options: TtsOptions = OPTIONS, pause_s: float = 0.0
) -> list[Speech]:
    async def pieces() -> AsyncIterator[str]:
        for text in texts:
            await trio.sleep(pause_s)
            yield text
        await trio.sleep(pause_s)

    async with tts.speak(pieces(), options) as speech:
        return [item async for item in speech]


def audio_of(said: list[Speech]) -> bytes:
    return b"".join(item.data for item in said if isinstance(item, SpeechAudio))


def spoken(*texts: str) -> bytes:
    return b"".join(speech_of(f"{text} ", PCM) for text in texts)


async def test_each_piece_is_flushed_and_announced_at_its_own_audio(autojump_clock: Any) -> None:
    """Though all text is sent ahead: a confirmed flush tells where one piece ends and the next begins."""
    fake = FakeDeepgramTts(between_chunks_s=0.05)
    async with provider(fake) as tts:
        said = await say(tts, *TEXTS)

    assert fake.sockets[0].messages == [
        message for text in TEXTS for message in ({"type": "Speak", "text": f"{text} "}, {"type": "Flush"})
    ]
    borders = [number for number, item in enumerate(said) if isinstance(item, SpokenText)]
    assert [said[number] for number in borders] == [SpokenText(text) for text in TEXTS]
    for text, begin, end in zip(TEXTS, borders, [*borders[1:], len(said)], strict=True):
        assert audio_of(said[begin:end]) == spoken(text)


async def test_the_socket_is_asked_for_what_the_session_chose(autojump_clock: Any) -> None:
    """Voice, format and pace are the connection's; the key is a token."""
    fake = FakeDeepgramTts()
    options = TtsOptions(
        output_format=AudioFormat("ulaw", 8000),
        voice_id="aura-2-thalia-en",
        voice_settings=VoiceSettings(speed=1.2),
    )
    async with provider(fake) as tts:
        await say(tts, "Hello.", options=options)

    handshake = fake.sockets[0].handshake
    assert {name: values[0] for name, values in handshake.query.items()} == {
        "model": "aura-2-thalia-en",
        "encoding": "mulaw",
        "sample_rate": "8000",
        "speed": "1.2",
    }
    assert handshake.headers["authorization"] == "Token dg-key"


async def test_files_come_over_http(autojump_clock: Any) -> None:
    """MP3 in the service's own rate is asked for as it is."""
    fake = FakeDeepgramTts()
    async with provider(fake) as tts:
        await say(tts, "Hello.", options=TtsOptions(output_format=AudioFormat.parse("mp3_22050_48")))
    assert fake.http.requests[0].path == "/v1/speak?model=aura-2-asteria-en&encoding=mp3&bit_rate=48000"
    assert fake.http.requests[0].json() == {"text": "Hello."}


async def test_replies_share_a_socket_if_they_have_the_voice_in_common(autojump_clock: Any) -> None:
    """Another voice takes another socket."""
    fake = FakeDeepgramTts()
    async with provider(fake) as tts:
        for text in TEXTS:
            assert audio_of(await say(tts, text)) == spoken(text)
        await say(tts, "Hello.", options=TtsOptions(voice_id="aura-2-thalia-en"))

    assert [len(log.messages) for log in fake.sockets] == [6, 2]


async def test_the_end_of_the_text_after_all_audio_ends_the_reply(autojump_clock: Any) -> None:
    """The service has nothing more to say then, and is not waited for."""
    async with provider(FakeDeepgramTts()) as tts:
        began_s = trio.current_time()
        await say(tts, "Hello.", pause_s=5)
    assert trio.current_time() - began_s == pytest.approx(10, abs=0.5)


async def test_a_socket_that_was_left_midway_is_not_used_again(autojump_clock: Any) -> None:
    """Audio does not tell which text it says, so that of the old turn could be heard in the new one."""
    fake = FakeDeepgramTts(between_chunks_s=0.1)
    async with provider(fake) as tts:
        with trio.move_on_after(0.5):
            await say(tts, *TEXTS)
        assert audio_of(await say(tts, "Something else.")) == spoken("Something else.")
        await trio.sleep(1)

    assert len(fake.sockets) == 2
    assert fake.sockets[0].close_code is not None


async def test_a_socket_that_the_service_closed_is_replaced(autojump_clock: Any) -> None:
    """An idle one that is gone costs the next reply a handshake, no more."""
    fake = FakeDeepgramTts(idle_s=5)
    async with provider(fake) as tts:
        await say(tts, "Hello.")
        await trio.sleep(7)
        assert audio_of(await say(tts, "Hello again.")) == spoken("Hello again.")
    assert len(fake.sockets) == 2


async def test_prewarming_opens_one_socket(autojump_clock: Any) -> None:
    """The reply that follows finds it; it is closed when nobody speaks for a while."""
    fake = FakeDeepgramTts()
    async with provider(fake) as tts:
        tts.prewarm(OPTIONS)
        tts.prewarm(OPTIONS)
        await trio.sleep(1)
        await say(tts, "Hello.")
        assert len(fake.sockets) == 1
        await trio.sleep(70)
        assert fake.live_sockets == 0


@pytest.mark.parametrize(
    ("texts", "sockets"),
    [
        (["word " * 50] * 20, 3),  # 5,000 characters: 2,200 to a socket
        (["Yes."] * 40, 3),  # 40 flushes: 18 to a socket
        (["word " * 700], 2),  # one piece of 3,500 characters, cut
    ],
)
async def test_a_long_reply_goes_on_over_another_socket(
    autojump_clock: Any, texts: list[str], sockets: int
) -> None:
    """No socket is given more than it takes in a minute, and nothing is lost on the way."""
    fake = FakeDeepgramTts(chunk_bytes=10**6)
    options = TtsOptions(output_format=AudioFormat("ulaw", 8000))
    async with provider(fake) as tts:
        await say(tts, *texts, options=options)

    assert " ".join("".join(fake.spoken).split()) == " ".join(" ".join(texts).split())
    assert len(fake.sockets) == sockets
    assert all(log.close_code != 1008 for log in fake.sockets)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (CloseWith(1008, "DATA-0001"), "tts_rate_limited"),
        (CloseWith(1008, "DATA-0000"), "tts_rejected"),
        (CloseWith(1009, "BIG-0000"), "tts_rejected"),
        (CloseWith(1011, "NET-0000"), "tts_server_error"),
        (CloseWith(1011, ""), "tts_server_error"),
        (CloseWith(1000, ""), "tts_truncated"),
        (Say('{"type":"Warning","warn_code":"EXCESSIVE_FLUSH"}'), "tts_rate_limited"),
        (Say('{"type":"Warning","code":"EXCESSIVE_FLUSH"}'), "tts_rate_limited"),
        (Say('{"type":"Error","description":"Something failed"}'), "tts_server_error"),
        (Say('{"type":"Error","code":"DATA-0001"}'), "tts_rate_limited"),
        (Say("[]"), "tts_bad_response"),
    ],
)
async def test_what_the_service_says_is_understood(
    autojump_clock: Any, trouble: Misfortune, code: str
) -> None:
    """Closes by the code in their reason, warnings in both spellings, errors by what they name."""
    async with provider(FakeDeepgramTts(troubles=[trouble] * 3)) as tts:
        with pytest.raises(ProviderError) as caught:
            await say(tts, "Hello.")
    assert caught.value.code == code


async def test_other_warnings_are_no_errors(autojump_clock: Any) -> None:
    """Nor are events that nobody knows; but without audio there is none."""
    fake = FakeDeepgramTts(troubles=[Say('{"type":"Warning","warn_code":"SLOW"}')])
    deadlines = Deadlines(first_byte_s=2)
    async with provider(fake, deadlines=deadlines) as tts:
        with pytest.raises(ProviderError) as caught:
            await say(tts, "Hello.")
    assert caught.value.code == "tts_timeout"


@pytest.mark.parametrize("name", ["pcm_24000", "opus_48000_64"])
async def test_a_voice_that_there_is_not_is_the_fields_fault(autojump_clock: Any, name: str) -> None:
    """It is told as a bad request, over the socket and over HTTP."""
    options = TtsOptions(voice_id="aura-9-nobody-en", output_format=AudioFormat.parse(name))
    async with provider(FakeDeepgramTts()) as tts:
        with pytest.raises(ProviderError, match="no voice 'aura-9-nobody-en'") as caught:
            await say(tts, "Hello.", options=options)
    assert (caught.value.code, caught.value.field) == ("tts_rejected", "tts.voice_id")


async def test_voices_are_listed_once() -> None:
    """Each by the name that is asked for; models of other endpoints are left out."""
    async with provider(FakeDeepgramTts()) as tts:
        assert await tts.voices() == (
            VoiceInfo("aura-asteria-en", "Asteria", "en"),
            VoiceInfo("aura-2-asteria-en", "Asteria", "en"),
            VoiceInfo("aura-2-thalia-en", "Thalia", "en"),
        )


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Refuse(401), "tts_auth_failed"),
        (Say('{"tts": 7}'), "tts_bad_response"),
        (Trouble.HANG, "tts_timeout"),
    ],
)
async def test_a_list_that_fails_is_told(autojump_clock: Any, trouble: Misfortune, code: str) -> None:
    """What is no list is an error with the usual code."""
    async with provider(FakeDeepgramTts(troubles=[trouble]), deadlines=Deadlines(first_byte_s=2)) as tts:
        with pytest.raises(ProviderError) as caught:
            await tts.voices()
    assert caught.value.code == code


def test_an_address_that_is_none_is_refused() -> None:
    """By the configuration, before anything is asked."""
    with pytest.raises(ValueError, match="base address"):
        DeepgramTtsConfig(api_key="k", base_url="ftp://example")
