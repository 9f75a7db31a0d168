"""The real engine, on human speech and on noise."""

import os
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from tests.fakes.recordings import load, to_pcm, word_error_rate
from voice_fsm.errors import ProviderError, ProviderFault
from voice_fsm.stt.moonshine import CONTEXT_HOPS, HOP, SAMPLE_RATE_HZ, EngineError, Moonshine, Samples


@pytest.fixture(scope="module")
def engine() -> Iterator[Moonshine]:
    engine = Moonshine.load()
    yield engine
    engine.close()


def noise(kind: str, seconds: float = 2.0) -> Samples:
    random = np.random.default_rng(7)
    size = int(SAMPLE_RATE_HZ * seconds)
    white = random.standard_normal(size)
    time_s = np.arange(size) / SAMPLE_RATE_HZ
    kinds: dict[str, npt.NDArray[np.float64]] = {
        "silence": np.zeros(size),
        "hiss": white * 0.03,
        "loud hiss": white * 0.2,
        "hum": np.sin(2 * np.pi * 100 * time_s) * 0.2,
        "chord": np.sin(2 * np.pi * np.outer((220, 277, 330), time_s)).sum(axis=0) * 0.1,
        "clicks": np.where(np.arange(size) % 4000 < 200, white, 0) * 0.3,
    }
    return kinds[kind].astype(np.float32)


def test_speech_is_found_where_it_is(engine: Moonshine) -> None:
    """Six short sentences with pauses between them are six stretches of speech."""
    found = engine.find_speech(load("beckett"), 0.5)
    assert np.count_nonzero(np.diff(found.astype(int)) == 1) == 6
    assert 0.3 < np.mean(found) < 0.7


@pytest.mark.parametrize("kind", ["silence", "hiss", "loud hiss", "hum", "chord", "clicks"])
def test_noise_is_not_speech(engine: Moonshine, kind: str) -> None:
    """What is not a voice begins no utterance, loud or not."""
    assert not engine.find_speech(noise(kind), 0.5).any()


def test_a_higher_threshold_finds_less(engine: Moonshine) -> None:
    """The threshold counts, in both directions."""
    faint = load("beckett") + noise("hiss", 20)[: len(load("beckett"))]
    found = [np.count_nonzero(engine.find_speech(faint, threshold)) for threshold in (0.2, 0.5, 0.8)]
    assert found[0] > found[1] > found[2] > 0


def test_what_was_heard_before_fades_within_the_context(engine: Moonshine) -> None:
    """The detector's state is shared by the whole process; the context makes answers independent of it."""
    speech, other = load("beckett"), load("two_cities")[-5 * SAMPLE_RATE_HZ :]
    differing = total = 0
    for start in range(0, len(speech) - 20 * HOP, 12 * HOP):
        piece = speech[start : start + 20 * HOP]
        answers = []
        for before in (noise("silence"), other):
            engine.find_speech(before, 0.5)
            answers.append(engine.find_speech(piece, 0.5)[CONTEXT_HOPS:])
        differing += int(np.count_nonzero(answers[0] != answers[1]))
        total += len(answers[0])
    assert differing / total < 0.03


def test_a_sentence_is_transcribed(engine: Moonshine) -> None:
    """A human voice is understood, nearly to the word."""
    text = engine.transcribe(load("two_cities")[int(0.9 * SAMPLE_RATE_HZ) : int(4.9 * SAMPLE_RATE_HZ)])
    assert word_error_rate("It was the best of times, it was the worst of times.", text) <= 0.1


@pytest.mark.parametrize("samples", [0, 1, HOP, 3000])
def test_very_short_sound_is_no_error(engine: Moonshine, samples: int) -> None:
    """The encoder would fail on it; it is padded."""
    engine.transcribe(load("beckett")[:samples])
    assert len(engine.find_speech(load("beckett")[:samples], 0.5)) == samples // HOP


def test_sound_may_be_a_view_of_other_sound(engine: Moonshine) -> None:
    """Strides are honoured rather than read past."""
    speech = load("beckett")
    assert (
        engine.find_speech(np.repeat(speech, 2)[::2], 0.5) == engine.find_speech(speech, 0.5)
    ).mean() > 0.97


def test_a_closed_engine_refuses() -> None:
    """Closing twice is fine; using it afterwards is an error, not a crash."""
    engine = Moonshine.load()
    engine.find_speech(noise("silence"), 0.5)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.transcribe(noise("silence"))
    with pytest.raises(EngineError, match="closed"):
        engine.find_speech(noise("silence"), 0.5)


@pytest.mark.parametrize("before", [None, "0"])
def test_loading_leaves_the_environment_alone(
    engine: Moonshine, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """The variable that loading needs is gone, or what it was, afterwards."""
    name = "MOONSHINE_ORT_SINGLE_THREAD"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    Moonshine.load().close()
    assert os.environ.get(name) == before


def test_the_model_uses_one_thread(engine: Moonshine) -> None:
    """Recognition takes no more CPU time than time: ONNX Runtime has no other threads to spin."""
    before = os.times()
    engine.transcribe(load("two_cities")[: 10 * SAMPLE_RATE_HZ])
    after = os.times()
    assert after.user + after.system - before.user - before.system <= (after.elapsed - before.elapsed) * 1.3


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    with pytest.raises(ProviderError, match=r"install voice-fsm\[local\]") as caught:
        Moonshine.load()
    assert caught.value.code == "stt_unavailable"
    assert caught.value.fault is ProviderFault.UNAVAILABLE


def test_a_missing_model_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel without its model (later releases download theirs) is told as such."""
    monkeypatch.setattr("voice_fsm.stt.moonshine.MODEL_NAME", "no-such-model")
    with pytest.raises(ProviderError, match="cannot be loaded") as caught:
        Moonshine.load()
    assert caught.value.code == "stt_unavailable"


def test_pcm_helper_is_lossless_enough() -> None:
    """The recordings lose nothing audible on their way through 16 bits."""
    speech = load("beckett")
    assert np.max(np.abs(np.frombuffer(to_pcm(speech), "<i2") / 32767 - speech)) < 1e-3
