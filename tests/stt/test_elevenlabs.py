import base64
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import hypothesis
import hypothesis.strategies as st
import pytest
import structlog.testing
import trio
import trio.testing

from tests.bench.frames import accept_key
from tests.fakes.elevenlabs_stt import (
    PATH,
    Action,
    FakeElevenLabsStt,
    FakeSession,
    Moment,
    Utterance,
    break_off,
    close,
    drip_out,
    hang,
    report,
    say,
    send_broken_json,
    send_garbage,
    stay_silent,
)
from tests.fakes.sockets import in_memory, open_sockets, serve
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.events import Word
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, SttLink, SttProvider, Transcript
from voice_fsm.stt.elevenlabs import ElevenLabsStt, ElevenLabsSttConfig
from voice_fsm.upstream.websocket import Dial, background_nursery
from voice_fsm.wire.frames import TEXT, FrameReader, encode_frame

SECOND = bytes(range(256)) * 125
"""A second of PCM at 16 kHz that is not silence."""
MANUAL = SttOptions(commit_strategy="manual")

ERRORS = [
    ("error", ProviderFault.SERVER_ERROR, True),
    ("auth_error", ProviderFault.AUTH_FAILED, False),
    ("quota_exceeded", ProviderFault.QUOTA_EXCEEDED, False),
    ("unaccepted_terms", ProviderFault.REJECTED, False),
    ("commit_throttled", ProviderFault.LOST, True),
    ("rate_limited", ProviderFault.RATE_LIMITED, True),
    ("queue_overflow", ProviderFault.OVERLOADED, True),
    ("resource_exhausted", ProviderFault.OVERLOADED, True),
    ("session_time_limit_exceeded", ProviderFault.LOST, True),
    ("input_error", ProviderFault.REJECTED, False),
    ("invalid_request", ProviderFault.REJECTED, False),
    ("chunk_size_exceeded", ProviderFault.REJECTED, False),
    ("insufficient_audio_activity", ProviderFault.LOST, True),
    ("transcriber_error", ProviderFault.SERVER_ERROR, True),
]


def pcm(duration_s: float) -> bytes:
    """Audio at 16 kHz, of at most a second."""
    return SECOND[: int(duration_s * 16000) * 2]


def provider(dial: Dial, **config: Any) -> ElevenLabsStt:
    settings = {"api_key": "the-key", "base_url": "http://fake:9", **config}
    return ElevenLabsStt(ElevenLabsSttConfig(**settings), dial=dial)


class Followed:
    """A link of which a task takes the transcripts all the time, as a session's does."""

    def __init__(self, link: SttLink) -> None:
        self.session_id, self.config = link.session_id, link.config
        self.send, self.send_now, self.commit = link.send, link.send_now, link.commit
        self._link = link
        self._taken, self._transcripts = trio.open_memory_channel[Transcript](math.inf)
        self._failure: ProviderError | None = None

    async def follow(self) -> None:
        with self._taken:
            try:
                async for transcript in self._link:
                    self._taken.send_nowait(transcript)
            except ProviderError as error:
                self._failure = error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transcript:
        try:
            return await self._transcripts.receive()
        except trio.EndOfChannel:
            raise self._failure or StopAsyncIteration from None


@asynccontextmanager
async def linked(
    fake: FakeElevenLabsStt, options: SttOptions = MANUAL, **config: Any
) -> AsyncIterator[Followed]:
    """A link to the fake, without sockets."""
    async with (
        in_memory(fake.handle) as dial,
        background_nursery() as nursery,
        provider(dial, **config).connect(options) as link,
    ):
        followed = Followed(link)
        nursery.start_soon(followed.follow)
        yield followed


async def take(link: SttLink, count: int) -> list[Transcript]:
    """The next transcripts."""
    transcripts = aiter(link)
    with trio.fail_after(60):
        return [await anext(transcripts) for _ in range(count)]


async def failure_of(link: SttLink) -> ProviderError:
    """Iterate until the link breaks."""
    with pytest.raises(ProviderError) as caught, trio.fail_after(60):
        async for _ in link:
            pass
    return caught.value


async def speak(link: SttLink, duration_s: float, *, step_s: float = 0.02) -> None:
    """Send audio as a microphone does: a little at a time."""
    for _ in range(round(duration_s / step_s)):
        await link.send(pcm(step_s))
        await trio.sleep(step_s)


async def settle() -> None:
    """Let everything on its way arrive."""
    await trio.testing.wait_all_tasks_blocked(0.001)


@attrs.define
class Gate:
    """A network that can be held up: what is sent waits until the gate is opened."""

    dial: Dial
    is_open: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, host: str, port: int) -> trio.abc.HalfCloseableStream:
        stream = await self.dial(host, port)
        assert isinstance(stream, trio.StapledStream)
        pump = stream.send_stream.send_all_hook
        sent = 0

        async def hook() -> None:
            nonlocal sent
            sent += 1
            if sent > 1:  # the handshake goes through
                await self.is_open.wait()
            await pump()

        stream.send_stream.send_all_hook = hook
        return stream


# --- configuration ----------------------------------------------------------------------------------


