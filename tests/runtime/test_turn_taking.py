"""Whole sessions in a room of sounds; `tests.bench.turn_taking` measures what is only true or false here."""

import attrs
import pytest

from tests.bench import sounds
from tests.bench.interruptions import POLICIES, Figures, interruptions, nothing, other_sounds, watch
from tests.bench.room import Scene
from voice_fsm.fsm.options import TurnOptions
from voice_fsm.vad.engines import ThoroughJudges
from voice_fsm.vad.hysteresis import VadRules

PAUSABLE = POLICIES["vad, pausable"]


def figures_of(scene: Scene, turn: TurnOptions = PAUSABLE) -> Figures:
    return watch([scene], turn, VadRules(), ThoroughJudges())


@pytest.mark.parametrize("policy", ["partial", "vad", "vad, pausable"])
def test_a_user_who_speaks_up_in_noise_is_heard(policy: str) -> None:
    """The reply is stopped whatever notices it, sooner paused by a detector, and nothing comes late."""
    scene = list(interruptions("pink", 10))[6]
    figures = figures_of(scene, POLICIES[policy])
    assert (figures.stopped, figures.before, figures.stale) == (1, 0, 0)
    ((silent_ms, stopped_ms),) = zip(figures.silent_ms, figures.stopped_ms, strict=True)
    assert (silent_ms < stopped_ms) == (policy == "vad, pausable")


def test_a_sound_of_listening_pauses_and_does_not_stop() -> None:
    """The reply goes on after a hum, with the next sample."""
    scene = next(iter(dict(other_sounds(None, 0))["back-channel"]))
    figures = figures_of(scene)
    assert (figures.stopped, figures.stale, len(figures.pauses_ms)) == (0, 0, 1)
    assert figures_of(scene, attrs.evolve(PAUSABLE, backchannels="interrupt")).stopped == 1


def test_a_reply_that_comes_back_through_the_microphone_goes_on() -> None:
    """The assistant's own voice, 20 dB fainter and at times misheard, does not stop it."""
    scene = list(nothing(None, 0, echo_db=-20))[4]
    assert figures_of(scene).stopped == 0
    assert figures_of(scene, attrs.evolve(PAUSABLE, echo_filter=False)).stopped == 1


def test_onsets_are_where_speech_begins_to_be_heard() -> None:
    """A breath before the first word is none of it, and in noise only what reaches the noise is heard."""
    breath, *_ = sounds.human_utterances()
    assert breath.onset > 0.25 * 16000
    soft = sounds.human_utterances()[-2]
    assert soft.onset <= soft.onset_in(20) < soft.onset_in(5)
