"""What every provider on the network has to do alike, against a fake of each service over real sockets."""

import random
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import attrs
import numpy as np
import pytest
import trio

from tests.fakes.cartesia import FakeCartesia, serve_cartesia
from tests.fakes.deepgram_tts import FakeDeepgramTts, serve_deepgram_tts
from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.http_server import refusing_port
from tests.fakes.openai_tts import FakeOpenAiTts, serve_openai_tts
from tests.fakes.troubles import Misfortune, Refuse, Say, Trouble
from voice_fsm.audio import PCM_RATES_HZ, AudioFormat
from voice_fsm.errors import ClientError, ProviderError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText, TtsProvider
from voice_fsm.tts.cartesia import CartesiaTtsConfig, open_cartesia_tts
from voice_fsm.tts.deepgram import DeepgramTtsConfig, open_deepgram_tts
from voice_fsm.tts.openai import OpenAiTtsConfig, open_openai_tts
from voice_fsm.upstream.http import Deadlines, open_client
from voice_fsm.upstream.retry import RetryPolicy

PCM = AudioFormat("pcm", 24000)
OPTIONS = TtsOptions()
TEXTS = ("Hello there.", "How are you today?", "I am fine.")
DEADLINES = Deadlines(connect_s=2, first_byte_s=5, stall_s=4, total_s=25)


class Service(Protocol):
    """What the fakes have in common."""

    api_key: str
    chunk_bytes: int
    first_audio_s: float
    between_chunks_s: float
    troubles: Any

    @property
    def spoken(self) -> list[str]:
        """The texts that were asked for."""

    async def gone(self) -> None:
        """Wait until no socket is open, and no more than one HTTP connection, for later."""


@attrs.frozen
class Rig:
    """A provider and the service it asks."""

    tts: TtsProvider
    fake: Service

    async def say(self, pieces: AsyncIterable[str], options: TtsOptions = OPTIONS) -> list[Speech]:
        async with self.tts.speak(pieces, options) as speech:
            return [item async for item in speech]


Open = Callable[..., AbstractAsyncContextManager[Rig]]


@attrs.frozen
class Way:
    """A provider, by one of the ways in which it asks."""

    name: str
    open: Open
    options: TtsOptions = OPTIONS
    is_socket: bool = False


@asynccontextmanager
async def open_openai(**config: Any) -> AsyncIterator[Rig]:
    fake = FakeOpenAiTts()
    async with serve_openai_tts(fake) as url, open_client(verify=False) as client:
        settings = {"api_key": fake.api_key, "base_url": url, "deadlines": DEADLINES, **config}
        async with open_openai_tts(OpenAiTtsConfig(**settings), client) as tts:
            yield Rig(tts, fake)


@asynccontextmanager
async def open_cartesia(**config: Any) -> AsyncIterator[Rig]:
    fake = FakeCartesia()
    async with serve_cartesia(fake) as url, open_client(verify=False) as client:
        settings = {"api_key": fake.api_key, "voice_id": "voice-1", "base_url": url, **config}
        async with open_cartesia_tts(CartesiaTtsConfig(deadlines=DEADLINES, **settings), client) as tts:
            yield Rig(tts, fake)


@asynccontextmanager
async def open_deepgram(**config: Any) -> AsyncIterator[Rig]:
    fake = FakeDeepgramTts()
    async with serve_deepgram_tts(fake) as url, open_client(verify=False) as client:
        settings = {"api_key": fake.api_key, "base_url": url, "deadlines": DEADLINES, **config}
        async with open_deepgram_tts(DeepgramTtsConfig(**settings), client) as tts:
            yield Rig(tts, fake)


MP3 = TtsOptions(output_format=AudioFormat.parse("mp3_44100_128"))
OPUS = TtsOptions(output_format=AudioFormat.parse("opus_48000_64"))
WAYS = (
    Way("openai", open_openai),
    Way("cartesia", open_cartesia, is_socket=True),
    Way("cartesia over HTTP", open_cartesia, MP3),
    Way("deepgram", open_deepgram, is_socket=True),
    Way("deepgram over HTTP", open_deepgram, OPUS),
)
SOCKET_WAYS = tuple(way for way in WAYS if way.is_socket)
HTTP_WAYS = tuple(way for way in WAYS if not way.is_socket)