async def test_the_query_holds_all_options(autojump_clock: trio.testing.MockClock) -> None:
    """Booleans in lower case, lists repeated, the region of the language left out."""
    fake = FakeElevenLabsStt()
    options = SttOptions(
        audio_format=AudioFormat("pcm", 24000),
        commit_strategy="vad",
        language_code="pt-BR",
        vad_threshold=0.5,
        vad_silence_threshold_secs=0.7,
        min_speech_duration_ms=120,
        min_silence_duration_ms=90,
        include_timestamps=True,
    )
    config = {"keyterms": ("Trio", "voice fsm"), "no_verbatim": True, "enable_logging": False}
    async with linked(fake, options, base_url="http://fake/proxy/", **config):
        pass
    (handshake,) = fake.handshakes
    assert handshake.path == f"/proxy{PATH}"
    assert handshake.headers["xi-api-key"] == "the-key"
    assert handshake.query == {
        "model_id": ["scribe_v2_realtime"],
        "audio_format": ["pcm_24000"],
        "commit_strategy": ["vad"],
        "vad_threshold": ["0.5"],
        "vad_silence_threshold_secs": ["0.7"],
        "min_speech_duration_ms": ["120"],
        "min_silence_duration_ms": ["90"],
        "include_timestamps": ["true"],
        "language_code": ["pt"],
        "keyterms": ["Trio", "voice fsm"],
        "no_verbatim": ["true"],
        "enable_logging": ["false"],
    }


async def test_what_is_not_set_is_left_to_the_service(autojump_clock: trio.testing.MockClock) -> None:
    """And what only concerns voice detection is not sent for manual commits."""
    fake = FakeElevenLabsStt()
    options = SttOptions(commit_strategy="manual", vad_threshold=0.5, model_id="scribe_v9")
    async with linked(fake, options):
        pass
    assert fake.handshakes[0].query == {
        "model_id": ["scribe_v9"],
        "audio_format": ["pcm_16000"],
        "commit_strategy": ["manual"],
        "include_timestamps": ["false"],
    }


@pytest.mark.parametrize(
    ("code", "bare"), [("en", "en"), ("RU_ru", "ru"), ("zh-Hans-CN", "zh"), ("yue", "yue")]
)
async def test_language_tags_are_stripped(
    autojump_clock: trio.testing.MockClock, code: str, bare: str
) -> None:
    """The service takes bare codes only."""
    fake = FakeElevenLabsStt()
    async with linked(fake, SttOptions(language_code=code)):
        pass
    assert fake.handshakes[0].query["language_code"] == [bare]


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (SttOptions(audio_format=AudioFormat("pcm", 32000)), "unsupported_format", "stt.audio_format"),
        (SttOptions(audio_format=AudioFormat("alaw", 8000)), "unsupported_format", "stt.audio_format"),
        (SttOptions(vad_threshold=0.95), "invalid_field", "stt.vad_threshold"),
        (SttOptions(vad_threshold=float("nan")), "invalid_field", "stt.vad_threshold"),
        (SttOptions(vad_silence_threshold_secs=0.2), "invalid_field", "stt.vad_silence_threshold_secs"),
        (SttOptions(min_speech_duration_ms=2001), "invalid_field", "stt.min_speech_duration_ms"),
        (SttOptions(min_silence_duration_ms=49), "invalid_field", "stt.min_silence_duration_ms"),
    ],
)
async def test_what_the_service_cannot_do_is_refused_before_it_is_called(
    options: SttOptions, code: str, field: str
) -> None:
    """The client learns which field is wrong."""

    async def dial(_host: str, _port: int) -> trio.abc.HalfCloseableStream:
        pytest.fail("called")

    with pytest.raises(ClientError) as caught:
        async with provider(dial).connect(options):
            pytest.fail("connected")
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize(
    "config", [{"base_url": "ftp://host"}, {"keyterms": ("x",) * 51}, {"keyterms": ("x" * 21,)}]
)
def test_a_configuration_that_cannot_work_is_refused(config: dict[str, Any]) -> None:
    """When the server starts, not when the first user speaks."""
    with pytest.raises(ValueError):  # noqa: PT011  # whichever part is wrong
        ElevenLabsSttConfig(api_key="the-key", **config)


def test_the_key_is_not_shown() -> None:
    """Neither by the configuration nor by the provider; and the provider is one."""
    config = ElevenLabsSttConfig(api_key="the-key")
    stt: SttProvider = ElevenLabsStt(config)
    assert "the-key" not in repr(config) + repr(stt)
    assert stt.name == "elevenlabs"


# --- connecting -------------------------------------------------------------------------------------


async def test_a_link_is_up_when_the_service_says_so(autojump_clock: trio.testing.MockClock) -> None:
    """Not when its socket opens: a wrong key is told later."""

    async def start_late(session: FakeSession) -> None:
        await trio.sleep(3)
        await session.answer({"message_type": "warning", "warning": "early"})
        await session.answer({"message_type": "session_started", "session_id": "s-1", "config": {"a": 1}})

    fake = FakeElevenLabsStt(moments=[Moment("start", start_late)])
    started_at = trio.current_time()
    async with linked(fake) as link:
        assert trio.current_time() - started_at == pytest.approx(3)
        assert (link.session_id, link.config) == ("s-1", {"a": 1})


async def test_a_start_without_details_is_a_start(autojump_clock: trio.testing.MockClock) -> None:
    """All that is said in it is for information."""
    fake = FakeElevenLabsStt(
        moments=[Moment("start", say({"message_type": "session_started", "config": None}))]
    )
    async with linked(fake) as link:
        assert (link.session_id, link.config) == ("", {})


