import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.speech.counting_tts import CountingTts, audio_of
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.metrics import Metrics
from voice_fsm.runtime.guards import FallbackTts
from voice_fsm.speech.cache import SpeechCache
from voice_fsm.speech.disk import DiskStore
from voice_fsm.speech.service import SpeechConfig, SpeechRequest, SpeechService, open_speech
from voice_fsm.tts.base import Speech, SpeechAudio

HELLO = SpeechRequest(text="Hello there, my friend.")
AUDIO = audio_of(["Hello there, my friend."])


@pytest.fixture
def tts() -> CountingTts:
    return CountingTts(chunk_s=0)


def on_disk(directory: Path, memory_bytes: int = 0) -> SpeechCache:
    return SpeechCache(memory_bytes, DiskStore(directory, 1_000_000))


async def heard(service: SpeechService, request: SpeechRequest) -> tuple[list[Speech], bool]:
    async with service.synthesize(request) as synthesis:
        items = [item async for item in synthesis]
        return items, synthesis.cached


async def settled(service: SpeechService) -> None:
    """Wait until what was heard to its end is kept as well."""
    with trio.fail_after(5):
        while service._recordings:
            await trio.sleep(0.001)


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def sound(items: list[Speech]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, SpeechAudio))


async def test_what_was_spoken_is_given_again(tts: CountingTts) -> None:
    """The second request gets audio and times as they were, from memory, and nobody is asked."""
    async with open_speech(tts, SpeechConfig(), SpeechCache(100_000)) as speech:
        first, was_cached = await heard(speech, HELLO)
        await settled(speech)
        assert (sound(first), was_cached) == (AUDIO, False)
        assert await heard(speech, HELLO) == (first, True)
    assert tts.calls == 1


async def test_what_is_complete_counts_as_cached_while_it_is_written_down(
    tts: CountingTts, tmp_path: Path
) -> None:
    """Whoever comes between the end of a synthesis and its place on disk gets it at once."""
    async with (
        open_speech(tts, SpeechConfig(), on_disk(tmp_path)) as speech,
        speech.synthesize(HELLO) as synthesis,
    ):
        assert sound([item async for item in synthesis]) == AUDIO
        assert speech._recordings
        assert (await heard(speech, HELLO))[1] is True
    assert tts.calls == 1