def each(ways: tuple[Way, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", ways, ids=lambda way: way.name)


class Chat:
    """Text that is written over time: each piece after its pause."""

    def __init__(self, nursery: trio.Nursery, *texts: str, pause_s: float = 0.1) -> None:
        self._write, self._read = trio.open_memory_channel[str](0)
        self._pause_s = pause_s
        nursery.start_soon(self._run, texts)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._read

    async def _run(self, texts: tuple[str, ...]) -> None:
        with self._write:
            for text in texts:
                await trio.sleep(self._pause_s)
                await self._write.send(text)


def known(*texts: str) -> AsyncIterable[str]:
    """Text that is there as a whole."""
    write, read = trio.open_memory_channel[str](len(texts))
    for text in texts:
        write.send_nowait(text)
    write.close()
    return read


def audio_of(said: list[Speech]) -> bytes:
    return b"".join(item.data for item in said if isinstance(item, SpeechAudio))


def text_of(said: list[Speech]) -> str:
    """The text that alignments or announcements give, in order."""
    texts = ["".join(item.chars) for item in said if isinstance(item, Alignment)]
    return "".join(texts).strip() or " ".join(item.text for item in said if isinstance(item, SpokenText))


def spoken(fake: Service, *texts: str, output_format: AudioFormat = PCM) -> bytes:
    """The audio of the texts, as the service was asked for them: some send spaces along."""
    asked = {text.strip(): text for text in fake.spoken}
    return b"".join(speech_of(asked[text], output_format) for text in texts)


# --- a reply ------------------------------------------------------------------------------------------


@each(WAYS)
@pytest.mark.parametrize("chunk_bytes", [333, 4801])
async def test_a_reply_is_spoken_whole(
    autojump_clock: Any, nursery: trio.Nursery, way: Way, chunk_bytes: int
) -> None:
    """Every piece is heard once and told of, in whole samples, whatever the borders of chunks."""
    async with way.open() as r:
        r.fake.chunk_bytes = chunk_bytes
        said = await r.say(Chat(nursery, *(TEXTS if chunk_bytes > 333 else ("Oh.",))), way.options)

        texts = TEXTS if chunk_bytes > 333 else ("Oh.",)
        assert audio_of(said) == spoken(r.fake, *texts, output_format=way.options.output_format)
        assert text_of(said) == " ".join(texts)
        if not any(isinstance(item, Alignment) for item in said):
            assert isinstance(said[0], SpokenText)
        size = way.options.output_format.bytes_per_sample
        chunks = [item.data for item in said if isinstance(item, SpeechAudio)]
        assert all(chunk and len(chunk) % size == 0 for chunk in chunks)


@each(WAYS)
async def test_the_first_piece_is_heard_while_the_second_is_written(
    autojump_clock: Any, nursery: trio.Nursery, way: Way
) -> None:
    """Audio of a short first clause waits neither for more text nor for the end."""
    began_s = trio.current_time()
    async with (
        way.open() as r,
        r.tts.speak(Chat(nursery, "Sure!", "Gladly.", pause_s=3), way.options) as speech,
    ):
        async for item in speech:
            if isinstance(item, SpeechAudio):
                break

        assert trio.current_time() - began_s == pytest.approx(3, abs=0.2)


@each(WAYS)
async def test_a_slow_chat_is_no_stall(autojump_clock: Any, nursery: trio.Nursery, way: Way) -> None:
    """While the chat thinks, no deadline runs."""
    async with way.open() as r:
        said = await r.say(Chat(nursery, *TEXTS, pause_s=35), way.options)

        assert audio_of(said) == spoken(r.fake, *TEXTS, output_format=way.options.output_format)


@each(WAYS)
@pytest.mark.parametrize("texts", [(), (" ", "\n"), ("🙂", "…")])
async def test_nothing_to_say_is_nothing_asked(
    autojump_clock: Any, nursery: trio.Nursery, way: Way, texts: tuple[str, ...]
) -> None:
    """A reply without anything that can be spoken ends in silence, and sends no text anywhere."""
    async with way.open() as r:
        assert await r.say(Chat(nursery, *texts), way.options) == []
        assert r.fake.spoken == []


FORMATS = (*(f"pcm_{rate_hz}" for rate_hz in PCM_RATES_HZ), "ulaw_8000", "mp3_44100_128")


@each(tuple(way for way in WAYS if way.options is OPTIONS))
@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_is_spoken(autojump_clock: Any, way: Way, name: str) -> None:
    """PCM of any rate, mu-law and MP3 come out as long as the speech is, from whatever the service gives."""
    options = TtsOptions(output_format=AudioFormat.parse(name))
    async with way.open() as r:
        r.tts.check(options)
        audio = audio_of(await r.say(known(*TEXTS), options))

        expected = len(spoken(r.fake, *TEXTS, output_format=options.output_format))
        tolerance = 0.1 if name.startswith("mp3") else 0.001
        assert len(audio) == pytest.approx(expected, rel=tolerance)
        if name.startswith("pcm"):
            loudness = np.sqrt(np.mean(np.frombuffer(audio, "<i2").astype(float) ** 2))
            assert loudness == pytest.approx(8000 / np.sqrt(2), rel=0.02)


@each(WAYS)
async def test_what_cannot_be_spoken_is_refused_early(way: Way) -> None:
    """Formats that nobody makes, and paces that the voice does not have, name their field."""
    async with way.open() as r:
        for options, field in (
            (TtsOptions(output_format=AudioFormat.parse("opus_16000_16")), "tts.output_format"),
            (TtsOptions(voice_settings=VoiceSettings(speed=9)), "tts.voice_settings.speed"),
        ):
            with pytest.raises(ClientError) as caught:
                r.tts.check(options)
            assert caught.value.field == field
            r.tts.prewarm(options)


# --- a service that fails -----------------------------------------------------------------------------


@attrs.frozen
class Fault:
    trouble: Misfortune
    code: str
    calls: int = 1
    """How often the service was asked: retries are made before audio was heard, and where they may help."""
    after_audio: bool = False


RETRIED = 3
FAULTS = (
    Fault(Refuse(400), "tts_rejected"),
    Fault(Refuse(401), "tts_auth_failed"),
    Fault(Refuse(402), "tts_quota_exceeded"),
    Fault(Refuse(403), "tts_auth_failed"),
    Fault(Refuse(404), "tts_rejected"),
    Fault(Refuse(422), "tts_rejected"),
    Fault(Refuse(429, headers={"Retry-After": "1"}), "tts_rate_limited", RETRIED),
    Fault(Refuse(429, headers={"Retry-After": "30"}), "tts_rate_limited"),
    Fault(Refuse(500), "tts_server_error", RETRIED),
    Fault(Refuse(503), "tts_overloaded", RETRIED),
    Fault(Trouble.HANG, "tts_timeout"),
    Fault(Trouble.GARBAGE, "tts_bad_response"),
    Fault(Trouble.NO_AUDIO, "tts_bad_response"),
    Fault(Trouble.HANG_MIDWAY, "tts_stalled", after_audio=True),
    Fault(Trouble.RESET_MIDWAY, "tts_truncated", after_audio=True),
    Fault(Trouble.CUT_MIDWAY, "tts_truncated", after_audio=True),
    Fault(Trouble.CLOSE_MIDWAY, "tts_truncated", after_audio=True),
    Fault(Trouble.GARBAGE_MIDWAY, "tts_bad_response", after_audio=True),
    Fault(Trouble.DRIP, "tts_timeout", after_audio=True),
)
OF_HTTP = (
    Fault(Trouble.RESET, "tts_truncated", RETRIED),
    Fault(Say('{"error": "no"}'), "tts_bad_response"),
    Fault(Say("<html>", "text/html"), "tts_bad_response"),
)
OF_SOCKETS = (
    Fault(Trouble.RESET, "tts_unreachable", RETRIED),
    Fault(Trouble.HANG_IN_HANDSHAKE, "tts_timeout"),
    Fault(Say("no JSON"), "tts_bad_response"),
)
ROWS = [
    pytest.param(way, fault, id=f"{way.name}-{fault.trouble}")
    for way in WAYS
    for fault in (*FAULTS, *(OF_SOCKETS if way.is_socket else OF_HTTP))
]


@pytest.mark.parametrize(("way", "fault"), ROWS)
async def test_faults_are_told(autojump_clock: Any, nursery: trio.Nursery, way: Way, fault: Fault) -> None:
    """Each has its code; before the first audio it is tried again where that may help, after it never."""
    items: list[Speech] = []

    async def listen(r: Rig) -> None:
        async with r.tts.speak(Chat(nursery, *TEXTS), way.options) as speech:
            async for item in speech:
                items.append(item)  # noqa: PERF401  # what came before the error counts

    async with way.open() as r:
        r.fake.troubles.extend([fault.trouble] * 5)
        with pytest.raises(ProviderError) as caught:
            await listen(r)

        assert caught.value.code == fault.code
        assert bool(audio_of(items)) == fault.after_audio
        assert 5 - len(r.fake.troubles) == fault.calls
        r.fake.troubles.clear()
        again = await r.say(known("Hello again."), way.options)
        assert audio_of(again) == spoken(r.fake, "Hello again.", output_format=way.options.output_format)
        await way_is_free(r)


async def way_is_free(r: Rig) -> None:
    """Wait until nothing is left of the replies; a pool may keep an idle connection."""
    await trio.sleep(300)  # idle connections are given up by then
    with trio.fail_after(5):
        await r.fake.gone()


@each(WAYS)
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("trouble", [Refuse(429, headers={"Retry-After": "0.5"}), Refuse(500), Trouble.RESET])
async def test_a_retry_that_helps_is_not_noticed(
    autojump_clock: Any, nursery: trio.Nursery, way: Way, trouble: Misfortune, *, is_known: bool
) -> None:
    """The reply is whole, and each piece is heard once, be it written by then or not."""
    async with way.open() as r:
        r.fake.troubles.append(trouble)
        said = await r.say(known(*TEXTS) if is_known else Chat(nursery, *TEXTS), way.options)

        assert audio_of(said) == spoken(r.fake, *TEXTS, output_format=way.options.output_format)
        assert text_of(said) == " ".join(TEXTS)


@each(WAYS)
async def test_nobody_there_is_unreachable(autojump_clock: Any, way: Way) -> None:
    """A refused connection is told as such."""
    async with refusing_port() as port:
        address = f"http://127.0.0.1:{port}"
        async with way.open(base_url=address, retries=RetryPolicy(max_retries=0)) as r:
            with pytest.raises(ProviderError) as caught:
                await r.say(known("Hello."), way.options)

    assert caught.value.code == "tts_unreachable"


@each(WAYS)
async def test_a_wrong_key_is_told_without_it(autojump_clock: Any, way: Way) -> None:
    """The service's refusal and a key that no header can hold are the same to the client."""
    for key in ("sk-wrong", "sk-geheim-ä", "sk\nsplit"):
        async with way.open(api_key=key) as r:
            with pytest.raises(ProviderError) as caught:
                await r.say(known("Hello."), way.options)
        assert caught.value.code == "tts_auth_failed"
        assert key not in str(caught.value)
        assert key not in repr(r.tts)


# --- leaving ------------------------------------------------------------------------------------------


@each(WAYS)
async def test_a_reply_that_was_left_is_not_heard_in_the_next(
    autojump_clock: Any, nursery: trio.Nursery, way: Way
) -> None:
    """Leaving midway takes no time, and the next reply is its own text alone."""
    async with way.open() as r:
        r.fake.between_chunks_s = 0.5
        async with r.tts.speak(Chat(nursery, *TEXTS), way.options) as speech:
            async for item in speech:
                if isinstance(item, SpeechAudio):
                    break
            left_s = trio.current_time()
        assert trio.current_time() - left_s <= 0.15

        r.fake.between_chunks_s = 0.0
        said = await r.say(known("Something else."), way.options)
        assert audio_of(said) == spoken(r.fake, "Something else.", output_format=way.options.output_format)
        assert text_of(said) == "Something else."


@each(WAYS)
async def test_leaving_at_any_moment_leaves_nothing(
    autojump_clock: Any, nursery: trio.Nursery, way: Way
) -> None:
    """15 replies, each left at a random moment, every third followed by one that is heard whole."""
    chance = random.Random(7)
    options = way.options
    heard = 0
    async with way.open() as r:
        r.fake.first_audio_s, r.fake.between_chunks_s, r.fake.chunk_bytes = 0.05, 0.04, 12001
        for number in range(15):
            if chance.random() < 0.5:
                r.tts.prewarm(options)
            leave_at_s = trio.current_time() + chance.uniform(0, 0.6)
            with trio.move_on_at(leave_at_s):
                async with r.tts.speak(Chat(nursery, *TEXTS), options) as speech:
                    async for item in speech:
                        heard += isinstance(item, SpeechAudio)
            assert trio.current_time() <= leave_at_s + 0.25
            if number % 3 == 0:
                said = await r.say(known("And now this."), options)
                assert audio_of(said) == spoken(r.fake, "And now this.", output_format=options.output_format)

        assert heard > 8
        await way_is_free(r)