@pytest.mark.parametrize(("error_type", "fault", "retryable"), ERRORS)
async def test_an_error_instead_of_a_start_prevents_the_link(
    autojump_clock: trio.testing.MockClock, error_type: str, fault: ProviderFault, retryable: bool
) -> None:
    """The socket is open by then, and closes with 1000."""
    fake = FakeElevenLabsStt(moments=[Moment("start", report(error_type, "secret words"))])
    with pytest.raises(ProviderError) as caught:
        async with linked(fake):
            pytest.fail("linked")
    assert (caught.value.upstream, caught.value.fault) == (Upstream.STT, fault)
    assert caught.value.retryable is retryable
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (close(1000), ProviderFault.LOST),
        (close(1008, "policy"), ProviderFault.REJECTED),
        (close(1011), ProviderFault.SERVER_ERROR),
        (break_off, ProviderFault.LOST),
        (send_garbage, ProviderFault.BAD_RESPONSE),
        (send_broken_json, ProviderFault.BAD_RESPONSE),
    ],
)
async def test_an_end_instead_of_a_start_prevents_the_link(
    autojump_clock: trio.testing.MockClock, action: Action, fault: ProviderFault
) -> None:
    """A clean close proves nothing."""
    fake = FakeElevenLabsStt(moments=[Moment("start", action)])
    with pytest.raises(ProviderError) as caught:
        async with linked(fake):
            pytest.fail("linked")
    assert caught.value.fault is fault


async def test_a_refused_handshake_prevents_the_link(autojump_clock: trio.testing.MockClock) -> None:
    """With the status's fault, and when to come back."""
    fake = FakeElevenLabsStt(refusals=[(429, {"Retry-After": "30"}), (403, {})])
    for fault, retry_after_s in ((ProviderFault.RATE_LIMITED, 30.0), (ProviderFault.AUTH_FAILED, None)):
        with pytest.raises(ProviderError) as caught:
            async with linked(fake):
                pytest.fail("linked")
        assert (caught.value.fault, caught.value.retry_after_s) == (fault, retry_after_s)
    async with linked(fake):
        pass


@pytest.mark.parametrize(
    "fake",
    [
        lambda: FakeElevenLabsStt(deaf=True),
        lambda: FakeElevenLabsStt(moments=[Moment("start", stay_silent)]),
    ],
    ids=["no handshake", "no start"],
)
async def test_the_callers_deadline_ends_a_start_that_does_not_come(
    autojump_clock: trio.testing.MockClock, fake: Callable[[], FakeElevenLabsStt]
) -> None:
    """And the goodbye then is a short one."""
    started_at = trio.current_time()
    with trio.move_on_after(5) as deadline:
        async with linked(fake()):
            pytest.fail("linked")
    assert deadline.cancelled_caught
    assert trio.current_time() - started_at < 5.2


# --- transcripts ------------------------------------------------------------------------------------


async def test_speech_becomes_partials_and_a_commit(autojump_clock: trio.testing.MockClock) -> None:
    """With voice detection the service commits by itself."""
    fake = FakeElevenLabsStt(
        utterances=[
            Utterance(
                "good morning", partials=[(0.5, "good"), (0.8, " "), (1.0, "good mor")], commits_after_s=2
            ),
            Utterance("bye", partials=[(0.5, "bye")], commits_after_s=1),
        ]
    )
    async with linked(fake, SttOptions()) as link:
        await speak(link, 3.5)
        assert await take(link, 5) == [
            PartialTranscript("good"),
            PartialTranscript("good mor"),
            CommittedTranscript("good morning"),
            PartialTranscript("bye"),
            CommittedTranscript("bye"),
        ]


