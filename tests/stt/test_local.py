"""Links to the local recogniser: the real engine on human speech, and a scripted one for what goes wrong."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from tests.fakes.recordings import BECKETT, TWO_CITIES, load, to_pcm, word_error_rate
from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_encode
from voice_fsm.errors import ClientError, ProviderError
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, SttLink, SttProvider, Transcript
from voice_fsm.stt.listener import Listener, ListeningRules
from voice_fsm.stt.local import MAX_WAIT_S, LocalStt, default_max_sessions, open_local_stt
from voice_fsm.stt.local_link import STEP_S, LocalSttLink
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, EngineError, Moonshine, Samples
from voice_fsm.stt.turnstile import Turnstile
from voice_fsm.vad.engines import HOP, ThoroughJudge, ThoroughJudges

SECOND = b"\0\0" * SAMPLE_RATE_HZ
LOUD_SECOND = to_pcm(np.full(SAMPLE_RATE_HZ, 0.5, np.float32))


@attrs.define
class ScriptedEngine:
    """Takes loud sound for speech, and waits at a gate before each call; it lends itself as the judge."""

    gate: threading.Event = attrs.field(factory=threading.Event)
    fails: bool = False
    transcribed: int = 0
    inside: int = 0
    most_inside: int = 0

    def reset(self) -> None:
        """There is nothing to forget."""

    def process_chunk(self, audio: bytes) -> float:
        self._pass()
        return float(np.abs(np.frombuffer(audio, "<i2") / 32768).mean() > 0.05)

    def transcribe(self, samples: Samples) -> str:
        self.transcribed += 1
        self._pass()
        return f"{len(samples) // HOP} hops"

    def _pass(self) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.gate.wait(timeout=30)
        self.inside -= 1
        if self.fails:
            raise EngineError("scripted")


@attrs.frozen
class ScriptedJudges(ThoroughJudges):
    judge: ScriptedEngine

    def lend(self) -> ThoroughJudge:
        return self.judge

    def take_back(self, judge: ThoroughJudge) -> None:
        assert judge is self.judge


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    engine.gate.set()
    yield engine
    engine.gate.set()


def provider(
    engine: ScriptedEngine | Moonshine, *, max_sessions: int = 100, max_backlog_s: float = 30.0
) -> LocalStt:
    """By default patient enough for a machine that tests something else besides."""
    judges = ThoroughJudges() if isinstance(engine, Moonshine) else ScriptedJudges(engine)
    return LocalStt(engine, judges, Turnstile(), max_sessions=max_sessions, max_backlog_s=max_backlog_s)


@pytest.fixture(scope="module")
def moonshine() -> Iterator[Moonshine]:
    engine = Moonshine.load()
    yield engine
    engine.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only a thread knows."""
    with trio.fail_after(30):
        while not condition():  # threads set no trio.Event
            await trio.sleep(0.001)


async def read(link: LocalSttLink) -> None:
    async for _ in link:
        pass


async def feed(link: SttLink, audio: bytes, chunk_bytes: int) -> None:
    for start in range(0, len(audio), chunk_bytes):
        await link.send(audio[start : start + chunk_bytes])


async def transcribe(link: SttLink, audio: bytes, audio_format: AudioFormat) -> list[Transcript]:
    """Send audio in 100 ms chunks, then silence until the last commit; the blank one marks the end."""
    transcripts: list[Transcript] = []

    async def send() -> None:
        silence = bytes([0xFF if audio_format.codec == "ulaw" else 0]) * audio_format.size_bytes(1500)
        await feed(link, audio + silence, audio_format.size_bytes(100))
        await link.commit()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for transcript in link:
                if transcript == CommittedTranscript(""):
                    break
                transcripts.append(transcript)
    return transcripts


def commits(transcripts: Sequence[Transcript]) -> list[str]:
    return [t.text for t in transcripts if isinstance(t, CommittedTranscript)]


def partials(transcripts: Sequence[Transcript]) -> list[str]:
    return [t.text for t in transcripts if isinstance(t, PartialTranscript)]


# --- human speech, the real engine --------------------------------------------------------------------


async def test_a_reading_is_transcribed_as_it_is_fed() -> None:
    """Three quarters of a minute of Dickens, in 100 ms chunks: few words wrong, partials before commits."""
    async with open_local_stt(max_backlog_s=30.0) as stt, stt.connect(SttOptions()) as link:
        transcripts = await transcribe(link, to_pcm(load("two_cities")), AudioFormat("pcm", SAMPLE_RATE_HZ))
    error_rate = word_error_rate(TWO_CITIES, " ".join(commits(transcripts)))
    print(f"word error rate {error_rate:.3f}, {len(partials(transcripts))} partials")  # noqa: T201
    assert error_rate < 0.12
    assert 4 <= len(commits(transcripts)) <= 16
    kinds = [type(transcript) for transcript in transcripts]
    assert (CommittedTranscript, CommittedTranscript) not in pairwise([CommittedTranscript, *kinds])


