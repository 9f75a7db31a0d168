"""What is kept for a new link: how much, in which order, and in how little memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.audio.samples import ulaw_decode
from voice_fsm.runtime.unanswered import WORTH_IT_BYTES, Commit, Unanswered

LEVELS = [ulaw_decode(bytes([code])) for code in range(0x80, 0x100)]
"""Samples that mu-law has, so that they come through unchanged."""
FEW, MANY = 9, WORTH_IT_BYTES // 2

counts = st.integers(1, FEW) | st.integers(MANY, MANY + FEW)
moves = st.one_of(
    st.tuples(st.just("append"), counts),
    st.tuples(st.just("commit"), st.none()),
    st.tuples(st.just("compand"), st.none()),
    st.tuples(st.just("forget"), counts | st.integers(-FEW, 0)),
    st.tuples(st.just("forget_utterance"), st.none()),
    st.tuples(st.just("take_all"), st.none()),
)


def forget(kept: list[bytes | Commit], samples: int) -> None:
    while samples > 0 and kept:
        samples -= not isinstance(kept.pop(0), Commit)


def samples_of(items: list[bytes | Commit]) -> list[bytes | Commit]:
    samples = list[bytes | Commit]()
    for item in items:
        if isinstance(item, Commit):
            samples.append(item)
        else:
            samples += [item[at : at + 2] for at in range(0, len(item), 2)]
    return samples


@given(st.lists(moves, max_size=20))
def test_what_comes_back_is_what_was_not_forgotten(done: list[tuple[str, int | None]]) -> None:
    """Held against a plain list of samples and commits."""
    unanswered, kept = Unanswered(), list[bytes | Commit]()
    for number, (move, count) in enumerate([*done, ("take_all", None)]):
        match move:
            case "append":
                samples = [LEVELS[number]] * (count or 0)
                unanswered.append(b"".join(samples))
                kept += samples
            case "commit":
                unanswered.append(Commit())
                kept.append(Commit())
            case "compand":
                unanswered.compand()
            case "forget":
                unanswered.forget(2 * (count or 0))
                forget(kept, count or 0)
            case "forget_utterance" if unanswered.has_commit:
                unanswered.forget_utterance()
                del kept[: kept.index(Commit()) + 1]
            case "take_all":
                assert samples_of(unanswered.take_all()) == kept
                kept = []
        assert unanswered.size_bytes == 2 * sum(not isinstance(item, Commit) for item in kept)
        assert unanswered.has_commit == (Commit() in kept)


def test_mu_law_takes_half_the_memory() -> None:
    """Ten seconds in pieces of 20 ms take little more than half of what they took as they came."""
    unanswered = Unanswered()
    tracemalloc.start()
    try:
        for number in range(500):
            unanswered.append(bytes(640))
            if number % 25 == 24:
                unanswered.compand()
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unanswered.size_bytes == 320_000
    assert held_bytes < 0.56 * unanswered.size_bytes