async def test_audio_arrives_whole_and_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever the sizes it was handed over in."""
    fake = FakeElevenLabsStt()
    sizes = [2, 640, 31998, 4, 32000, 3200]
    async with linked(fake) as link:
        for size in sizes:
            await link.send(SECOND[:size])
        await link.send(b"")
        await settle()
    (session,) = fake.sessions
    assert bytes(session.audio) == b"".join(SECOND[:size] for size in sizes)
    assert {message["sample_rate"] for message in session.messages} == {16000}
    assert not any(message["commit"] for message in session.messages)


async def test_a_manual_commit_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    """It goes out as all clients send it: behind the audio, in a message without any."""
    fake = FakeElevenLabsStt(utterances=[Utterance("hello")], commit_delay_s=0.25)
    async with linked(fake) as link:
        await link.send(pcm(1))
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("hello")]
    *_, last = fake.sessions[0].messages
    assert last == {
        "message_type": "input_audio_chunk",
        "audio_base_64": "",
        "commit": True,
        "sample_rate": 16000,
    }
    assert bytes(fake.sessions[0].audio) == pcm(1)


@pytest.mark.parametrize(
    ("audio_format", "silence"),
    [
        (AudioFormat("pcm", 16000), b"\0"),
        (AudioFormat("pcm", 22050), b"\0"),
        (AudioFormat("ulaw", 8000), b"\xff"),
    ],
    ids=str,
)
async def test_a_short_commit_is_padded_with_silence(
    autojump_clock: trio.testing.MockClock, audio_format: AudioFormat, silence: bytes
) -> None:
    """Less than 0.3 s would end the session."""
    fake = FakeElevenLabsStt(utterances=[Utterance("no"), Utterance("yes")])
    audio = b"\x12\x34" * (audio_format.size_bytes(100) // 2)
    async with linked(fake, attrs.evolve(MANUAL, audio_format=audio_format)) as link:
        for word in ("no", "yes"):
            await link.send(audio)
            await link.commit()
            assert await take(link, 1) == [CommittedTranscript(word)]
    padded = audio + silence * (audio_format.size_bytes(350) - len(audio))
    assert bytes(fake.sessions[0].audio) == 2 * padded


async def test_a_commit_of_nothing_is_answered_here(autojump_clock: trio.testing.MockClock) -> None:
    """The service would end the session; the caller gets its blank all the same."""
    fake = FakeElevenLabsStt(utterances=[Utterance("hello")])
    async with linked(fake) as link:
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("")]
        await link.send(pcm(0.5))
        await link.commit()
        await link.commit()
        await link.commit()
        assert await take(link, 3) == [
            CommittedTranscript("hello"),
            CommittedTranscript(""),
            CommittedTranscript(""),
        ]
    assert len(fake.sessions[0].commits_s) == 1


async def test_blanks_keep_their_place_among_the_answers(autojump_clock: trio.testing.MockClock) -> None:
    """Also when the service takes its time."""
    fake = FakeElevenLabsStt(utterances=[Utterance("one"), Utterance("two")], commit_delay_s=2)
    async with linked(fake) as link:
        for _ in range(2):
            await link.send(pcm(0.5))
            await link.commit()
            await link.commit()
        texts = [transcript.text for transcript in await take(link, 4)]
    assert texts == ["one", "", "two", ""]


async def test_a_commit_may_be_forced_with_voice_detection_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Padded like any other, also just after the service has committed by itself."""
    fake = FakeElevenLabsStt(utterances=[Utterance("one", commits_after_s=1), Utterance("two")])
    async with linked(fake, SttOptions()) as link:
        await speak(link, 1.1)
        await link.commit()
        assert await take(link, 2) == [CommittedTranscript("one"), CommittedTranscript("two")]


async def test_a_commit_that_nobody_asked_for_is_an_utterance(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After half a minute or more the service commits by itself; the next commit has to be padded anew."""
    fake = FakeElevenLabsStt(utterances=[Utterance("a long story", commits_after_s=36), Utterance("end")])
    async with linked(fake) as link:
        await speak(link, 36.1, step_s=0.1)
        assert await take(link, 1) == [CommittedTranscript("a long story")]
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("end")]
        assert fake.sessions[0].audio_s == pytest.approx(36.1 + 0.35, abs=0.11)


async def test_an_unasked_commit_of_all_there_was_leaves_nothing_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What was on its way meanwhile is not known, so a commit is still sent."""
    fake = FakeElevenLabsStt(utterances=[Utterance("one", commits_after_s=1), Utterance("two")])
    async with linked(fake) as link:
        await link.send(pcm(1))
        assert await take(link, 1) == [CommittedTranscript("one")]
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("two")]
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("")]


async def test_a_late_partial_comes_before_its_commit(autojump_clock: trio.testing.MockClock) -> None:
    """The service may send one after our commit; it is an ordinary partial of the utterance."""

    async def hesitate(session: FakeSession) -> None:
        await session.answer({"message_type": "partial_transcript", "text": "hello w"}, delay_s=0.1)
        await session.answer({"message_type": "committed_transcript", "text": "hello world"}, delay_s=0.1)

    fake = FakeElevenLabsStt(moments=[Moment("commit", hesitate)])
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        await link.commit()
        assert await take(link, 2) == [PartialTranscript("hello w"), CommittedTranscript("hello world")]


@pytest.mark.parametrize("timed", [False, True])
async def test_the_echo_of_a_commit_is_dropped(autojump_clock: trio.testing.MockClock, timed: bool) -> None:
    """It would look like somebody speaking."""
    fake = FakeElevenLabsStt(
        utterances=[Utterance("yes"), Utterance("no")],
        echo=True,
        echo_delay_s=0.05,
        timestamps_delay_s=0.015,
    )
    async with linked(fake, attrs.evolve(MANUAL, include_timestamps=timed)) as link:
        for _ in range(2):
            await link.send(pcm(0.5))
            await link.commit()
            await trio.sleep(1)
        texts = [(type(transcript), transcript.text) for transcript in await take(link, 2)]
        assert texts == [(CommittedTranscript, "yes"), (CommittedTranscript, "no")]
        with trio.move_on_after(5) as nothing_more:
            await take(link, 1)
        assert nothing_more.cancelled_caught


def partial_after(*delays_s: float) -> Action:
    """Commit "yes", then send it as a partial, each time so long after the message before."""

    async def action(session: FakeSession) -> None:
        await session.answer({"message_type": "committed_transcript", "text": "yes"})
        for delay_s in delays_s:
            await session.answer({"message_type": "partial_transcript", "text": "yes"}, delay_s=delay_s)

    return action