def test_partials_follow_speech_along(moonshine: Moonshine) -> None:
    """Where recognising costs no time, several in each sentence; a busy machine leaves some out."""
    listener = Listener(moonshine, ThoroughJudges().lend(), ListeningRules(), clock_s=lambda: 0.0)
    speech = load("two_cities")[: 8 * SAMPLE_RATE_HZ]
    heard = [t for at in range(0, len(speech), 3200) for t in listener.hear(speech[at : at + 3200])]
    assert len(partials(heard)) >= 10


async def test_short_sentences_are_committed_one_by_one(moonshine: Moonshine) -> None:
    """Each pause ends an utterance; each partial belongs to the commit after it."""
    async with provider(moonshine).connect(SttOptions()) as link:
        transcripts = await transcribe(link, to_pcm(load("beckett")), AudioFormat("pcm", SAMPLE_RATE_HZ))
    assert len(commits(transcripts)) == 6
    assert word_error_rate(BECKETT, " ".join(commits(transcripts))) <= 0.25
    assert isinstance(transcripts[-1], CommittedTranscript)
    assert all(t.text.strip() for t in transcripts)


@pytest.mark.parametrize(
    "name", ["pcm_8000", "pcm_22050", "pcm_24000", "pcm_44100", "pcm_48000", "ulaw_8000"]
)
async def test_every_format_is_understood(moonshine: Moonshine, name: str) -> None:
    """Whatever rate the microphone has, the words are the same; telephone quality costs a few."""
    audio_format = AudioFormat.parse(name)
    audio = to_pcm(load("two_cities", audio_format.sample_rate_hz)[: 7 * audio_format.sample_rate_hz])
    if audio_format.codec == "ulaw":
        audio = ulaw_encode(audio)
    async with provider(moonshine).connect(SttOptions(audio_format=audio_format)) as link:
        transcripts = await transcribe(link, audio, audio_format)
    said = TWO_CITIES[: TWO_CITIES.index("it was the age of\n")]
    assert word_error_rate(said, " ".join(commits(transcripts))) <= 0.2


async def test_links_side_by_side_hear_only_their_own(moonshine: Moonshine) -> None:
    """Three speakers at once are each understood as if they were alone, to the letter."""
    stt = provider(moonshine)
    pcm_16k = AudioFormat("pcm", SAMPLE_RATE_HZ)
    async with stt.connect(SttOptions()) as link:
        alone = commits(await transcribe(link, to_pcm(load("beckett")), pcm_16k))
    heard: dict[str, list[str]] = {}

    async def one(name: str, samples: Samples) -> None:
        async with stt.connect(SttOptions()) as link:
            heard[name] = commits(await transcribe(link, to_pcm(samples), pcm_16k))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "Beckett", load("beckett"))
        nursery.start_soon(one, "Dickens", load("two_cities")[: 7 * SAMPLE_RATE_HZ])
        nursery.start_soon(one, "nobody", np.zeros(10 * SAMPLE_RATE_HZ, np.float32))
    assert heard["nobody"] == []
    assert heard["Beckett"] == alone
    assert len(alone) == 6
    assert word_error_rate(BECKETT, " ".join(alone)) <= 0.25
    said = TWO_CITIES[: TWO_CITIES.index("it was the age of\n")]
    assert word_error_rate(said, " ".join(heard["Dickens"])) <= 0.2


async def test_the_event_loop_runs_on_while_recognising(moonshine: Moonshine) -> None:
    """While seconds of speech are recognised, other tasks go on, with CPU and lock to be had."""
    beats = 0

    async def heartbeat() -> None:
        nonlocal beats
        while True:
            await trio.sleep(0.002)
            beats += 1

    async with provider(moonshine).connect(SttOptions()) as link, trio.open_nursery() as nursery:
        all_began_s, loop_began_s = time.process_time(), time.thread_time()
        nursery.start_soon(heartbeat)
        audio = to_pcm(load("two_cities")[33 * SAMPLE_RATE_HZ : 43 * SAMPLE_RATE_HZ])
        await transcribe(link, audio, AudioFormat("pcm", SAMPLE_RATE_HZ))
        nursery.cancel_scope.cancel()
    assert time.thread_time() - loop_began_s < 0.3 * (time.process_time() - all_began_s)
    assert beats > 150  # some 680 on an idle machine; held up by each step, it would be one a step


