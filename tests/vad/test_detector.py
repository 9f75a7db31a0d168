import resource
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench import sounds
from tests.fakes.recordings import load, to_pcm
from voice_fsm.audio import Codec
from voice_fsm.audio.samples import ulaw_encode
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples
from voice_fsm.vad.detector import ATTENTIVE_FRAMES, CONTEXT_HOPS, Intake, SpeechDetector
from voice_fsm.vad.engines import FRAME, HOP, ThoroughJudge, ThoroughJudges
from voice_fsm.vad.hysteresis import Change, Started, Stopped, VadRules

LOUD = b"\x00\x10" * FRAME
QUIET = b"\x01\x00" * FRAME


class ScriptedQuick:
    """Takes frames for speech by their number."""

    def __init__(self, fires: Callable[[int], bool]) -> None:
        self._fires = fires
        self._heard = 0

    def may_be_speech(self, frame: bytes) -> bool:
        assert len(frame) == FRAME * 2
        self._heard += 1
        return self._fires(self._heard - 1)


class ScriptedThorough:
    """Takes everything loud for speech, and counts."""

    def __init__(self) -> None:
        self.hops = 0

    def reset(self) -> None:
        """Nothing is kept."""

    def process_chunk(self, audio: bytes) -> float:
        assert len(audio) == HOP * 2
        self.hops += 1
        return 1.0


class ScriptedJudges(ThoroughJudges):
    """Lends one judge, and knows whether it is lent."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = ScriptedThorough()
        self.lent = 0
        self.lent_ever = 0

    def lend(self) -> ThoroughJudge:
        self.lent += 1
        self.lent_ever += 1
        return self.judge

    def take_back(self, judge: ThoroughJudge) -> None:
        assert judge is self.judge
        self.lent -= 1


@pytest.fixture(scope="module")
def judges() -> ThoroughJudges:
    return ThoroughJudges()


def hear(judges: ThoroughJudges, sound: Samples, rules: VadRules = VadRules()) -> list[Change]:
    detector = SpeechDetector(rules, judges)
    changes = detector.hear(to_pcm(sound))
    detector.close()
    return changes


# --- the cascade, with scripted judges --------------------------------------------------------------


def test_silence_costs_the_thorough_judge_nothing() -> None:
    """It is asked only where the quick one hears something that stands out; what is too quiet does not."""
    judges = ScriptedJudges()
    detector = SpeechDetector(VadRules(), judges, quick=ScriptedQuick(lambda _: False))
    assert detector.hear(LOUD * 100) == []
    detector = SpeechDetector(VadRules(), judges, quick=ScriptedQuick(lambda _: True))
    assert detector.hear(QUIET * 100) == []
    assert judges.lent_ever == 0


def test_a_suspicion_is_judged_with_what_came_before_and_for_a_while_after() -> None:
    """One frame is enough for the thorough judge to hear the context, the frame, and 0.2 s in all."""
    judges = ScriptedJudges()
    detector = SpeechDetector(
        VadRules(min_speech_ms=5000), judges, quick=ScriptedQuick(lambda number: number == 50)
    )
    detector.hear(QUIET * 50)
    detector.hear(LOUD)
    assert judges.lent == 1
    detector.hear(QUIET * 49)
    assert judges.lent == 0
    assert judges.judge.hops == CONTEXT_HOPS + ATTENTIVE_FRAMES * FRAME // HOP


def test_a_sound_starts_and_stops_where_it_is() -> None:
    """Positions are those of the audio, and silence is counted from the last hop of speech."""
    quick = ScriptedQuick(lambda number: 100 <= number < 150)
    detector = SpeechDetector(VadRules(silence_ms=500), ScriptedJudges(), quick=quick)
    started, stopped = detector.hear(QUIET * 100 + LOUD * 50 + QUIET * 100)
    assert isinstance(started, Started)
    assert 2030 <= started.at_ms <= 2070
    assert isinstance(stopped, Stopped)
    assert stopped.spoke_until_ms == pytest.approx(3000, abs=32)
    assert stopped.at_ms == pytest.approx(stopped.spoke_until_ms + 500, abs=32)


def test_a_detector_that_is_closed_gives_its_judge_back() -> None:
    """However its session ends, the judge serves the next; closing twice does no harm."""
    judges = ScriptedJudges()
    detector = SpeechDetector(VadRules(), judges, quick=ScriptedQuick(lambda _: True))
    detector.hear(LOUD)
    assert judges.lent == 1
    detector.close()
    detector.close()
    assert judges.lent == 0


# --- real judges, real sounds -----------------------------------------------------------------------


def test_one_network_serves_one_session_after_the_other(judges: ThoroughJudges) -> None:
    """A judge that was given back has forgotten what it heard, and is lent again."""
    first = judges.lend()
    speech = to_pcm(load("beckett")[SAMPLE_RATE_HZ : SAMPLE_RATE_HZ * 3])
    hops = [speech[start : start + HOP * 2] for start in range(0, HOP * 2 * 40, HOP * 2)]
    heard = [first.process_chunk(hop) for hop in hops]
    judges.take_back(first)
    again = judges.lend()
    assert again is first
    assert judges.lend() is not first
    assert [again.process_chunk(hop) for hop in hops] == heard
    assert max(heard) > 0.9


def test_the_network_runs_on_the_thread_that_calls_it(judges: ThoroughJudges) -> None:
    """Four threads that meet after every operation would cost ten times as much."""
    judge = judges.lend()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(50):
        judge.process_chunk(b"\1\0" * HOP)
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < 50


def test_speech_is_heard_when_it_begins_and_ends(judges: ThoroughJudges) -> None:
    """A person's sentences start within a fifth of a second and stop 0.6 s after their end."""
    for utterance in sounds.human_utterances()[3:9]:
        started, *_, stopped = hear(judges, sounds.after_silence(utterance.samples, before_s=1))
        onset_ms, end_ms = (1000 + at / 16 for at in (utterance.onset, utterance.end))
        assert isinstance(started, Started)
        assert onset_ms - 40 < started.at_ms < onset_ms + 200
        assert isinstance(stopped, Stopped)
        assert end_ms + 550 < stopped.at_ms < end_ms + 700


