"""The real engine, on human speech and on noise."""

import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests.fakes.recordings import load, to_pcm, word_error_rate
from voice_fsm.errors import ProviderError, ProviderFault
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, EngineError, Moonshine


@pytest.fixture(scope="module")
def engine() -> Iterator[Moonshine]:
    engine = Moonshine.load()
    yield engine
    engine.close()


def test_a_sentence_is_transcribed(engine: Moonshine) -> None:
    """A human voice is understood, nearly to the word."""
    text = engine.transcribe(load("two_cities")[int(0.9 * SAMPLE_RATE_HZ) : int(4.9 * SAMPLE_RATE_HZ)])
    assert word_error_rate("It was the best of times, it was the worst of times.", text) <= 0.1


@pytest.mark.parametrize("samples", [0, 1, 512, 3000])
def test_very_short_sound_is_no_error(engine: Moonshine, samples: int) -> None:
    """The encoder would fail on it; it is padded."""
    engine.transcribe(load("beckett")[:samples])


def test_sound_may_be_a_view_of_other_sound(engine: Moonshine) -> None:
    """Strides are honoured rather than read past."""
    speech = load("beckett")[: 3 * SAMPLE_RATE_HZ]
    assert engine.transcribe(np.repeat(speech, 2)[::2]) == engine.transcribe(speech)


def test_a_closed_engine_refuses() -> None:
    """Closing twice is fine; using it afterwards is an error, not a crash."""
    engine = Moonshine.load()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.transcribe(np.zeros(SAMPLE_RATE_HZ, np.float32))


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