async def test_words_have_times_of_the_sessions_audio(moonshine: Moonshine) -> None:
    """With timestamps the words of the third sentence lie where it was said."""
    options = SttOptions(include_timestamps=True)
    async with provider(moonshine).connect(options) as link:
        transcripts = await transcribe(link, to_pcm(load("beckett")), AudioFormat("pcm", SAMPLE_RATE_HZ))
    third = [t for t in transcripts if isinstance(t, CommittedTranscript)][2]
    assert [word.text for word in third.words] == third.text.split()
    assert 3.2 < third.words[0].start_s < third.words[-1].end_s < 4.5


async def test_a_manual_session_commits_when_told(moonshine: Moonshine) -> None:
    """Push to talk: the pauses of the speaker end nothing, and the end of the sound counts."""
    async with provider(moonshine).connect(SttOptions(commit_strategy="manual")) as link:
        await feed(link, to_pcm(load("beckett")[: int(2.95 * SAMPLE_RATE_HZ)]), 3200)
        await link.commit()
        transcripts = []
        async for transcript in link:
            transcripts.append(transcript)
            if isinstance(transcript, CommittedTranscript):
                break
    assert word_error_rate("Ever tried. Ever failed.", transcripts[-1].text) <= 0.25


# --- the protocol -------------------------------------------------------------------------------------


def test_it_is_a_provider(scripted: ScriptedEngine) -> None:
    """The class satisfies the interface that the runtime knows."""
    stt: SttProvider = provider(scripted)
    assert stt.name == "local"


async def test_a_commit_of_nothing_is_blank(scripted: ScriptedEngine) -> None:
    """Every commit is answered, in order, also those without speech before them."""
    async with provider(scripted).connect(SttOptions()) as link:
        await link.commit()
        await link.send(LOUD_SECOND)
        await link.commit()
        await link.commit()
        answers = []
        async for transcript in link:
            if isinstance(transcript, CommittedTranscript):
                answers.append(transcript.text)
            if len(answers) == 3:
                break
    assert answers[0] == answers[2] == ""
    assert answers[1].endswith("hops")


async def test_small_chunks_are_heard_together(scripted: ScriptedEngine) -> None:
    """No step is made for 20 ms of audio; what comes during a step makes one step, not many."""
    async with provider(scripted).connect(SttOptions()) as link, trio.open_nursery() as nursery:
        scripted.gate.clear()
        nursery.start_soon(read, link)
        await feed(link, LOUD_SECOND[:6400], 640)
        await until(lambda: scripted.inside == 1)
        await feed(link, LOUD_SECOND, 640)
        scripted.gate.set()
        await until(lambda: link.backlog_s < STEP_S)
        nursery.cancel_scope.cancel()
    assert scripted.transcribed <= 2


async def test_what_is_in_force_is_told(scripted: ScriptedEngine) -> None:
    """The link's config names the options in the client's words."""
    options = SttOptions(
        audio_format=AudioFormat.parse("pcm_24000"),
        vad_threshold=0.7,
        vad_silence_threshold_secs=1.2,
        min_speech_duration_ms=250,
        min_silence_duration_ms=400,
        language_code="en-GB",
        model_id="scribe_v2_realtime",
    )
    async with provider(scripted).connect(options) as link:
        assert link.session_id
        assert link.config == {
            "model_id": "tiny-en",
            "language_code": "en",
            "audio_format": "pcm_24000",
            "sample_rate": 24000,
            "commit_strategy": "vad",
            "vad_threshold": 0.7,
            "vad_silence_threshold_secs": 1.2,
            "min_speech_duration_ms": 250,
            "min_silence_duration_ms": 400,
            "include_timestamps": False,
            "timestamps": "estimated",
        }


