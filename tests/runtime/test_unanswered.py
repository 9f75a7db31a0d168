"""What is kept for a new link: how much, in which order, how exactly, and in how little memory."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_decode, ulaw_encode
from voice_fsm.runtime.unanswered import BLOCK_MS, Commit, Unanswered

PCM = AudioFormat("pcm", 16000)
SECOND = PCM.bytes_per_second
BLOCK = PCM.size_bytes(BLOCK_MS)

sizes = st.integers(0, 3 * BLOCK // 2).map(lambda samples: 2 * samples)
moves = st.one_of(
    st.tuples(st.just("append"), sizes.filter(bool)),
    st.tuples(st.just("commit"), st.none()),
    st.tuples(st.just("forget"), sizes),
    st.tuples(st.just("forget_utterance"), st.none()),
    st.tuples(st.just("take_all"), st.none()),
)


def noise(size_bytes: int, seed: int = 0) -> bytes:
    samples = np.random.default_rng(seed).normal(0, 3000, size_bytes // 2)
    return samples.astype("<i2").tobytes()


def samples_of(items: list[bytes | Commit]) -> npt.NDArray[np.int32]:
    """All audio, with a level that none has where there is a commit."""
    parts = [
        np.array([1 << 20], np.int32)
        if isinstance(item, Commit)
        else np.frombuffer(item, "<i2").astype(np.int32)
        for item in items
    ]
    return np.concatenate([np.empty(0, np.int32), *parts])


def forget(kept: list[bytes | Commit], size_bytes: int) -> None:
    while size_bytes > 0 and kept:
        item = kept.pop(0)
        if isinstance(item, bytes):
            if len(item) > size_bytes:
                kept.insert(0, item[size_bytes:])
            size_bytes -= len(item)


@given(st.lists(moves, max_size=30))
def test_what_comes_back_is_what_was_not_forgotten(done: list[tuple[str, int | None]]) -> None:
    """Held against a plain list: order, sizes, commits, and every sample to within mu-law's step."""
    unanswered, kept = Unanswered(PCM), list[bytes | Commit]()
    for seed, (move, size) in enumerate([*done, ("take_all", None)]):
        match move:
            case "append":
                audio = noise(size or 0, seed)
                unanswered.append(audio)
                kept.append(audio)
            case "commit":
                unanswered.append(Commit())
                kept.append(Commit())
            case "forget":
                unanswered.forget(size or 0)
                forget(kept, size or 0)
            case "forget_utterance" if unanswered.has_commit:
                unanswered.forget_utterance()
                del kept[: kept.index(Commit()) + 1]
            case "take_all":
                expected, given_back = samples_of(kept), samples_of(unanswered.take_all())
                assert given_back.shape == expected.shape
                assert np.all(np.abs(given_back - expected) <= 4 + np.abs(expected) // 16)
                kept = []
        assert unanswered.size_bytes == sum(len(item) for item in kept if isinstance(item, bytes))
        assert unanswered.has_commit == (Commit() in kept)


def test_the_newest_audio_is_exact() -> None:
    """Less than a block is not worth the loss, with a commit behind it or not."""
    alone: list[bytes | Commit] = [noise(BLOCK - 2)]
    for items in (alone, [*alone, Commit()]):
        unanswered = Unanswered(PCM)
        for item in items:
            unanswered.append(item)
        assert unanswered.take_all() == items


def test_a_second_time_costs_nothing() -> None:
    """Audio that goes from link to link is made mu-law once: what comes back stays as it is."""
    unanswered = Unanswered(PCM)
    unanswered.append(noise(SECOND))
    once = unanswered.take_all()
    assert once == [ulaw_decode(ulaw_encode(noise(SECOND)))]
    for item in once:
        unanswered.append(item)
    assert unanswered.take_all() == once


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
def test_other_codecs_are_kept_as_they_came(codec: str) -> None:
    """They are small already."""
    audio_format = AudioFormat(codec, 8000)  # type: ignore[arg-type]  # a codec by name
    unanswered = Unanswered(audio_format)
    for _ in range(30):
        unanswered.append(noise(800))
    unanswered.forget(801)
    assert (
        b"".join(item for item in unanswered.take_all() if isinstance(item, bytes)) == (noise(800) * 30)[801:]
    )


def test_it_takes_half_the_memory() -> None:
    """Ten seconds in pieces of 20 ms take little more than half of what they took as they came."""
    unanswered = Unanswered(PCM)
    tracemalloc.start()
    try:
        for _ in range(500):
            unanswered.append(noise(SECOND // 50))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unanswered.size_bytes == 10 * SECOND
    assert held_bytes < 0.56 * unanswered.size_bytes