@pytest.mark.parametrize(
    "delays_s", [(0.31,), (0.05, 0.05)], ids=["too late for an echo", "one too many for an echo"]
)
async def test_the_same_word_said_again_is_heard(
    autojump_clock: trio.testing.MockClock, delays_s: tuple[float, ...]
) -> None:
    """An echo comes once, and soon."""
    fake = FakeElevenLabsStt(moments=[Moment("commit", partial_after(*delays_s))])
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        await link.commit()
        assert await take(link, 2) == [CommittedTranscript("yes"), PartialTranscript("yes")]


async def test_other_words_right_after_a_commit_are_heard(autojump_clock: trio.testing.MockClock) -> None:
    """Only the very same text is an echo."""

    async def action(session: FakeSession) -> None:
        await session.answer({"message_type": "committed_transcript", "text": "yes"})
        await session.answer({"message_type": "partial_transcript", "text": "Yes"})

    fake = FakeElevenLabsStt(moments=[Moment("commit", action)])
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        await link.commit()
        assert await take(link, 2) == [CommittedTranscript("yes"), PartialTranscript("Yes")]


async def test_words_have_times(autojump_clock: trio.testing.MockClock) -> None:
    """Of the two reports of a commit the timed one counts; spaces are no words."""
    fake = FakeElevenLabsStt(utterances=[Utterance("one two"), Utterance(""), Utterance("three")])
    async with linked(fake, attrs.evolve(MANUAL, include_timestamps=True)) as link:
        for _ in range(3):
            await link.send(pcm(1))
            await link.commit()
        assert await take(link, 3) == [
            CommittedTranscript("one two", (Word("one", 0.0, 0.25), Word("two", 0.25, 0.5))),
            CommittedTranscript(""),
            CommittedTranscript("three", (Word("three", 2.0, 2.25),)),
        ]


async def test_silence_of_ours_does_not_move_the_words(autojump_clock: trio.testing.MockClock) -> None:
    """Times are those of the audio that was handed over, as if there were no padding and no keep-alive."""
    fake = FakeElevenLabsStt(utterances=[Utterance("one"), Utterance("two"), Utterance("three")])
    async with linked(fake, attrs.evolve(MANUAL, include_timestamps=True)) as link:
        starts = []
        for _ in range(3):
            await link.send(pcm(0.1))
            await link.commit()
            (transcript,) = await take(link, 1)
            assert isinstance(transcript, CommittedTranscript)
            starts.append(transcript.words[0].start_s)
            await trio.sleep(12)
        assert starts == [0.0, pytest.approx(0.1, abs=0.001), pytest.approx(0.2, abs=0.001)]
        assert fake.sessions[0].audio_s > 1


async def test_what_is_not_known_is_ignored(autojump_clock: trio.testing.MockClock) -> None:
    """New message types, warnings, extras, and a timed report that was not asked for."""
    ignored: list[dict[str, Any]] = [
        {"message_type": "warning", "warning": "careful"},
        {"message_type": "final_transcript", "text": "hello"},
        {"message_type": "committed_transcript_with_timestamps", "text": "not asked for", "words": []},
        {"message_type": "speakers_merged", "from_speaker_id": "a", "to_speaker_id": "b"},
        {"message_type": ["what"]},
        {},
    ]
    fake = FakeElevenLabsStt(
        utterances=[Utterance("hello")], moments=[Moment(0.0, say(message)) for message in ignored]
    )
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("hello")]


async def test_a_message_may_come_in_drops(autojump_clock: trio.testing.MockClock) -> None:
    """It is heard when it is whole, and nothing else suffers meanwhile."""
    partial = {"message_type": "partial_transcript", "text": "slowly"}
    fake = FakeElevenLabsStt(moments=[Moment(0.5, drip_out(partial, pause_s=0.5))])
    started_at = trio.current_time()
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        assert await take(link, 1) == [PartialTranscript("slowly")]
        assert trio.current_time() - started_at > 20
        await link.send(pcm(0.5))
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("")]


# --- sending ----------------------------------------------------------------------------------------


async def test_context_goes_with_the_first_audio_only(autojump_clock: trio.testing.MockClock) -> None:
    """Its last fifty characters; on a later chunk the service would take it for an error."""
    fake = FakeElevenLabsStt()
    async with linked(fake) as link:
        await link.send(pcm(0.1), previous_text="x" * 20 + 'y"é' * 16 + "zz")
        await settle()
        await link.send(pcm(0.1), previous_text="more")
        await settle()
    first, second = fake.sessions[0].messages
    assert first["previous_text"] == 'y"é' * 16 + "zz"
    assert "previous_text" not in second


@pytest.mark.parametrize("previous_text", [None, ""])
async def test_no_context_is_no_field(
    autojump_clock: trio.testing.MockClock, previous_text: str | None
) -> None:
    """Context that comes after the first audio comes too late."""
    fake = FakeElevenLabsStt()
    async with linked(fake) as link:
        await link.send(pcm(0.1), previous_text=previous_text)
        await settle()
        await link.send(pcm(0.1), previous_text="late")
        await settle()
    assert not any("previous_text" in message for message in fake.sessions[0].messages)


async def test_no_context_follows_a_keep_alive(autojump_clock: trio.testing.MockClock) -> None:
    """Silence is a chunk too."""
    fake = FakeElevenLabsStt()
    async with linked(fake) as link:
        await trio.sleep(6)
        await link.send(pcm(0.1), previous_text="before")
        await settle()
    assert len(fake.sessions[0].messages) == 2
    assert not any("previous_text" in message for message in fake.sessions[0].messages)