@pytest.mark.parametrize("kind", ["white", "pink"])
def test_speech_is_heard_in_noise(judges: ThoroughJudges, kind: sounds.NoiseKind) -> None:
    """At 10 dB each sentence still starts and stops once or more, and the noise before it does not start."""
    for utterance in sounds.robot_utterances()[:4]:
        placed = sounds.after_silence(utterance.samples, before_s=3)
        changes = hear(judges, sounds.with_noise(placed, kind, 10))
        assert changes[0].at_ms > 2960 + utterance.onset / 16
        assert len(changes) >= 2
        assert isinstance(changes[-1], Stopped)


@pytest.mark.parametrize("kind", ["white", "pink", "babble", None])
def test_noise_and_silence_are_not_speech(judges: ThoroughJudges, kind: sounds.NoiseKind | None) -> None:
    """Ten seconds of it start nothing."""
    silence = np.zeros(10 * SAMPLE_RATE_HZ, np.float32)
    assert hear(judges, sounds.with_noise(silence, kind, 20 if kind == "babble" else 10)) == []


def test_bursts_are_not_speech(judges: ThoroughJudges) -> None:
    """Typing never starts it, and of coughs fewer than one in three."""
    assert hear(judges, sounds.after_silence(sounds.key_clicks(1), before_s=1)) == []
    coughs = [sounds.after_silence(sounds.cough(seed), before_s=0.5, after_s=0.5) for seed in range(30)]
    assert sum(bool(hear(judges, cough)) for cough in coughs) < 10