async def test_a_silence_is_never_shorter_than_a_pause(scripted: ScriptedEngine) -> None:
    """A minimum of silence above the threshold raises the threshold."""
    options = SttOptions(vad_silence_threshold_secs=0.5, min_silence_duration_ms=900)
    async with provider(scripted).connect(options) as link:
        assert link.config["vad_silence_threshold_secs"] == 0.9


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (SttOptions(language_code="de"), "invalid_field", "stt.language_code"),
        (SttOptions(language_code="enm"), "invalid_field", "stt.language_code"),
        (SttOptions(audio_format=AudioFormat("opus", 48000, 64)), "unsupported_format", "stt.audio_format"),
        (SttOptions(vad_threshold=1.5), "invalid_field", "stt.vad_threshold"),
        (SttOptions(vad_silence_threshold_secs=0.0), "invalid_field", "stt.vad_silence_threshold_secs"),
        (SttOptions(min_speech_duration_ms=-1), "invalid_field", "stt.min_speech_duration_ms"),
        (SttOptions(min_silence_duration_ms=60000), "invalid_field", "stt.min_silence_duration_ms"),
    ],
)
async def test_what_it_cannot_do_is_refused(
    scripted: ScriptedEngine, options: SttOptions, code: str, field: str
) -> None:
    """The refusal comes on entering, with the field at fault, and takes no place."""
    stt = provider(scripted, max_sessions=1)
    with pytest.raises(ClientError) as caught:
        async with stt.connect(options):
            pass
    assert (caught.value.code, caught.value.field) == (code, field)
    async with stt.connect(SttOptions()):
        pass


@pytest.mark.parametrize("language", [None, "en", "EN", "eng", "en-US", "en_gb"])
async def test_english_has_many_names(scripted: ScriptedEngine, language: str | None) -> None:
    """Every code of English is welcome."""
    async with provider(scripted).connect(SttOptions(language_code=language)):
        pass


# --- limits -------------------------------------------------------------------------------------------


def test_the_default_limit_follows_the_machine() -> None:
    """One core is shared with the rest of the server; more don't help an engine of one thread."""
    assert default_max_sessions(1) == 5
    assert default_max_sessions(2) == default_max_sessions(64) == 10


async def test_no_more_links_than_allowed(scripted: ScriptedEngine) -> None:
    """One too many is refused as overload; leaving a link makes room again."""
    stt = provider(scripted, max_sessions=2)
    async with stt.connect(SttOptions()):
        async with stt.connect(SttOptions()):
            with pytest.raises(ProviderError) as caught:
                async with stt.connect(SttOptions()):
                    pass
            assert caught.value.code == "stt_overloaded"
            assert caught.value.retryable
        async with stt.connect(SttOptions()):
            pass


async def test_no_new_link_while_others_wait_for_the_engine(
    scripted: ScriptedEngine, autojump_clock: trio.testing.MockClock
) -> None:
    """When a step has waited a second for its turn, another session could not be kept up with."""
    stt = provider(scripted)
    scripted.gate.clear()
    async with (
        stt.connect(SttOptions()) as first,
        stt.connect(SttOptions()) as second,
        trio.open_nursery() as nursery,
    ):
        for link in (first, second):
            await link.send(SECOND[:8000])
            await link.send(LOUD_SECOND)
            nursery.start_soon(link.__anext__)
        await trio.sleep(MAX_WAIT_S / 2)
        async with stt.connect(SttOptions()):
            pass
        await trio.sleep(MAX_WAIT_S)
        with pytest.raises(ProviderError) as caught:
            async with stt.connect(SttOptions()):
                pass
        assert caught.value.code == "stt_overloaded"
        scripted.gate.set()
        nursery.cancel_scope.cancel()


async def test_sending_waits_for_the_engine(scripted: ScriptedEngine) -> None:
    """Audio may be fed as fast as it is understood: a fast sender is slowed, not failed."""
    sent = 0

    async with provider(scripted, max_backlog_s=2.0).connect(SttOptions()) as link:

        async def send() -> None:
            nonlocal sent
            for _ in range(30):
                await link.send(LOUD_SECOND)
                sent += 1
                assert link.backlog_s <= 2.0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == 2
            with trio.fail_after(20):
                while sent < 30:
                    await link.__anext__()


async def test_an_engine_slower_than_real_time_fails_the_link(
    scripted: ScriptedEngine, autojump_clock: trio.testing.MockClock
) -> None:
    """When waiting as long as the bound does not bring the backlog below it, both ends are told."""
    scripted.gate.clear()
    async with provider(scripted, max_backlog_s=3.0).connect(SttOptions()) as link:
        for _ in range(3):
            await link.send(LOUD_SECOND)
        start_s = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            await link.send(LOUD_SECOND)
        assert caught.value.code == "stt_overloaded"
        assert trio.current_time() - start_s == pytest.approx(3.0)
        for use in (partial(link.send, SECOND), link.commit, link.__anext__):
            with pytest.raises(ProviderError, match="fell behind"):
                await use()


async def test_failing_reaches_a_reader_that_waits(scripted: ScriptedEngine) -> None:
    """A failed step ends the iteration with the provider's error, and the link with it."""
    scripted.fails = True
    async with provider(scripted).connect(SttOptions()) as link:
        await link.send(LOUD_SECOND)
        with pytest.raises(ProviderError) as caught:
            await link.__anext__()
        assert caught.value.code == "stt_server_error"
        assert isinstance(caught.value.__cause__, EngineError)
        with pytest.raises(ProviderError):
            await link.send(LOUD_SECOND)