async def test_silence_keeps_an_idle_link_alive(autojump_clock: trio.testing.MockClock) -> None:
    """20 ms every five seconds: the service hangs up after 15 s without audio."""
    fake = FakeElevenLabsStt(utterances=[Utterance("still here")])
    async with linked(fake) as link:
        await trio.sleep(121)
        assert [len(base64.b64decode(message["audio_base_64"])) for message in fake.sessions[0].messages] == (
            [640] * 24
        )
        assert not any(fake.sessions[0].audio)
        await link.commit()
        assert await take(link, 1) == [CommittedTranscript("still here")]


async def test_no_silence_is_put_into_speech(autojump_clock: trio.testing.MockClock) -> None:
    """The five seconds begin anew with all audio."""
    fake = FakeElevenLabsStt()
    async with linked(fake) as link:
        for _ in range(10):
            await link.send(pcm(0.5))
            await trio.sleep(4.9)
    assert bytes(fake.sessions[0].audio) == pcm(0.5) * 10


async def test_a_chunk_holds_a_second_at_most(autojump_clock: trio.testing.MockClock) -> None:
    """The service has a limit that nobody has published."""
    fake = FakeElevenLabsStt()
    async with linked(fake) as link:
        await link.send(SECOND * 3 + pcm(0.5))
        await settle()
    durations = [len(base64.b64decode(m["audio_base_64"])) / 32000 for m in fake.sessions[0].messages]
    assert durations == [1.0, 1.0, 1.0, 0.5]


async def test_a_sender_waits_while_the_service_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Memory stays bounded; when it reads again, nothing is missing."""
    fake = FakeElevenLabsStt()
    handed_over = 0
    async with in_memory(fake.handle) as dial:
        gate = Gate(dial)

        async def send_on(link: SttLink) -> None:
            nonlocal handed_over
            for _ in range(200):
                await link.send(pcm(0.02))
                handed_over += 1

        async with provider(gate).connect(MANUAL) as link, trio.open_nursery() as nursery:
            nursery.start_soon(send_on, link)
            await settle()
            assert handed_over == 0
            gate.is_open.set()
    assert bytes(fake.sessions[0].audio) == pcm(0.02) * 200


async def test_a_service_that_does_not_read_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A send that does not end within the deadline breaks the link, for whoever waits on it."""
    fake = FakeElevenLabsStt()
    errors: list[ProviderError] = []
    async with in_memory(fake.handle) as dial:

        async def send_on(link: SttLink) -> None:
            with pytest.raises(ProviderError) as caught:
                await speak(link, 60)
            errors.append(caught.value)

        started_at = trio.current_time()
        async with provider(Gate(dial), answer_timeout_s=7).connect(MANUAL) as link:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_on, link)
                errors.append(await failure_of(link))
            assert trio.current_time() - started_at == pytest.approx(7)
    assert [error.fault for error in errors] == [ProviderFault.STALLED] * 2
    assert errors[0].retryable


@pytest.mark.parametrize("speaking", [False, True])
async def test_a_commit_that_is_not_answered_breaks_the_link(
    autojump_clock: trio.testing.MockClock, speaking: bool
) -> None:
    """Silence from the service is noticed by the deadline of its answer, whether or not audio goes on."""
    fake = FakeElevenLabsStt(moments=[Moment("commit", hang)])
    async with linked(fake, answer_timeout_s=8) as link, trio.open_nursery() as nursery:
        await link.send(pcm(0.5))
        await link.commit()
        started_at = trio.current_time()
        if speaking:

            async def speak_on() -> None:
                with pytest.raises(ProviderError):
                    await speak(link, 100)

            nursery.start_soon(speak_on)
        error = await failure_of(link)
        assert error.fault is ProviderFault.STALLED
        assert trio.current_time() - started_at == pytest.approx(8, abs=0.05)


async def test_the_first_reason_for_a_break_is_the_one(autojump_clock: trio.testing.MockClock) -> None:
    """What happens to a link that was given up adds nothing."""

    async def close_late(session: FakeSession) -> None:
        await trio.sleep(9)
        await session.close(1011, None)

    fake = FakeElevenLabsStt(moments=[Moment("commit", close_late)])
    async with linked(fake, answer_timeout_s=8) as link:
        await link.send(pcm(0.5))
        await link.commit()
        await trio.sleep(10)
        assert (await failure_of(link)).fault is ProviderFault.STALLED


async def test_an_answer_in_time_keeps_the_link(autojump_clock: trio.testing.MockClock) -> None:
    """The deadline is the oldest open commit's; an answered one is forgotten."""
    fake = FakeElevenLabsStt(commit_delay_s=6)
    async with linked(fake, answer_timeout_s=8) as link:
        for _ in range(5):
            await link.send(pcm(0.5))
            await link.commit()
            assert await take(link, 1) == [CommittedTranscript("")]


# --- the end of a link ------------------------------------------------------------------------------


