import numpy as np
import pytest

from tests.bench.sounds import noise
from voice_fsm.vad.loudness import MARGIN_DB, QUIETEST_DB, NoiseFloor, TalkerLevel, levels_db


def test_levels_are_relative_to_full_scale() -> None:
    """A square wave at full scale has 0 dB, at a tenth -20 dB; silence is finite."""
    square = np.where(np.arange(320) % 2, 32767, -32767)
    samples = np.concatenate((square, square // 10, np.zeros(320))).astype(np.int16)
    assert levels_db(samples, 320)[:2] == pytest.approx([0, -20], abs=0.1)
    assert levels_db(samples, 320)[2] < QUIETEST_DB


@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
def test_the_floor_settles_at_steady_noise_within_three_seconds(kind: str) -> None:
    """The level that stands out is a margin above the noise, and not below silence."""
    floor = NoiseFloor()
    samples = (noise(kind, 6) * 1000).astype(np.int16)  # type: ignore[arg-type]  # by the parameters
    levels = levels_db(samples, 320)
    for level_db in levels[:150]:
        floor.note(level_db, in_speech=False)
    assert floor.audible_db == pytest.approx(np.median(levels) + MARGIN_DB, abs=2.5)


def test_speech_hardly_raises_the_floor_and_silence_lowers_it() -> None:
    """Two seconds of speech raise it by 2 dB at most; in silence it comes down, to the quietest room."""
    floor = NoiseFloor()
    for _ in range(100):
        floor.note(-20, in_speech=True)
    assert floor.audible_db < QUIETEST_DB + MARGIN_DB + 2
    for _ in range(100):
        floor.note(-90, in_speech=False)
    assert floor.audible_db == pytest.approx(QUIETEST_DB + MARGIN_DB)


def test_the_talkers_level_is_that_of_vowels_and_is_forgotten() -> None:
    """It follows the loud parts of speech, and a minute's silence makes room for a fainter voice."""
    talker = TalkerLevel()
    assert talker.beyond_echo_db == -np.inf
    talker.note_silence(1000)
    for _ in range(10):
        for level_db in (-40, -20, -20):
            talker.note_speech(level_db)
    told_db = talker.beyond_echo_db
    assert -33 < told_db < -29
    talker.note_silence(60_000)
    assert talker.beyond_echo_db == pytest.approx(told_db - 30)