# --- ends ---------------------------------------------------------------------------------------------


async def test_one_thread_at_a_time_is_in_the_engine(scripted: ScriptedEngine) -> None:
    """Twenty links at once never meet inside."""
    stt = provider(scripted)

    async def one() -> None:
        async with stt.connect(SttOptions()) as link:
            assert await transcribe(link, LOUD_SECOND, AudioFormat("pcm", SAMPLE_RATE_HZ))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one)
    assert scripted.most_inside == 1


async def test_cancelling_a_reader_loses_no_audio(scripted: ScriptedEngine) -> None:
    """A reader that is cancelled while it waits its turn leaves the audio for the next one."""
    turnstile = Turnstile()
    stt = LocalStt(scripted, ScriptedJudges(scripted), turnstile, max_sessions=1, max_backlog_s=9)
    async with stt.connect(SttOptions(commit_strategy="manual")) as link:
        await link.send(LOUD_SECOND)
        async with turnstile.turn():
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.__anext__)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                await link.send(LOUD_SECOND)
        await link.commit()
        with trio.fail_after(10):
            while not isinstance(transcript := await link.__anext__(), CommittedTranscript):
                pass
    assert transcript.text == f"{3 * SAMPLE_RATE_HZ // HOP} hops"


@pytest.mark.parametrize("checkpoints", range(6))
async def test_no_audio_is_lost_wherever_a_cancel_strikes(scripted: ScriptedEngine, checkpoints: int) -> None:
    """Also between a reader's getting its turn and the beginning of its step."""
    async with provider(scripted).connect(SttOptions(commit_strategy="manual")) as link:
        await link.send(LOUD_SECOND)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, link)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await link.commit()
        with trio.fail_after(10):
            while not isinstance(transcript := await link.__anext__(), CommittedTranscript):
                pass
    assert transcript.text == f"{SAMPLE_RATE_HZ // HOP} hops"


async def test_cancelling_during_a_step_waits_for_its_end(scripted: ScriptedEngine) -> None:
    """The engine is never left with a thread inside that nobody waits for."""
    async with provider(scripted).connect(SttOptions()) as link:
        await link.send(LOUD_SECOND)
        scripted.gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, link)
            await until(lambda: scripted.inside == 1)
            nursery.cancel_scope.cancel()
            scripted.gate.set()
        assert scripted.inside == 0


async def test_closing_ends_the_iteration(scripted: ScriptedEngine) -> None:
    """A reader ends without an error when its link is left, and the link cannot be used again."""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, provider(scripted).connect(SttOptions()) as link:
            nursery.start_soon(read, link)
            await trio.testing.wait_all_tasks_blocked()
    for use in (partial(link.send, SECOND), link.commit):
        with pytest.raises(trio.ClosedResourceError):
            await use()
    with pytest.raises(StopAsyncIteration):
        await link.__anext__()


async def test_closing_the_provider_waits_for_a_step_and_frees_the_model() -> None:
    """The model is not freed under a thread that uses it; afterwards it is gone."""
    async with trio.open_nursery() as nursery, open_local_stt() as stt, stt.connect(SttOptions()) as link:
        nursery.start_soon(read, link)
        await link.send(to_pcm(load("two_cities")[2 * SAMPLE_RATE_HZ : 4 * SAMPLE_RATE_HZ]))
        await until(lambda: link.backlog_s < 2)
        assert link.backlog_s > 0
    engine = stt._engine
    assert isinstance(engine, Moonshine)
    with pytest.raises(EngineError, match="closed"):
        engine.transcribe(load("beckett"))


async def test_links_leave_no_threads_or_memory_behind(scripted: ScriptedEngine) -> None:
    """A hundred links later there is one worker thread at most, and an hour of silence is not kept."""
    stt = provider(scripted)
    before = threading.active_count()
    for _ in range(100):
        async with stt.connect(SttOptions()) as link:
            await link.send(LOUD_SECOND)
            await link.__anext__()
    assert threading.active_count() <= before + 1
    stt = provider(scripted, max_backlog_s=3.0)
    async with stt.connect(SttOptions()) as link, trio.open_nursery() as nursery:
        nursery.start_soon(read, link)
        for _ in range(600):
            await link.send(SECOND)
        assert sum(map(len, link._inbox)) <= 4 * len(SECOND)
        assert len(link._listener._lead) * HOP <= SAMPLE_RATE_HZ
        nursery.cancel_scope.cancel()