@pytest.mark.parametrize("then_close", [True, False])
@pytest.mark.parametrize(("error_type", "fault", "retryable"), ERRORS)
async def test_an_error_message_breaks_the_link(
    autojump_clock: trio.testing.MockClock,
    error_type: str,
    fault: ProviderFault,
    retryable: bool,
    then_close: bool,
) -> None:
    """Each with its fault, whether or not the service closes, after what was heard before."""
    fake = FakeElevenLabsStt(
        utterances=[Utterance(partials=[(0.5, "hello")])],
        moments=[Moment(1.0, report(error_type, "secret words", then_close=then_close))],
    )
    with structlog.testing.capture_logs() as logs:
        async with linked(fake) as link:
            await link.send(pcm(0.5))
            assert await take(link, 1) == [PartialTranscript("hello")]
            await link.send(pcm(0.5))
            error = await failure_of(link)
            assert (error.fault, error.retryable) == (fault, retryable)
            assert error.request_id == link.session_id
            for call in (link.send(pcm(0.5)), link.commit()):
                with pytest.raises(ProviderError) as caught:
                    await call
                assert caught.value.fault is fault
            assert (await failure_of(link)).fault is fault
    assert "secret" not in f"{error} {logs}"
    assert "the-key" not in f"{error!r} {logs}"


@pytest.mark.parametrize(
    ("action", "fault", "status"),
    [
        (close(1000), ProviderFault.LOST, 1000),
        (close(1001), ProviderFault.LOST, 1001),
        (close(1008, "policy"), ProviderFault.LOST, 1008),
        (close(1011), ProviderFault.SERVER_ERROR, 1011),
        (close(1013), ProviderFault.OVERLOADED, 1013),
        (close(4999, "what"), ProviderFault.LOST, 4999),
        (break_off, ProviderFault.LOST, 1006),
        (send_garbage, ProviderFault.BAD_RESPONSE, 1002),
        (send_broken_json, ProviderFault.BAD_RESPONSE, None),
        (say({"message_type": "partial_transcript"}), ProviderFault.BAD_RESPONSE, None),
        (say({"message_type": "committed_transcript", "text": 5}), ProviderFault.BAD_RESPONSE, None),
    ],
)
async def test_every_end_of_a_started_session_is_worth_another_try(
    autojump_clock: trio.testing.MockClock, action: Action, fault: ProviderFault, status: int | None
) -> None:
    """Its key and options were good."""
    fake = FakeElevenLabsStt(moments=[Moment(0.5, action)])
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        error = await failure_of(link)
        assert (error.fault, error.status, error.retryable) == (fault, status, True)
        with pytest.raises(ProviderError):
            await speak(link, 1)


async def test_frames_that_are_no_objects_are_bad_responses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """JSON of another shape, or nested beyond reason."""
    for frame in ("[]", "5", "[" * 100_000, b"\xff"):

        async def action(session: FakeSession, frame: str | bytes = frame) -> None:
            await session.websocket.send_message(frame)

        async with linked(FakeElevenLabsStt(moments=[Moment(0.5, action)])) as link:
            await link.send(pcm(0.5))
            assert (await failure_of(link)).fault is ProviderFault.BAD_RESPONSE


async def test_a_broken_link_sends_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    """Not even silence, although the service has left the connection open."""
    fake = FakeElevenLabsStt(moments=[Moment(0.5, report("error", then_close=False))])
    async with linked(fake) as link:
        await link.send(pcm(0.5))
        await failure_of(link)
        await trio.sleep(12)
    assert len(fake.sessions[0].messages) == 1


async def test_the_next_link_works(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing of a broken one is kept: its audio is the caller's to send again."""
    fake = FakeElevenLabsStt(utterances=[Utterance("hello")], moments=[Moment(0.5, break_off)])
    async with in_memory(fake.handle) as dial:
        stt = provider(dial)
        async with stt.connect(MANUAL) as link:
            await link.send(pcm(0.5))
            assert (await failure_of(link)).retryable
        async with stt.connect(MANUAL) as link:
            await link.send(pcm(0.5), previous_text="before")
            await link.commit()
            assert await take(link, 1) == [CommittedTranscript("hello")]
    assert [session.audio_s for session in fake.sessions] == [0.5, 0.5]
    assert fake.sessions[1].messages[0]["previous_text"] == "before"


async def test_closing_ends_the_iteration(autojump_clock: trio.testing.MockClock) -> None:
    """After what has been heard; nothing can be sent any more."""
    fake = FakeElevenLabsStt(utterances=[Utterance(partials=[(0.1, "a"), (0.2, "ab")])])
    async with linked(fake) as link:
        await link.send(pcm(0.2))
        await settle()
    assert [transcript.text async for transcript in link] == ["a", "ab"]
    with pytest.raises(ProviderError) as caught:
        await link.send(pcm(0.2))
    assert caught.value.fault is ProviderFault.LOST


@pytest.mark.parametrize("cancelled", [False, True])
async def test_closing_is_polite(autojump_clock: trio.testing.MockClock, cancelled: bool) -> None:
    """The service gets a close frame with 1000, also when the session was cancelled."""
    fake = FakeElevenLabsStt()
    async with in_memory(fake.handle) as dial:
        with trio.CancelScope() as scope:
            async with provider(dial).connect(MANUAL) as link:
                await link.send(pcm(0.5))
                if cancelled:
                    scope.cancel()
    closed = fake.sessions[0].websocket.closed
    assert closed is not None
    assert closed.code == 1000


async def test_transcripts_nobody_reads_do_not_prevent_closing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """They stay in the network, and are let go with the link."""
    fake = FakeElevenLabsStt(
        utterances=[Utterance(partials=[(0.01 * i, f"partial {i}") for i in range(1, 50)])]
    )
    started_at = trio.current_time()
    async with in_memory(fake.handle) as dial, provider(dial).connect(MANUAL) as link:
        await link.send(pcm(1))
        await settle()
        await link.send(pcm(1))
        await settle()
    assert trio.current_time() - started_at < 1.5


# --- properties -------------------------------------------------------------------------------------

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.integers(1, 60)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 800)),
    ),
    max_size=25,
)


