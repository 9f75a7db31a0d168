"""What only Cartesia's text to speech has to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.fakes.cartesia import FakeCartesia, serve_cartesia
from tests.fakes.elevenlabs_tts import CHAR_MS, speech_of
from tests.fakes.troubles import Misfortune, Refuse, Say, Trouble
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText, VoiceInfo
from voice_fsm.tts.cartesia import CartesiaTts, CartesiaTtsConfig, open_cartesia_tts
from voice_fsm.tts.cartesia_wire import Transcript
from voice_fsm.upstream.http import Deadlines, open_client

PCM = AudioFormat("pcm", 24000)
OPTIONS = TtsOptions()
TEXTS = ("Hello there.", "How are you today?", "I am fine.")


@asynccontextmanager
async def provider(fake: FakeCartesia, **config: Any) -> AsyncIterator[CartesiaTts]:
    async with serve_cartesia(fake) as url, open_client(verify=False) as client:
        settings = {"api_key": fake.api_key, "voice_id": "voice-1", "base_url": url, **config}
        async with open_cartesia_tts(CartesiaTtsConfig(**settings), client) as tts:
            yield tts


async def say(
    tts: CartesiaTts, *texts: str, options: TtsOptions = OPTIONS, pause_s: float = 0.0
) -> list[Speech]:
    async def pieces() -> AsyncIterator[str]:
        for text in texts:
            await trio.sleep(pause_s)
            yield text

    async with tts.speak(pieces(), options) as speech:
        return [item async for item in speech]


def audio_of(said: list[Speech]) -> bytes:
    return b"".join(item.data for item in said if isinstance(item, SpeechAudio))


def spoken(*texts: str) -> bytes:
    return b"".join(speech_of(f"{text} ", PCM) for text in texts)


async def test_a_reply_is_one_context_that_is_spoken_at_once(autojump_clock: Any) -> None:
    """All that a message has to hold is in each; no text waits for more, and the end is told."""
    fake = FakeCartesia()
    options = TtsOptions(voice_id="voice-2", model_id="sonic-3", voice_settings=VoiceSettings(speed=1.2))
    async with provider(fake, language="de") as tts:
        await say(tts, *TEXTS, options=options, pause_s=0.1)

    (log,) = fake.sockets
    assert len(log.contexts) == 1
    assert [(message.pop("transcript"), message.pop("continue")) for message in log.messages] == [
        *((f"{text} ", True) for text in TEXTS),
        ("", False),
    ]
    assert all(
        message
        == {
            "context_id": log.contexts[0],
            "model_id": "sonic-3",
            "voice": {"mode": "id", "id": "voice-2"},
            "language": "de",
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24000},
            "generation_config": {"speed": 1.2},
            "max_buffer_delay_ms": 0,
            "add_timestamps": True,
        }
        for message in log.messages
    )
    assert log.handshake.headers["x-api-key"] == fake.api_key
    assert log.handshake.headers["cartesia-version"] == "2026-03-01"


@pytest.mark.parametrize(("speed", "word"), [(0.7, "slow"), (1.0, "normal"), (1.3, "fast")])
async def test_older_models_know_three_paces(autojump_clock: Any, speed: float, word: str) -> None:
    """The number becomes the word that is next to it."""
    fake = FakeCartesia()
    async with provider(fake, model_id="sonic-2") as tts:
        await say(tts, "Hello.", options=TtsOptions(voice_settings=VoiceSettings(speed=speed)))
    assert fake.sockets[0].messages[0]["speed"] == word
    assert "generation_config" not in fake.sockets[0].messages[0]


@pytest.mark.parametrize("first", [True, False])
async def test_words_are_told_as_they_are_written_on_one_clock(autojump_clock: Any, *, first: bool) -> None:
    """Spaces between words are told too, and times go on from context to context."""
    fake = FakeCartesia(timestamps_first=first)
    async with provider(fake) as tts:
        said = await say(tts, *TEXTS, pause_s=2)

    alignments = [item for item in said if isinstance(item, Alignment)]
    chars = "".join(char for item in alignments for char in item.chars)
    starts_ms = [time for item in alignments for time in item.starts_ms]
    words_start_ms = [time for char, time in zip(" " + chars, starts_ms, strict=False) if char == " "]
    written = "".join(f"{text} " for text in TEXTS)
    assert chars == written
    assert len(fake.sockets[0].contexts) == len(TEXTS)
    expected_ms = [CHAR_MS * number for number, char in enumerate(" " + written[:-1]) if char == " "]
    assert words_start_ms == pytest.approx(expected_ms, abs=0.1)
    assert not any(isinstance(item, SpokenText) for item in said)


async def test_without_timestamps_the_text_is_announced_a_second_late_at_most(autojump_clock: Any) -> None:
    """Where the language has none, what was heard is known by sentence."""
    async with provider(FakeCartesia(timestamps=False)) as tts:
        said = await say(tts, "Hello there, this takes a while.")

    before = next(number for number, item in enumerate(said) if isinstance(item, SpokenText))
    assert said[before] == SpokenText("Hello there, this takes a while.")
    assert PCM.duration_ms(len(audio_of(said[:before]))) < 1200


async def test_a_slow_chat_takes_a_context_for_each_burst(autojump_clock: Any) -> None:
    """A context is ended before the service forgets it; all of them share one socket."""
    fake = FakeCartesia()
    async with provider(fake) as tts:
        said = await say(tts, *TEXTS, pause_s=20)

        assert audio_of(said) == spoken(*TEXTS)
        assert len(fake.sockets[0].contexts) == 3
        assert len(fake.sockets) == 1


async def test_a_context_that_the_service_forgot_early_is_followed_by_another(autojump_clock: Any) -> None:
    """What it has said is not said again, and what is still to say is."""
    fake = FakeCartesia(expires_s=0.2)
    async with provider(fake) as tts:
        said = await say(tts, *TEXTS, pause_s=0.5)

    assert audio_of(said) == spoken(*TEXTS)
    assert len(fake.sockets[0].contexts) == 3


async def test_replies_share_a_socket(autojump_clock: Any) -> None:
    """The second finds it open, and has a context of its own."""
    fake = FakeCartesia()
    async with provider(fake) as tts:
        for text in TEXTS:
            assert audio_of(await say(tts, text)) == spoken(text)

    assert len(fake.sockets) == 1
    assert len(fake.sockets[0].contexts) == 3


@pytest.mark.parametrize("cancel_stops", [True, False])
async def test_what_a_cancelled_context_still_says_is_not_heard(
    autojump_clock: Any, nursery: trio.Nursery, *, cancel_stops: bool
) -> None:
    """The socket goes on to serve: audio of the old turn that comes amid the new one's is dropped."""
    fake = FakeCartesia(between_chunks_s=0.1, cancel_stops=cancel_stops)
    async with provider(fake) as tts:

        async def pieces() -> AsyncIterator[str]:
            yield "This is a long sentence that nobody wants to hear to its end."

        async with tts.speak(pieces(), OPTIONS) as speech:
            async for item in speech:
                if isinstance(item, SpeechAudio):
                    break
        said = await say(tts, "Something else.")

        assert audio_of(said) == spoken("Something else.")
        assert "".join(char for item in said if isinstance(item, Alignment) for char in item.chars) == (
            "Something else. "
        )
    (log,) = fake.sockets
    assert log.cancelled == log.contexts[:1]
    assert len(log.contexts) == 2