async def test_who_joins_a_recall_is_given_from_the_cache(tts: CountingTts, tmp_path: Path) -> None:
    """Many at once for what is on disk: it is read once, and all of them got it from there."""
    async with open_speech(tts, SpeechConfig(), on_disk(tmp_path)) as speech:
        await heard(speech, HELLO)
    metrics, cached = Metrics(), list[bool]()

    async def ask() -> None:
        cached.append((await heard(speech, HELLO))[1])

    async with (
        open_speech(tts, SpeechConfig(), on_disk(tmp_path), metrics) as speech,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            nursery.start_soon(ask)
    assert cached == [True] * 20
    assert b'voice_fsm_speech_requests_total{source="disk"} 20.0' in metrics.text()


async def test_the_next_start_finds_it_on_disk(tts: CountingTts, tmp_path: Path) -> None:
    """Another service with the same directory gives the same items; a second time from memory."""
    async with open_speech(tts, SpeechConfig(), on_disk(tmp_path)) as speech:
        first, _ = await heard(speech, HELLO)
    cache = on_disk(tmp_path, 100_000)
    async with open_speech(tts, SpeechConfig(), cache) as speech:
        assert await heard(speech, HELLO) == (first, True)
        found = await cache.find(next(iter(cache._memory)))
        assert found is not None
        assert found[0] == "memory"
    assert tts.calls == 1


async def test_other_settings_are_another_sound(tts: CountingTts, tmp_path: Path) -> None:
    """When the operator chooses another voice, what the old one said is not given."""
    for identity in ("espeak en", "espeak fr"):
        async with open_speech(tts, SpeechConfig(identity=identity), on_disk(tmp_path)) as speech:
            assert (await heard(speech, HELLO))[1] is False
    assert tts.calls == 2


@pytest.mark.parametrize("request_", [HELLO, SpeechRequest(text=HELLO.text, cache=False)])
async def test_nothing_is_kept_where_it_is_switched_off(
    tts: CountingTts, tmp_path: Path, request_: SpeechRequest
) -> None:
    """By the operator for all, or by one request for itself."""
    cache = SpeechCache(0) if request_.cache else on_disk(tmp_path, 100_000)
    async with open_speech(tts, SpeechConfig(), cache) as speech:
        for _ in range(2):
            assert (await heard(speech, request_))[1] is False
            await settled(speech)
    assert tts.calls == 2
    assert files(tmp_path) == []


async def test_a_request_of_its_own_does_not_look(tts: CountingTts) -> None:
    """``cache=False`` gets new audio though there is some."""
    async with open_speech(tts, SpeechConfig(), SpeechCache(100_000)) as speech:
        await heard(speech, HELLO)
        await settled(speech)
        assert (await heard(speech, SpeechRequest(text=HELLO.text, cache=False)))[1] is False
    assert tts.calls == 2


async def test_what_was_not_finished_is_not_kept(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Neither a synthesis that everybody left nor one that failed leaves a part behind."""
    tts = CountingTts(chunk_s=1)
    async with open_speech(tts, SpeechConfig(), SpeechCache(100_000, DiskStore(tmp_path, 100_000))) as speech:
        with trio.move_on_after(3.5):
            await heard(speech, HELLO)
        tts.error, tts.fail_at = ProviderError(Upstream.TTS, ProviderFault.STALLED, "It stalled."), 3
        with pytest.raises(ProviderError):
            await heard(speech, HELLO)
        assert files(tmp_path) == []
        tts.error = None
        assert sound((await heard(speech, HELLO))[0]) == AUDIO


async def test_the_voice_of_a_stand_in_is_not_kept(tts: CountingTts) -> None:
    """Once the first choice is back, it is heard again."""
    first = CountingTts(error=ProviderError(Upstream.TTS, ProviderFault.UNREACHABLE, "It is away."))
    async with open_speech(FallbackTts(first, tts), SpeechConfig(), SpeechCache(100_000)) as speech:
        assert sound((await heard(speech, HELLO))[0]) == AUDIO
        await settled(speech)
        first.error, first.chunk_s = None, 0
        assert (await heard(speech, HELLO))[1] is False
    assert (first.calls, tts.calls) == (2, 1)


async def test_memory_is_bounded(tts: CountingTts) -> None:
    """What was used longest ago makes room; what is larger than all of it is not kept."""
    requests = [SpeechRequest(text=f"This is the sentence number {n}.") for n in range(3)]
    async with open_speech(tts, SpeechConfig(), SpeechCache(4500)) as speech:
        for request in (*requests[:2], requests[0], requests[2]):
            await heard(speech, request)
            await settled(speech)
        assert [(await heard(speech, requests[n]))[1] for n in (0, 2, 1)] == [True, True, False]
    async with open_speech(tts, SpeechConfig(), SpeechCache(100)) as speech:
        for _ in range(2):
            assert (await heard(speech, HELLO))[1] is False
            await settled(speech)


WRITER = """
import itertools, sys
from pathlib import Path
from voice_fsm.speech.disk import DiskStore
from voice_fsm.tts.base import SpeechAudio

store = DiskStore(Path(sys.argv[1]), 10**9)
for number in itertools.cycle(range(3)):
    store.write(str(number), [SpeechAudio(bytes([number + 1]) * 8_000_000)])
    print(number, flush=True)
"""


def test_a_process_killed_while_it_writes(tmp_path: Path) -> None:
    """Killed while a file is half written: what the next start finds is right, or not there."""
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline()
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            if not list(tmp_path.glob("*.tmp")):
                continue
            process.send_signal(signal.SIGSTOP)  # so that it cannot finish before it is struck
            if list(tmp_path.glob("*.tmp")):
                break
            process.send_signal(signal.SIGCONT)
        process.kill()
    assert list(tmp_path.glob("*.tmp")), "it was not struck in the middle: this proves nothing"
    store = DiskStore(tmp_path, 10**9)
    for number in range(3):
        assert store.read(str(number)) == (SpeechAudio(bytes([number + 1]) * 8_000_000),)
