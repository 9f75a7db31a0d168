import pytest

from voice_fsm.vad.hysteresis import Change, Hysteresis, Started, Stopped, VadRules

HOP_MS = 32.0
RULES = VadRules(threshold=0.8, min_speech_ms=60, silence_ms=100)


def judge(hysteresis: Hysteresis, hops: str) -> list[Change]:
    """Judgements of 32 ms each: ``#`` is speech."""
    changes: list[Change] = []
    for number, hop in enumerate(hops, 1):
        until_ms = number * HOP_MS
        told: tuple[Change | None] = (
            (hysteresis.note_speech(until_ms, HOP_MS),)
            if hop == "#"
            else (hysteresis.note_silence(until_ms),)
        )
        changes += filter(None, told)
    return changes


@pytest.mark.parametrize(
    ("hops", "changes"),
    [
        ("........", []),
        ("..#.....", []),
        ("..##....", [Started(128, 64), Stopped(256, 128)]),
        ("..#....#..", [Started(256, 64)]),
        ("..#.......#..", []),
        ("..##..##..##....", [Started(128, 64), Stopped(512, 384)]),
        ("##....##....", [Started(64, 64), Stopped(192, 64), Started(256, 64), Stopped(384, 256)]),
    ],
    ids=["silence", "click", "word", "two parts", "far apart", "pauses", "twice"],
)
def test_what_judgements_amount_to(hops: str, changes: list[Change]) -> None:
    """Enough speech within a window starts it; enough silence after the last of it stops it."""
    assert judge(Hysteresis(RULES), hops) == changes


def test_a_long_minimum_widens_the_window() -> None:
    """Speech with small gaps starts, however much of it is asked for."""
    rules = VadRules(min_speech_ms=500)
    (started,) = judge(Hysteresis(rules), "###." * 7)
    assert started == Started(22 * HOP_MS - HOP_MS, 512)


def test_speech_under_way_is_easier_to_believe() -> None:
    """A weak end of a word needs a lower probability than the start."""
    hysteresis = Hysteresis(RULES)
    assert hysteresis.threshold == pytest.approx(0.8)
    judge(hysteresis, "##")
    assert hysteresis.threshold == pytest.approx(0.55)
    judge(hysteresis, "##....")
    assert hysteresis.threshold == pytest.approx(0.8)