@hypothesis.given(steps=STEPS, rate_hz=st.sampled_from([8000, 16000, 22050, 44100]))
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_every_commit_is_answered_and_no_session_is_lost(steps: Iterable[Step], rate_hz: int) -> None:
    """Whatever is said, committed and waited for: as many answers as commits, never a commit too short."""
    fake = FakeElevenLabsStt(echo=True, echo_delay_s=0.02, commit_delay_s=0.2)
    audio_format = AudioFormat("pcm", rate_hz)
    answers = []

    async def converse() -> None:
        commits = 0
        async with linked(fake, attrs.evolve(MANUAL, audio_format=audio_format)) as link:
            for step, amount in steps:
                match step:
                    case "speak":
                        await link.send(b"\x01\x00" * (audio_format.size_bytes(10 * amount) // 2))
                    case "commit":
                        await link.commit()
                        commits += 1
                    case _:
                        await trio.sleep(amount / 20)
            answers.extend(await take(link, commits))
            with trio.move_on_after(30) as nothing_more:
                await take(link, 1)
            assert nothing_more.cancelled_caught

    trio.run(converse, clock=trio.testing.MockClock(autojump_threshold=0))
    assert all(isinstance(answer, CommittedTranscript) for answer in answers)
    assert len(fake.sessions) == 1
    assert all(
        len(base64.b64decode(message["audio_base_64"])) % 2 == 0 for message in fake.sessions[0].messages
    )


# --- sockets ----------------------------------------------------------------------------------------


async def test_audio_is_sent_at_once_until_the_service_stops_reading() -> None:
    """What it takes in part is finished once it reads again; a service that never does has failed."""
    reads = trio.Event()

    async def service(stream: trio.SocketStream) -> None:
        request = await stream.receive_some(10_000)
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n"
            % accept_key(key.split(b":", 1)[1].strip())
            + encode_frame(TEXT, b'{"message_type":"session_started","session_id":"s"}')
        )
        await reads.wait()
        reader, audio = FrameReader(1 << 20), bytearray()
        while data := await stream.receive_some(1 << 20):
            reader.feed(data)
            while (received := reader.next()) is not None and received.opcode == TEXT:
                audio += base64.b64decode(json.loads(received.payload)["audio_base_64"])
            if audio.endswith(b"end!"):
                heard.append(bytes(audio))
                return

    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, service, [listener])
        base_url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        stt = ElevenLabsStt(ElevenLabsSttConfig(api_key="the-key", base_url=base_url))
        async with stt.connect(MANUAL) as link:
            await settle()
            assert not link.send_now(pcm(1))  # the first audio of a link may have context to be sent with it
            await link.send(pcm(1))
            given = pcm(1)
            while link.send_now(pcm(1)):
                given += pcm(1)
            reads.set()
            with trio.fail_after(4):  # at the latest the next keep-alive would send it too, after 5 s
                while not link.send_now(b"end!"):  # the link's own task sends what was left over
                    await trio.lowlevel.checkpoint()
                while not heard:
                    await trio.lowlevel.checkpoint()
            assert heard == [given + b"end!"]
        nursery.cancel_scope.cancel()


async def test_a_conversation_over_real_sockets() -> None:
    """The same over loopback, with the clock on the wall."""
    fake = FakeElevenLabsStt(
        utterances=[Utterance("one", partials=[(0.3, "on")]), Utterance("two")], echo=True
    )
    async with serve(fake.handle) as base_url:
        stt = ElevenLabsStt(ElevenLabsSttConfig(api_key="the-key", base_url=base_url.replace("ws:", "http:")))
        async with stt.connect(MANUAL) as link:
            await link.send(pcm(0.5))
            await link.commit()
            assert await take(link, 2) == [PartialTranscript("on"), CommittedTranscript("one")]
            await link.send(pcm(0.1))
            await link.commit()
            assert await take(link, 1) == [CommittedTranscript("two")]


async def test_cancellation_at_any_moment_leaves_nothing() -> None:
    """Fifty links, each cancelled at a random step of its life."""
    chance = random.Random(11)
    before = open_sockets()
    tasks_before = trio.lowlevel.current_statistics().tasks_living

    async def use(base_url: str) -> None:
        stt = ElevenLabsStt(ElevenLabsSttConfig(api_key="the-key", base_url=base_url))
        async with stt.connect(MANUAL) as link:
            await link.send(pcm(0.5))
            await link.commit()
            await take(link, 1)

    async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with serve(FakeElevenLabsStt().handle) as base_url:
        for _ in range(50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, chance.randrange(150), nursery.cancel_scope)
                await use(base_url)
                nursery.cancel_scope.cancel()
    assert open_sockets() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before
