"""The ElevenLabs provider against a fake of the service, over real sockets."""

import random
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.fakes.elevenlabs_tts import (
    CHAR_MS,
    CloseWith,
    FakeElevenLabsTts,
    Misfortune,
    Refuse,
    Report,
    Say,
    Trouble,
    serve_elevenlabs_tts,
    speech_of,
)
from tests.fakes.http_server import refusing_port
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText
from voice_fsm.tts.elevenlabs import ElevenLabsTts, ElevenLabsTtsConfig, open_elevenlabs_tts
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.http import Deadlines, open_client
from voice_fsm.upstream.retry import RetryPolicy

PCM = AudioFormat("pcm", 24000)
OPTIONS = TtsOptions()
TEXTS = ("Hello there.", "How are you today?", "I am fine.")
NO_RETRIES = RetryPolicy(max_retries=0)
BOTH_WAYS = pytest.mark.parametrize("mode", ["http", "websocket"])


@attrs.frozen
class Rig:
    """A provider and the service it asks."""

    tts: ElevenLabsTts
    fake: FakeElevenLabsTts

    async def say(self, pieces: AsyncIterable[str], options: TtsOptions = OPTIONS) -> list[Speech]:
        async with self.tts.speak(pieces, options) as speech:
            return [item async for item in speech]

    async def sockets_gone(self) -> None:
        """Wait until the service has seen all of its WebSockets end."""
        with trio.fail_after(5):
            await self.fake.streams_gone()

    async def idle_sockets_gone(self) -> None:
        """The same, once those have ended that waited for another reply."""
        await trio.sleep(self.tts._config.idle_socket_s)
        await self.sockets_gone()


@asynccontextmanager
async def rig(fake: FakeElevenLabsTts | None = None, **config: Any) -> AsyncIterator[Rig]:
    fake = fake or FakeElevenLabsTts()
    async with serve_elevenlabs_tts(fake) as url, open_client() as client:
        settings = {"api_key": fake.api_key, "voice_id": "voice-1", "base_url": url, **config}
        async with open_elevenlabs_tts(ElevenLabsTtsConfig(**settings), client) as tts:
            yield Rig(tts, fake)


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
            await trio.sleep(self._pause_s)


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
    """The text that alignments and announcements give, in order."""
    texts = ["".join(item.chars) for item in said if isinstance(item, Alignment)]
    return "".join(texts) or " ".join(item.text for item in said if isinstance(item, SpokenText))


def spoken(*texts: str, output_format: AudioFormat = PCM) -> bytes:
    return b"".join(speech_of(text, output_format) for text in texts)


def sent_to(fake: FakeElevenLabsTts) -> list[list[str]]:
    return [stream.texts for stream in fake.streams]


# --- a reply that is still being written --------------------------------------------------------------