async def test_a_socket_that_the_service_closed_is_replaced(autojump_clock: Any) -> None:
    """An idle one that is gone costs the next reply a handshake, no more."""
    fake = FakeCartesia(idle_s=5)
    async with provider(fake) as tts:
        await say(tts, "Hello.")
        await trio.sleep(7)
        assert audio_of(await say(tts, "Hello again.")) == spoken("Hello again.")

    assert len(fake.sockets) == 2


async def test_prewarming_opens_one_socket(autojump_clock: Any) -> None:
    """The reply that follows finds it; it is closed when nobody speaks for a while."""
    fake = FakeCartesia()
    async with provider(fake) as tts:
        tts.prewarm(OPTIONS)
        tts.prewarm(OPTIONS)
        await trio.sleep(1)
        assert fake.live_sockets == 1
        await say(tts, "Hello.")
        assert len(fake.sockets) == 1
        await trio.sleep(60)
        assert fake.live_sockets == 0


async def test_concurrent_replies_have_a_socket_each(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Neither hears the other."""
    fake = FakeCartesia(between_chunks_s=0.05)
    heard: dict[str, bytes] = {}
    async with provider(fake) as tts:

        async def one(text: str) -> None:
            heard[text] = audio_of(await say(tts, text))

        async with trio.open_nursery() as both:
            for text in TEXTS:
                both.start_soon(one, text)

    assert heard == {text: spoken(text) for text in TEXTS}
    assert len(fake.sockets) == 3


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (
            '{"type":"error","status_code":500,"error":"Internal error: failed"}',
            "tts_server_error",
            "voice service",
        ),
        ('{"type":"error","done":true}', "tts_server_error", "service"),
        (
            '{"type":"error","status_code":402,"message":"no credits left"}',
            "tts_quota_exceeded",
            "voice service",
        ),
        (
            '{"type":"error","status_code":400,"error":"Out of Credits: top up"}',
            "tts_quota_exceeded",
            "voice service",
        ),
        ('{"type":"error","status_code":400,"error":"Model sunset: gone"}', "tts_rejected", "sonic-3"),
        ('{"type":"chunk","data":7}', "tts_bad_response", "service"),
        ('{"type":"chunk","data":"*"}', "tts_bad_response", "service"),
        ("[]", "tts_bad_response", "service"),
    ],
)
async def test_errors_of_all_versions_are_understood(
    autojump_clock: Any, message: str, code: str, said: str
) -> None:
    """Structured or in words; one without a context concerns whoever is listening."""
    async with provider(FakeCartesia(troubles=[Say(message)] * 3)) as tts:
        with pytest.raises(ProviderError, match=said) as caught:
            await say(tts, "Hello.")
    assert caught.value.code == code


@pytest.mark.parametrize("output_format", ["pcm_24000", "mp3_44100_128"])
async def test_a_model_that_is_gone_is_named_with_its_successor(
    autojump_clock: Any, output_format: str
) -> None:
    """Over the socket and over HTTP the client learns which field is at fault, and what to use instead."""
    options = TtsOptions(output_format=AudioFormat.parse(output_format))
    async with provider(FakeCartesia(), model_id="sonic-english") as tts:
        with pytest.raises(ProviderError, match=r"ended sonic-english .* sonic-3\.5") as caught:
            await say(tts, "Hello.", options=options)
    assert (caught.value.code, caught.value.field) == ("tts_rejected", "tts.model_id")


async def test_a_voice_that_there_is_not_is_the_fields_fault(autojump_clock: Any) -> None:
    """The client chose it, and is told so."""
    async with provider(FakeCartesia()) as tts:
        with pytest.raises(ProviderError) as caught:
            await say(tts, "Hello.", options=TtsOptions(voice_id="nobody"))
    assert (caught.value.code, caught.value.field) == ("tts_rejected", "tts.voice_id")


async def test_too_many_contexts_are_tried_again(autojump_clock: Any) -> None:
    """The limit is told within the socket, and is over in a moment."""
    fake = FakeCartesia(max_contexts=0)
    async with provider(fake) as tts, trio.open_nursery() as nursery:

        async def relent() -> None:
            await trio.sleep(0.1)
            fake.max_contexts = 2

        nursery.start_soon(relent)
        assert audio_of(await say(tts, "Hello.")) == spoken("Hello.")


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("Hello there. ", ["Hello", "there."], "Hello there. "),
        ("Hello, there! ", ["Hello", "there"], "Hello, there"),
        (
            "It costs $5 today. ",
            ["It", "costs", "five", "dollars", "today."],
            "It costs five dollars today. ",
        ),
        ("你好世界 ", ["你", "好", "世", "界"], "你好世界 "),
        ("Hi ", ["", "Hi"], " Hi "),
    ],
)
def test_words_are_found_in_the_text(text: str, words: list[str], told: str) -> None:
    """With its spaces and punctuation; a word that is said otherwise is told as it is said."""
    transcript = Transcript()
    transcript.add(text)
    times = [float(number) for number in range(len(words) + 1)]

    alignment = transcript.align({"word_timestamps": {"words": words, "start": times[:-1], "end": times[1:]}})

    assert alignment is not None
    assert "".join(alignment.chars) == told
    assert sorted(alignment.starts_ms) == list(alignment.starts_ms)
    assert alignment.ends_ms[-1] == pytest.approx(1000 * len(words))


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"words": ["a"], "start": [0.0]},
        {"words": ["a"], "start": [0.0], "end": []},
        {"words": ["a"], "start": ["x"], "end": [1]},
        {"words": ["a"], "start": [float("nan")], "end": [1]},
        {"words": [], "start": [], "end": []},
    ],
)
def test_times_that_are_not_understood_are_none(told: Any) -> None:
    """The speech itself is whole without them."""
    assert Transcript().align({"word_timestamps": told}) is None


@pytest.mark.parametrize("version", ["2026-03-01", "2024-06-10"])
async def test_voices_are_listed(version: str) -> None:
    """Page by page, or all at once as in the versions of 2024."""
    async with provider(FakeCartesia(), version=version) as tts:
        assert await tts.voices() == tuple(VoiceInfo(f"voice-{n}", f"Voice-{n}", "en") for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Refuse(401), "tts_auth_failed"),
        (Say('{"data": 7}'), "tts_bad_response"),
        (Trouble.HANG, "tts_timeout"),
    ],
)
async def test_a_list_that_fails_is_told(autojump_clock: Any, trouble: Misfortune, code: str) -> None:
    """What is no list is an error with the usual code."""
    async with provider(FakeCartesia(troubles=[trouble]), deadlines=Deadlines(first_byte_s=2)) as tts:
        with pytest.raises(ProviderError) as caught:
            await tts.voices()
    assert caught.value.code == code


def test_an_address_that_is_none_is_refused() -> None:
    """By the configuration, before anything is asked."""
    with pytest.raises(ValueError, match="base address"):
        CartesiaTtsConfig(api_key="k", voice_id="v", base_url="ftp://example")