def test_the_assistants_echo_is_not_the_user(judges: ThoroughJudges) -> None:
    """Once the user's voice is known, a faint one while the assistant is audible starts nothing."""
    user = to_pcm(sounds.after_silence(sounds.spoken("Tell me about the sea."), before_s=0.5))
    assistant = sounds.spoken("The sea is deep and blue, and nobody knows all of it.", "en-us+f2")
    echo = to_pcm(sounds.echo(assistant, gain_db=-26))
    detector = SpeechDetector(VadRules(), judges)
    assert [type(change) for change in detector.hear(user)] == [Started, Stopped]
    assert detector.hear(echo, expects_echo=True) == []
    assert [type(change) for change in detector.hear(user, expects_echo=True)] == [Started, Stopped]
    assert [type(change) for change in detector.hear(echo)] == [Started]
    detector.close()


# --- formats and chunks -----------------------------------------------------------------------------


def encoded(sound: Samples, codec: Codec, sample_rate_hz: int) -> bytes:
    pcm = to_pcm(soxr.resample(sound, SAMPLE_RATE_HZ, sample_rate_hz))
    return ulaw_encode(pcm) if codec == "ulaw" else pcm


def changes_in(judges: ThoroughJudges, audio: bytes, codec: Codec, rate_hz: int, chunk: int) -> list[Change]:
    intake, detector = Intake(codec, rate_hz), SpeechDetector(VadRules(), judges)
    changes = [
        change
        for start in range(0, len(audio), chunk)
        for change in detector.hear(intake.pcm(audio[start : start + chunk]))
    ]
    detector.close()
    return changes


@pytest.mark.parametrize(
    ("codec", "sample_rate_hz"),
    [("pcm", 8000), ("pcm", 22050), ("pcm", 24000), ("pcm", 44100), ("pcm", 48000), ("ulaw", 8000)],
)
def test_speech_is_heard_in_every_format(judges: ThoroughJudges, codec: Codec, sample_rate_hz: int) -> None:
    """What is heard at 16 kHz is heard at the same places, whatever the microphone's rate and codec."""
    sound = load("beckett")
    wanted = hear(judges, sound)
    audio = encoded(sound, codec, sample_rate_hz)
    heard = changes_in(judges, audio, codec, sample_rate_hz, sample_rate_hz // 10 * 2)
    assert len(wanted) >= 4
    assert [type(change) for change in heard] == [type(change) for change in wanted]
    assert [change.at_ms for change in heard] == pytest.approx([c.at_ms for c in wanted], abs=100)


@pytest.mark.parametrize(("codec", "sample_rate_hz"), [("pcm", 48000), ("pcm", 8000), ("ulaw", 8000)])
def test_the_detector_gets_all_that_came(codec: Codec, sample_rate_hz: int) -> None:
    """Nothing of a chunk waits for the next one: a start is told when it is heard."""
    audio = encoded(sounds.noise("white", 0.1) * np.float32(0.1), codec, sample_rate_hz)
    assert len(Intake(codec, sample_rate_hz).pcm(audio)) / 32 == pytest.approx(100, abs=1)


def borders(length: int) -> st.SearchStrategy[list[int]]:
    inner = st.lists(st.integers(0, length // 2).map(lambda sample: sample * 2), max_size=40)
    return inner.map(lambda cuts: [0, *sorted(cuts), length])


PLACED = to_pcm(sounds.after_silence(sounds.spoken("Wait a moment, please."), before_s=0.3, after_s=0.9))


@settings(max_examples=20, deadline=None)
@given(cuts=borders(len(PLACED)))
def test_chunk_borders_change_nothing(judges: ThoroughJudges, cuts: list[int]) -> None:
    """However the audio is cut, the same changes come at the same places."""
    whole = SpeechDetector(VadRules(), judges)
    pieces = SpeechDetector(VadRules(), judges)
    wanted = whole.hear(PLACED)
    assert [type(change) for change in wanted] == [Started, Stopped]
    assert [c for start, end in pairwise(cuts) for c in pieces.hear(PLACED[start:end])] == wanted
    whole.close()
    pieces.close()