async def test_a_streamed_reply_goes_over_one_socket(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Each piece is sent as it comes, to one context, and ends with a space; then the context is closed."""
    async with rig() as r:
        said = await r.say(Chat(nursery, *TEXTS))

        (stream,) = r.fake.streams
        (context_id,) = stream.contexts
        settings = {"voice_settings": {"stability": 0.9, "similarity_boost": 0.9}}
        assert stream.messages == [
            {"context_id": context_id, "text": f"{TEXTS[0]} ", "flush": True, **settings},
            *({"context_id": context_id, "text": f"{text} ", "flush": True} for text in TEXTS[1:]),
            {"context_id": context_id, "close_context": True},
        ]
        assert audio_of(said) == spoken(*(f"{text} " for text in TEXTS))
        assert not r.fake.requests


async def test_the_socket_is_asked_for_the_least_delay(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """The address holds model, format and modes, the first message alone the settings, a header the key."""
    options = TtsOptions(voice_settings=VoiceSettings(speed=1.1))
    async with rig() as r:
        await r.say(Chat(nursery, *TEXTS), options)

    (stream,) = r.fake.streams
    query = {name: values[0] for name, values in stream.handshake.query.items()}
    assert stream.handshake.path == "/v1/text-to-speech/voice-1/multi-stream-input"
    assert query == {
        "model_id": "eleven_turbo_v2_5",
        "output_format": "pcm_24000",
        "auto_mode": "true",
        "sync_alignment": "true",
        "inactivity_timeout": "180",
    }
    assert stream.handshake.headers["xi-api-key"] == r.fake.api_key
    assert stream.messages[0]["voice_settings"] == {"stability": 0.9, "similarity_boost": 0.9, "speed": 1.1}
    assert not any("voice_settings" in message for message in stream.messages[1:])


async def test_the_first_piece_is_heard_while_the_second_is_written(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """Audio of a short first clause waits neither for more text nor for the end."""
    async with rig() as r, r.tts.speak(Chat(nursery, "Sure!", "Gladly.", pause_s=5), OPTIONS) as speech:
        async for item in speech:
            if isinstance(item, SpeechAudio):
                break

        assert trio.current_time() % 1e9 == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("old_spelling", [False, True])
async def test_alignments_of_a_socket_run_on_one_clock(
    autojump_clock: Any, nursery: trio.Nursery, *, old_spelling: bool
) -> None:
    """Times that restart with every frame come out as milliseconds since the reply's first audio."""
    async with rig(FakeElevenLabsTts(old_spelling=old_spelling)) as r:
        said = await r.say(Chat(nursery, *TEXTS))

    alignments = [item for item in said if isinstance(item, Alignment)]
    starts_ms = [time for alignment in alignments for time in alignment.starts_ms]
    assert len(alignments) > len(TEXTS)
    assert text_of(said) == "".join(f"{text} " for text in TEXTS)
    assert starts_ms == pytest.approx([CHAR_MS * number for number in range(len(starts_ms))], abs=1)


async def test_alignments_may_come_ahead_of_their_audio(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Times in frames of their own go on from the times before them; nothing is announced twice."""
    async with rig(FakeElevenLabsTts(alignment_first=True, chunk_bytes=10**6)) as r:
        said = await r.say(Chat(nursery, *TEXTS))

    starts_ms = [time for item in said if isinstance(item, Alignment) for time in item.starts_ms]
    assert isinstance(said[0], Alignment)
    assert text_of(said) == "".join(f"{text} " for text in TEXTS)
    assert not any(isinstance(item, SpokenText) for item in said)
    assert starts_ms == pytest.approx([CHAR_MS * number for number in range(len(starts_ms))], abs=1)


@BOTH_WAYS
async def test_text_without_alignment_is_announced_before_its_audio(
    autojump_clock: Any, nursery: trio.Nursery, mode: str
) -> None:
    """Where the service gives no alignment, each text comes once, ahead of what says it."""
    async with rig(FakeElevenLabsTts(aligned=False), mode=mode) as r:
        said = await r.say(Chat(nursery, *TEXTS))

    texts = [item.text for item in said if isinstance(item, SpokenText)]
    assert texts == list(TEXTS)
    assert isinstance(said[0], SpokenText)
    assert not any(isinstance(item, Alignment) for item in said)


async def test_text_sent_before_the_first_audio_is_announced_together(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """Pieces that were all sent when the audio begins make one announcement, since no border is known."""
    async with rig(FakeElevenLabsTts(aligned=False, first_audio_s=5)) as r:
        said = await r.say(Chat(nursery, *TEXTS))

    assert [item for item in said if isinstance(item, SpokenText)] == [SpokenText(" ".join(TEXTS))]


@BOTH_WAYS
@pytest.mark.parametrize("chunk_bytes", [7, 4801])
async def test_audio_is_whole_samples(
    autojump_clock: Any, nursery: trio.Nursery, mode: str, chunk_bytes: int
) -> None:
    """Samples that the service cuts in two are put together again, and no chunk is empty."""
    async with rig(FakeElevenLabsTts(chunk_bytes=chunk_bytes), mode=mode) as r:
        said = await r.say(Chat(nursery, "Oh."), TtsOptions(output_format=AudioFormat("pcm", 8000)))

    sizes = [len(item.data) for item in said if isinstance(item, SpeechAudio)]
    assert all(size and size % 2 == 0 for size in sizes)
    assert sum(sizes) in (3 * 960, 4 * 960)  # the socket's text has a space at its end


async def test_a_slow_chat_is_no_stall(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """While the chat thinks, the context is kept alive, also if the service is less patient than asked."""
    async with rig(FakeElevenLabsTts(inactivity_s=15)) as r:
        said = await r.say(Chat(nursery, *TEXTS, pause_s=35))

        assert audio_of(said) == spoken(*(f"{text} " for text in TEXTS))
        assert r.fake.streams[-1].texts.count("") == 3 * 3
        assert len(r.fake.streams[-1].contexts) == 1


async def test_a_slow_listener_is_no_stall(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Time that the caller spends between two chunks does not count against the service."""
    async with rig() as r, r.tts.speak(Chat(nursery, *TEXTS), OPTIONS) as speech:
        sizes = []
        async for item in speech:
            await trio.sleep(30)
            if isinstance(item, SpeechAudio):
                sizes.append(len(item.data))

        assert sum(sizes) == len(spoken(*(f"{text} " for text in TEXTS)))


@pytest.mark.parametrize("texts", [(), (" ", "\n"), ("🙂", "…")])
@pytest.mark.parametrize("mode", ["auto", "http", "websocket"])
async def test_nothing_to_say_is_nothing_asked(
    autojump_clock: Any, nursery: trio.Nursery, mode: str, texts: tuple[str, ...]
) -> None:
    """A reply without anything that can be spoken ends in silence, and sends no text anywhere."""
    async with rig(mode=mode) as r:
        assert await r.say(Chat(nursery, *texts)) == []
        assert not r.fake.requests
        assert all(texts == [] for texts in sent_to(r.fake))
        await r.idle_sockets_gone()


# --- from reply to reply --------------------------------------------------------------------------------


async def hear_begin(r: Rig, pieces: AsyncIterable[str], options: TtsOptions = OPTIONS) -> None:
    """Listen until the first audio, then interrupt."""
    async with r.tts.speak(pieces, options) as speech:
        async for item in speech:
            if isinstance(item, SpeechAudio):
                return


LONG = "This is a long sentence that nobody wants to hear to its end."


async def test_replies_share_a_socket(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Each has a context with an id and settings of its own."""
    async with rig() as r:
        for number, text in enumerate(TEXTS):
            options = TtsOptions(voice_settings=VoiceSettings(speed=1 + number / 10))
            assert audio_of(await r.say(Chat(nursery, text), options)) == spoken(f"{text} ")
            await trio.sleep(100)

    (stream,) = r.fake.streams
    settings = [message["voice_settings"] for message in stream.messages if "voice_settings" in message]
    assert len(stream.contexts) == 3
    assert [item["speed"] for item in settings] == [1.0, 1.1, 1.2]


@pytest.mark.parametrize("old_spelling", [True, False])
async def test_what_a_closed_context_still_says_is_not_heard(
    autojump_clock: Any, nursery: trio.Nursery, *, old_spelling: bool
) -> None:
    """The socket goes on to serve: audio of the old turn that comes amid the new one's is dropped."""
    fake = FakeElevenLabsTts(between_chunks_s=0.1, old_spelling=old_spelling)
    async with rig(fake) as r:
        await hear_begin(r, Chat(nursery, LONG))
        said = await r.say(Chat(nursery, "Something else."))

        assert audio_of(said) == spoken("Something else. ")
        assert text_of(said) == "Something else. "
    (stream,) = fake.streams
    assert stream.closed == stream.contexts
    assert len(stream.contexts) == 2


async def test_a_socket_with_five_unfinished_contexts_is_given_up(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """The service would end it at the sixth; it counts those that are closed and still speak."""
    fake = FakeElevenLabsTts(between_chunks_s=1)
    async with rig(fake, retries=NO_RETRIES) as r:
        for _ in range(7):
            await hear_begin(r, Chat(nursery, LONG))

    assert [len(stream.contexts) for stream in fake.streams] == [5, 2]


@pytest.mark.parametrize("old_spelling", [True, False])
async def test_contexts_that_end_unheard_are_counted_off(
    autojump_clock: Any, nursery: trio.Nursery, *, old_spelling: bool
) -> None:
    """Their final frames are read while the socket waits, and amid another reply."""
    fake = FakeElevenLabsTts(between_chunks_s=0.1, old_spelling=old_spelling)
    async with rig(fake, retries=NO_RETRIES) as r:
        for _ in range(4):
            for _ in range(2):
                await hear_begin(r, Chat(nursery, LONG))
            await trio.sleep(9)
            for _ in range(2):
                await hear_begin(r, Chat(nursery, LONG))
            await r.say(Chat(nursery, LONG, LONG, LONG))

    (stream,) = fake.streams
    assert len(stream.contexts) == 4 * 5


async def test_a_context_is_closed_once(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A message to a context that is over would begin it again: one that was closed is left as it is."""
    fake = FakeElevenLabsTts(between_chunks_s=0.5)
    async with rig(fake) as r:
        with trio.move_on_after(2):
            await r.say(Chat(nursery, LONG))
        await trio.sleep(20)
        await r.say(Chat(nursery, "Hi."))

    (stream,) = fake.streams
    assert stream.closed == stream.contexts
    assert len(stream.contexts) == 2


async def test_audio_that_names_no_context_is_of_the_only_one(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """It is heard if nothing else can be meant, and dropped where an interrupted turn still speaks."""
    stray = Say('{"audio":"YWI="}')
    fake = FakeElevenLabsTts(troubles=[stray], between_chunks_s=0.5)
    async with rig(fake) as r:
        assert audio_of(await r.say(Chat(nursery, "Hi."))) == b"ab"

        await hear_begin(r, Chat(nursery, LONG))
        fake.troubles.extend([stray])
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, "Hi."))

    assert caught.value.code == "tts_bad_response"
    assert len(fake.streams) == 1


@pytest.mark.parametrize("trouble", [Report("quota_exceeded", "Used up."), CloseWith(1001), Say("no JSON")])
async def test_an_idle_socket_on_which_something_fails_is_given_up(
    autojump_clock: Any, nursery: trio.Nursery, trouble: Misfortune
) -> None:
    """What the service says of a turn that is over reaches no other turn."""
    fake = FakeElevenLabsTts(troubles=[trouble], first_audio_s=3)
    async with rig(fake, retries=NO_RETRIES) as r:
        with trio.move_on_after(2):
            await r.say(Chat(nursery, LONG))
        assert r.tts._pool.idle_count == 1
        await trio.sleep(3)
        assert r.tts._pool.idle_count == 0
        assert audio_of(await r.say(Chat(nursery, "Hi."))) == spoken("Hi. ")

    assert len(fake.streams) == 2


async def test_an_error_of_an_interrupted_turn_costs_the_next_a_socket(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """It is not told as the other's: that one is asked for again, over a socket of its own."""
    fake = FakeElevenLabsTts(troubles=[Report("quota_exceeded", "Used up.")], first_audio_s=3)
    async with rig(fake) as r:
        with trio.move_on_after(2):
            await r.say(Chat(nursery, LONG))
        assert audio_of(await r.say(Chat(nursery, "Hi."))) == spoken("Hi. ")

    assert [len(stream.contexts) for stream in fake.streams] == [2, 1]


async def test_sessions_that_are_answered_at_once_have_a_socket_each(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """One prewarmed socket serves one of them; the others' are opened while the chat thinks, and kept."""
    fake = FakeElevenLabsTts(between_chunks_s=0.05)
    heard: dict[str, bytes] = {}

    async def one(r: Rig, text: str) -> None:
        r.tts.prewarm(OPTIONS)
        heard[text] = audio_of(await r.say(Chat(nursery, text)))

    async with rig(fake) as r:
        for _ in range(2):
            heard.clear()
            async with trio.open_nursery() as all_at_once:
                for text in TEXTS:
                    all_at_once.start_soon(one, r, text)
            assert heard == {text: spoken(f"{text} ") for text in TEXTS}

    assert [len(stream.contexts) for stream in fake.streams] == [2, 2, 2]


# --- a reply that is known as a whole, or has no socket -----------------------------------------------


async def test_a_known_text_goes_over_http(autojump_clock: Any) -> None:
    """One request speaks it all, with the time of each character."""
    async with rig() as r:
        said = await r.say(known(*TEXTS))

    (request,) = r.fake.requests
    assert request.path == "/v1/text-to-speech/voice-1/stream/with-timestamps?output_format=pcm_24000"
    assert request.json() == {
        "text": " ".join(TEXTS),
        "model_id": "eleven_turbo_v2_5",
        "voice_settings": {"stability": 0.9, "similarity_boost": 0.9},
    }
    assert audio_of(said) == spoken(" ".join(TEXTS))
    assert text_of(said) == " ".join(TEXTS)
    assert not r.fake.streams


async def test_a_ready_socket_is_preferred_for_a_known_text(autojump_clock: Any) -> None:
    """A socket that is open anyhow is quicker than any request."""
    async with rig() as r:
        r.tts.prewarm(OPTIONS)
        await trio.sleep(1)
        await r.say(known(*TEXTS))

        assert not r.fake.requests
        assert len(r.fake.streams) == 1


async def test_a_known_text_that_is_too_long_for_one_request_is_streamed(autojump_clock: Any) -> None:
    """More than every model takes at once goes to the socket, piece by piece."""
    async with rig() as r:
        async with r.tts.speak(known(*["word " * 200] * 6), OPTIONS) as speech:
            await anext(aiter(speech))

        assert not r.fake.requests
        assert r.fake.streams[0].spoken[0] == "word " * 200


async def test_http_speaks_piece_by_piece_on_one_clock(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Each piece is a request that knows what was said before; times count from the reply's start."""
    async with rig(mode="http") as r:
        said = await r.say(Chat(nursery, *TEXTS))

    assert [request.json()["text"] for request in r.fake.requests] == list(TEXTS)
    assert [request.json().get("previous_text") for request in r.fake.requests] == [
        None,
        TEXTS[0],
        f"{TEXTS[0]} {TEXTS[1]}",
    ]
    assert audio_of(said) == spoken(*TEXTS)
    starts_ms = [time for item in said if isinstance(item, Alignment) for time in item.starts_ms]
    assert starts_ms == pytest.approx([CHAR_MS * number for number in range(len("".join(TEXTS)))])


async def test_a_model_without_socket_is_spoken_over_http(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """v3 gets no context, which it refuses, and one of the three stabilities that it knows."""
    async with rig(mode="websocket", model_id="eleven_v3") as r:
        r.tts.prewarm(OPTIONS)
        said = await r.say(Chat(nursery, *TEXTS))

    assert audio_of(said) == spoken(*TEXTS)
    assert not r.fake.streams
    assert r.fake.requests[1].json() == {
        "text": TEXTS[1],
        "model_id": "eleven_v3",
        "voice_settings": {"stability": 1.0, "similarity_boost": 0.9},
    }


async def test_without_alignment_http_streams_bare_audio(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Each text is announced, then its audio follows as it is."""
    async with rig(mode="http", alignment=False) as r:
        said = await r.say(Chat(nursery, *TEXTS))

    assert r.fake.requests[0].path == "/v1/text-to-speech/voice-1/stream?output_format=pcm_24000"
    assert [item.text for item in said if isinstance(item, SpokenText)] == list(TEXTS)
    assert audio_of(said) == spoken(*TEXTS)


# --- options ------------------------------------------------------------------------------------------


async def test_a_sessions_options_win_field_by_field(autojump_clock: Any) -> None:
    """What a session leaves open is the operator's, be it one setting of the voice."""
    options = TtsOptions(
        voice_id="voice-2",
        model_id="eleven_flash_v2.5",
        voice_settings=VoiceSettings(stability=0.2, use_speaker_boost=False),
    )
    async with rig(similarity_boost=0.7) as r:
        await r.say(known("Hi."), options)

    (request,) = r.fake.requests
    assert "/voice-2/" in request.path
    assert request.json()["model_id"] == "eleven_flash_v2_5"
    assert request.json()["voice_settings"] == {
        "stability": 0.2,
        "similarity_boost": 0.7,
        "use_speaker_boost": False,
    }


@pytest.mark.parametrize(
    ("name", "over_socket"),
    [
        ("pcm_8000", True),
        ("pcm_16000", True),
        ("pcm_22050", True),
        ("pcm_24000", True),
        ("pcm_32000", False),
        ("pcm_44100", True),
        ("pcm_48000", False),
        ("ulaw_8000", True),
        ("alaw_8000", True),
        ("mp3_22050_32", True),
        ("mp3_24000_48", False),
        ("mp3_44100_192", True),
        ("opus_48000_64", True),
    ],
)
async def test_formats_go_where_they_are_spoken(
    autojump_clock: Any, nursery: trio.Nursery, name: str, *, over_socket: bool
) -> None:
    """A format that the socket does not have is spoken over HTTP."""
    options = TtsOptions(output_format=AudioFormat.parse(name))
    async with rig() as r:
        r.tts.check(options)
        said = await r.say(Chat(nursery, "Hi."), options)

    assert bool(r.fake.streams) is over_socket
    assert bool(r.fake.requests) is not over_socket
    text = "Hi. " if over_socket else "Hi."
    assert audio_of(said) == spoken(text, output_format=options.output_format)


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (
            TtsOptions(output_format=AudioFormat("opus", 24000, 32)),
            "unsupported_format",
            "tts.output_format",
        ),
        (TtsOptions(voice_id="../v1/user"), "invalid_field", "tts.voice_id"),
        (TtsOptions(voice_id="a b"), "invalid_field", "tts.voice_id"),
        (
            TtsOptions(voice_settings=VoiceSettings(speed=3.0)),
            "invalid_field",
            "tts.voice_settings.speed",
        ),
        (
            TtsOptions(voice_settings=VoiceSettings(stability=-0.1)),
            "invalid_field",
            "tts.voice_settings.stability",
        ),
    ],
)
async def test_options_that_cannot_be_served_are_named(
    autojump_clock: Any, options: TtsOptions, code: str, field: str
) -> None:
    """`check` and `speak` refuse alike, naming the field, and nothing is asked of the service."""
    async with rig() as r:
        with pytest.raises(ClientError) as checked:
            r.tts.check(options)
        with pytest.raises(ClientError) as said:
            await r.say(known("Hi."), options)
        r.tts.prewarm(options)
        await trio.sleep(1)

        assert (checked.value.code, checked.value.field) == (code, field)
        assert (said.value.code, said.value.field) == (code, field)
        assert not r.fake.requests
        assert not r.fake.streams


def test_the_key_is_never_shown() -> None:
    """Neither the configuration nor an error about its address gives the key away."""
    config = ElevenLabsTtsConfig(api_key=" secret\n", voice_id="v", model_id="eleven_turbo_v2.5")

    assert config.api_key == "secret"
    assert "secret" not in repr(config)
    assert config.model_id == "eleven_turbo_v2_5"


@pytest.mark.parametrize("base_url", ["api.elevenlabs.io", "ftp://x", "wss://x", "https://"])
def test_a_base_address_must_be_http(base_url: str) -> None:
    """An address that cannot work is found when the configuration is made."""
    with pytest.raises(ValueError, match="address"):
        ElevenLabsTtsConfig(api_key="k", voice_id="v", base_url=base_url)


@BOTH_WAYS
async def test_a_key_that_no_header_can_hold_is_an_error_without_it(
    autojump_clock: Any, nursery: trio.Nursery, mode: str
) -> None:
    """A key with odd characters fails like a wrong one, and is not quoted."""
    async with rig(mode=mode, api_key="clé\nx") as r:
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, "Hi."))

    assert caught.value.code == "tts_auth_failed"
    assert "cl" not in str(caught.value).replace("service", "")


# --- faults -------------------------------------------------------------------------------------------

DEADLINES = Deadlines(connect_s=1, first_byte_s=2, stall_s=4, total_s=20)
QUOTA = {"status": "quota_exceeded", "message": "This request exceeds your quota."}
NEWER = {"type": "rate_limit_error", "code": "concurrent_limit_exceeded", "message": "m", "request_id": "r"}
LISTED = [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}]
CRASH = b'{"status":"internal_server_error","message":"Internal Server error."}'

REFUSALS: list[tuple[Misfortune, str]] = [
    (Refuse(400, {"status": "max_character_limit_exceeded"}), "tts_rejected"),
    (Refuse(400, {"status": "voice_not_found"}), "tts_rejected"),
    (Refuse(401, {"status": "invalid_api_key", "message": "Invalid API key"}), "tts_auth_failed"),
    (Refuse(401, {"status": "missing_permissions"}), "tts_auth_failed"),
    (Refuse(401, QUOTA), "tts_quota_exceeded"),
    (Refuse(401, {"status": "detected_unusual_activity"}), "tts_auth_failed"),
    (Refuse(403, {"status": "only_for_creator+"}), "tts_rejected"),
    (Refuse(403, "Forbidden"), "tts_auth_failed"),
    (Refuse(404, {"status": "voice_not_found"}), "tts_rejected"),
    (Refuse(422, LISTED), "tts_rejected"),
    (Refuse(429, {"status": "too_many_concurrent_requests"}), "tts_rate_limited"),
    (Refuse(429, NEWER), "tts_rate_limited"),
    (Refuse(429, {"status": "system_busy"}), "tts_overloaded"),
    (Refuse(429, body=b"slow down"), "tts_rate_limited"),
    (Refuse(500, body=CRASH), "tts_server_error"),
    (Refuse(503, body=b"<html>no"), "tts_overloaded"),
]
HTTP_FAULTS: list[tuple[Misfortune, str, float]] = [
    *((refusal, code, 0.0) for refusal, code in REFUSALS),
    (Trouble.HANG, "tts_timeout", 2),
    (Trouble.HANG_MIDWAY, "tts_stalled", 4),
    (Trouble.RESET, "tts_truncated", 0),
    (Trouble.RESET_MIDWAY, "tts_truncated", 0),
    (Trouble.CUT_MIDWAY, "tts_truncated", 0),
    (Trouble.CLOSE_MIDWAY, "tts_truncated", 0),
    (Trouble.GARBAGE, "tts_bad_response", 0),
    (Trouble.BAD_JSON_MIDWAY, "tts_bad_response", 0),
    (Trouble.BAD_BASE64, "tts_bad_response", 0),
    (Trouble.NO_AUDIO, "tts_bad_response", 0),
    (Trouble.DRIP, "tts_timeout", 20),
]
SOCKET_FAULTS: list[tuple[Misfortune, str, float]] = [
    *((refusal, code, 0.0) for refusal, code in REFUSALS),
    (Trouble.HANG, "tts_timeout", 2),
    (Trouble.HANG_IN_HANDSHAKE, "tts_timeout", 1),
    (Trouble.HANG_MIDWAY, "tts_stalled", 4),
    (Trouble.RESET, "tts_unreachable", 0),
    (Trouble.RESET_MIDWAY, "tts_truncated", 0),
    (Trouble.CUT_MIDWAY, "tts_truncated", 0),
    (Trouble.CLOSE_MIDWAY, "tts_truncated", 0),
    (Trouble.GARBAGE, "tts_bad_response", 0),
    (Trouble.BAD_JSON_MIDWAY, "tts_bad_response", 0),
    (Say('{"audio":"*not base64*"}'), "tts_bad_response", 0),
    (Trouble.NO_AUDIO, "tts_bad_response", 0),
    (Trouble.DRIP, "tts_timeout", 20),
    (Report("quota_exceeded", "This request exceeds your quota."), "tts_quota_exceeded", 0),
    (Report("invalid_api_key", "Invalid API key"), "tts_auth_failed", 0),
    (Report("unknown_code", "You are unauthorized."), "tts_auth_failed", 0),
    (Report("voice_not_found", "A voice was not found."), "tts_rejected", 0),
    (Report("max_active_conversations", "Maximum exceeded."), "tts_rate_limited", 0),
    (Report("input_timeout_exceeded", "Have not received."), "tts_truncated", 0),
    (Report("invalid_input_message", "Could not parse."), "tts_rejected", 0),
    (Report(None, "voice_settings field must be provided first."), "tts_rejected", 0),
    (CloseWith(1000), "tts_truncated", 0),
    (CloseWith(1001, "going away"), "tts_truncated", 0),
    (CloseWith(1008, "You have reached your quota."), "tts_quota_exceeded", 0),
    (CloseWith(1008, "voice_settings field"), "tts_rejected", 0),
    (CloseWith(1011, "internal"), "tts_server_error", 0),
    (CloseWith(1013, "try later"), "tts_overloaded", 0),
]


async def fail(
    mode: str, trouble: Misfortune, nursery: trio.Nursery, **config: Any
) -> tuple[ProviderError, float]:
    """Meet a trouble; gives the error, and how long it took from the first text on."""
    fake = FakeElevenLabsTts(troubles=[trouble])
    long_text = "This is a sentence that is long enough for several chunks of audio."
    async with rig(fake, mode=mode, deadlines=DEADLINES, retries=NO_RETRIES, **config) as r:
        began_s = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, long_text, pause_s=0))
        took_s = trio.current_time() - began_s
        assert len(fake.streams) + len(fake.requests) <= 1
        await r.sockets_gone()
    return caught.value, took_s


@pytest.mark.parametrize(("trouble", "code", "after_s"), HTTP_FAULTS, ids=str)
async def test_faults_over_http(
    autojump_clock: Any, nursery: trio.Nursery, trouble: Misfortune, code: str, after_s: float
) -> None:
    """Each way to fail has its code and its time, comes out ungrouped, and leaves no connection."""
    error, took_s = await fail("http", trouble, nursery)

    assert error.code == code
    assert took_s == pytest.approx(after_s, abs=0.3)


@pytest.mark.parametrize(
    ("trouble", "code", "after_s"),
    [
        *(fault for fault in HTTP_FAULTS if fault[0] not in (Trouble.BAD_JSON_MIDWAY, Trouble.BAD_BASE64)),
        (Refuse(200, body=b"{}"), "tts_bad_response", 0),
    ],
    ids=str,
)
async def test_faults_over_http_without_alignment(
    autojump_clock: Any, nursery: trio.Nursery, trouble: Misfortune, code: str, after_s: float
) -> None:
    """Bare audio fails in the same ways as lines of JSON."""
    error, took_s = await fail("http", trouble, nursery, alignment=False)

    assert error.code == code
    assert took_s == pytest.approx(after_s, abs=0.3)


async def test_the_last_line_needs_no_end(autojump_clock: Any) -> None:
    """A line that is ended by the answer's end counts."""
    fake = FakeElevenLabsTts(troubles=[Refuse(200, body=b'{"audio_base64":"YWI="}')])
    async with rig(fake) as r:
        assert await r.say(known("Hi.")) == [SpokenText("Hi."), SpeechAudio(b"ab")]


async def test_a_line_without_end_is_given_up(nursery: trio.Nursery) -> None:
    """An answer that never breaks its line does not fill the memory."""
    error, _ = await fail("http", Refuse(200, body=bytes(17 * 1024 * 1024)), nursery)

    assert error.code == "tts_bad_response"


@pytest.mark.parametrize(("trouble", "code", "after_s"), SOCKET_FAULTS, ids=str)
async def test_faults_over_a_socket(
    autojump_clock: Any, nursery: trio.Nursery, trouble: Misfortune, code: str, after_s: float
) -> None:
    """Each way to fail has its code and its time, comes out ungrouped, and leaves no socket."""
    error, took_s = await fail("websocket", trouble, nursery)

    assert error.code == code
    assert took_s == pytest.approx(after_s, abs=0.3)


@BOTH_WAYS
async def test_nobody_there(autojump_clock: Any, nursery: trio.Nursery, mode: str) -> None:
    """A port on which nobody listens is unreachable at once."""
    async with (
        refusing_port() as port,
        rig(mode=mode, base_url=f"http://127.0.0.1:{port}", retries=NO_RETRIES) as r,
    ):
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, "Hi."))

    assert caught.value.code == "tts_unreachable"


@BOTH_WAYS
async def test_errors_help_the_operator_and_hide_the_rest(
    autojump_clock: Any, nursery: trio.Nursery, mode: str
) -> None:
    """Status, field and the service's name of the request are kept; neither its words nor the key."""
    refusal = Refuse(404, {"status": "voice_not_found", "message": "sesame"}, headers={"x-trace-id": "t-9"})
    error, _ = await fail(mode, refusal, nursery)

    assert (error.status, error.field, error.request_id) == (404, "tts.voice_id", "t-9")
    assert not error.retryable
    assert "sesame" not in f"{error} {error.message} {error.__cause__}"


@pytest.mark.parametrize("trouble", [Trouble.CLOSE_MIDWAY, Say('{"audio":"AAAA","isFinal":true}')])
async def test_an_end_between_two_pieces_is_an_error(
    autojump_clock: Any, nursery: trio.Nursery, trouble: Misfortune
) -> None:
    """A clean end while the chat still writes would lose the rest of the reply."""
    fake = FakeElevenLabsTts(troubles=[trouble], chunk_bytes=10**6)
    async with rig(fake, retries=NO_RETRIES) as r:
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, *TEXTS, pause_s=9))

    assert caught.value.code == "tts_truncated"


async def test_a_close_is_told_though_nobody_was_listening(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """Text that is written to a closed socket while the listener is busy ends like any broken reply."""
    fake = FakeElevenLabsTts(troubles=[Trouble.CLOSE_MIDWAY])
    async with rig(fake) as r:

        async def listen_slowly() -> None:
            async with r.tts.speak(Chat(nursery, *TEXTS, pause_s=1), OPTIONS) as speech:
                async for _ in speech:
                    await trio.sleep(5)

        with pytest.raises(ProviderError) as caught:
            await listen_slowly()

    assert caught.value.code == "tts_truncated"


async def test_text_sent_between_two_waits_is_waited_for(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A deadline begins with the text, though nothing was owed when the wait for the service began."""
    fake = FakeElevenLabsTts(troubles=[Trouble.HANG])
    async with rig(fake, deadlines=DEADLINES, retries=NO_RETRIES) as r:
        began_s = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, *TEXTS, pause_s=60))

    assert caught.value.code == "tts_timeout"
    assert trio.current_time() - began_s == pytest.approx(62, abs=0.3)


# --- trying again -------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize(
    "trouble", [Trouble.RESET, Refuse(429, {"status": "system_busy"}), Refuse(500, body=CRASH)], ids=str
)
async def test_what_fails_before_any_audio_is_tried_again(
    autojump_clock: Any, nursery: trio.Nursery, mode: str, trouble: Misfortune
) -> None:
    """The listener notices nothing but the delay."""
    fake = FakeElevenLabsTts(troubles=[trouble, trouble], aligned=False)
    async with rig(fake, mode=mode) as r:
        said = await r.say(Chat(nursery, "Hello there."))

    assert audio_of(said) == spoken("Hello there. " if mode == "websocket" else "Hello there.")
    assert [item for item in said if isinstance(item, SpokenText)] == [SpokenText("Hello there.")]


async def test_a_second_socket_gets_all_the_text_again(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Text sent to a socket that broke before it spoke is not lost, and is said once."""
    fake = FakeElevenLabsTts(troubles=[CloseWith(1001)], aligned=False, first_audio_s=3)
    async with rig(fake) as r:
        said = await r.say(Chat(nursery, *TEXTS, pause_s=1))

    assert sent_to(fake)[1] == [f"{text} " for text in TEXTS]
    assert audio_of(said) == spoken(*(f"{text} " for text in TEXTS))
    assert text_of(said) == " ".join(TEXTS)


@BOTH_WAYS
async def test_what_was_heard_is_not_said_again(
    autojump_clock: Any, nursery: trio.Nursery, mode: str
) -> None:
    """After audio a break is an error, whatever else would be possible."""
    fake = FakeElevenLabsTts(troubles=[Trouble.RESET_MIDWAY])
    async with rig(fake, mode=mode) as r:
        with pytest.raises(ProviderError) as caught:
            await r.say(Chat(nursery, "Hello there."))

    assert caught.value.code == "tts_truncated"
    assert len(fake.streams) + len(fake.requests) == 1


async def test_every_attempt_has_a_socket_of_its_own(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A socket whose stream went wrong is not used again, though it is still open."""
    fake = FakeElevenLabsTts(troubles=[Say('{"audio":null,"isFinal":true}')])
    async with rig(fake) as r:
        said = await r.say(Chat(nursery, *TEXTS))

    assert audio_of(said) == spoken(*(f"{text} " for text in TEXTS))
    assert len(fake.streams) == 2


async def test_a_socket_that_died_while_the_chat_thought_costs_no_attempt(autojump_clock: Any) -> None:
    """The first text goes to a socket that is open, though the one that waited for it was closed."""

    async def pieces() -> AsyncIterator[str]:
        await trio.sleep(8)
        yield "Hello there."

    fake = FakeElevenLabsTts(inactivity_s=5)
    async with rig(fake, retries=NO_RETRIES) as r:
        said = await r.say(pieces())

    assert audio_of(said) == spoken("Hello there. ")
    assert sent_to(fake) == [[], ["Hello there. "]]


async def test_a_pause_that_is_asked_for_is_kept(autojump_clock: Any) -> None:
    """Retry-After sets the time of the second attempt."""
    fake = FakeElevenLabsTts(troubles=[Refuse(429, "busy", headers={"Retry-After": "2"})])
    async with rig(fake, mode="http") as r:
        began_s = trio.current_time()
        await r.say(known("Hi."))

    assert trio.current_time() - began_s == pytest.approx(2, abs=0.1)


async def test_a_wrong_key_is_not_tried_again(autojump_clock: Any) -> None:
    """What cannot succeed is asked once."""
    async with rig(mode="http", api_key="wrong") as r:
        with pytest.raises(ProviderError):
            await r.say(known("Hi."))

    assert len(r.fake.requests) == 1


# --- errors of others, groups -------------------------------------------------------------------------


@BOTH_WAYS
async def test_an_error_of_the_text_comes_out_bare(autojump_clock: Any, mode: str) -> None:
    """A chat that fails in the middle of its reply is told as it is."""

    async def pieces() -> AsyncIterator[str]:
        yield "Hello there."
        await trio.sleep(1)
        raise provider_error(Upstream.CHAT, ProviderFault.STALLED)

    async with rig(mode=mode) as r:
        with pytest.raises(ProviderError) as caught:
            await r.say(pieces())

        assert caught.value.code == "chat_stalled"
        await r.idle_sockets_gone()


async def test_an_error_arrives_while_the_listener_is_busy(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """A failing text ends the context though nobody asks for more speech."""

    async def pieces() -> AsyncIterator[str]:
        yield "Hello there."
        await trio.sleep(1)
        raise provider_error(Upstream.CHAT, ProviderFault.STALLED)

    async with rig() as r:

        async def listen_and_wait() -> None:
            with trio.fail_after(5):
                async with r.tts.speak(pieces(), OPTIONS) as speech:
                    await anext(aiter(speech))
                    await trio.sleep_forever()

        with pytest.raises(ProviderError):
            await listen_and_wait()
        await r.idle_sockets_gone()
    assert r.fake.streams[0].closed == r.fake.streams[0].contexts


async def test_a_fault_of_ours_is_not_taken_for_the_services(autojump_clock: Any) -> None:
    """An exception that is no `ProviderError` is not hidden behind one."""

    async def pieces() -> AsyncIterator[str]:
        yield "Hello there."
        raise ZeroDivisionError

    async with rig() as r:
        with pytest.raises((ZeroDivisionError, ExceptionGroup)) as caught:
            await r.say(pieces())

    assert "ZeroDivisionError" in repr(caught.value)


# --- leaving ------------------------------------------------------------------------------------------


@BOTH_WAYS
async def test_leaving_ends_the_call_at_once(autojump_clock: Any, nursery: trio.Nursery, mode: str) -> None:
    """A barge-in takes a tenth of a second at most: a request is broken off, a context closed."""
    fake = FakeElevenLabsTts(between_chunks_s=1)
    async with rig(fake, mode=mode) as r:
        async with r.tts.speak(Chat(nursery, *TEXTS), OPTIONS) as speech:
            async for item in speech:
                if isinstance(item, SpeechAudio):
                    break
            left_s = trio.current_time()
        assert trio.current_time() - left_s <= 0.11

        await fake.http.wait_until(lambda server: server.live_connections == 0)
        assert fake.live_streams == (mode == "websocket")
        await r.idle_sockets_gone()
    assert all(stream.closed == stream.contexts for stream in fake.streams)


async def test_a_service_that_fell_silent_is_left_too(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A socket whose peer takes no notice of anything is not waited for, and soon found out."""
    async with rig(FakeElevenLabsTts(troubles=[Trouble.DEAF])) as r:
        with trio.move_on_after(5):
            await r.say(Chat(nursery, *TEXTS))

        assert trio.current_time() % 1e9 <= 5.11
        await trio.sleep(15)
        assert r.tts._pool.idle_count == 0


@BOTH_WAYS
async def test_cancelling_at_any_moment_leaves_nothing(
    autojump_clock: Any, nursery: trio.Nursery, mode: str
) -> None:
    """200 replies, each left at a random moment: no socket, task or connection stays."""
    chance = random.Random(7)
    fake = FakeElevenLabsTts(first_audio_s=0.05, between_chunks_s=0.06, chunk_bytes=6001)
    options = TtsOptions(output_format=AudioFormat("pcm", 8000))
    reached_audio = 0
    async with rig(fake, mode=mode) as r:
        for _ in range(200):
            if chance.random() < 0.5:
                r.tts.prewarm(options)
            leave_at_s = trio.current_time() + chance.uniform(0, 0.6)
            with trio.move_on_at(leave_at_s):
                async with r.tts.speak(Chat(nursery, *TEXTS), options) as speech:
                    async for item in speech:
                        reached_audio += isinstance(item, SpeechAudio)
            assert trio.current_time() <= leave_at_s + 0.25

        assert reached_audio > 200
        assert r.tts._pool.idle_count <= 16
        await trio.sleep(200)
        assert r.tts._pool.idle_count == 0
        await r.sockets_gone()
        assert not r.tts._client._transport.busy  # type: ignore[attr-defined]  # HttpPool's
