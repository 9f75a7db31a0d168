"""Where utterances begin and end, with an engine whose ears are arithmetic."""

import itertools
from collections.abc import Sequence

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, Transcript
from voice_fsm.stt.listener import (
    HOP_S,
    LEAD_S,
    LONGEST_PART_S,
    LONGEST_UTTERANCE_S,
    RECOGNITION_SHARE,
    TRAIL_S,
    Listener,
    ListeningRules,
    estimate_words,
)
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples
from voice_fsm.vad.engines import HOP

WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@attrs.define
class LevelEngine:
    """Hears a word for each stretch of constant level: 0.1 is "one", 0.2 "two"; faint sound is no speech.

    Of silence alone it makes "you", as Moonshine does.
    """

    transcribed_s: list[float] = attrs.field(factory=list)
    cost_s: float = 0.0
    now_s: float = 0.0
    says: list[str] = attrs.field(factory=list)
    """Texts to give instead, the last one for ever."""

    def reset(self) -> None:
        """There is nothing to forget."""

    def process_chunk(self, audio: bytes) -> float:
        return float(np.abs(np.frombuffer(audio, "<i2") / 32768).mean() + 0.45)

    def transcribe(self, samples: Samples) -> str:
        self.transcribed_s.append(len(samples) / SAMPLE_RATE_HZ)
        self.now_s += self.cost_s
        if self.says:
            return self.says.pop(0) if len(self.says) > 1 else self.says[0]
        levels = np.round(samples.reshape(-1, HOP).mean(axis=1) * 10).astype(int)
        return " ".join(WORDS[level] for level, _ in itertools.groupby(levels) if level) or "you"

    def clock_s(self) -> float:
        return self.now_s


def sound(*blocks: tuple[int, float]) -> Samples:
    """Blocks of (word or 0 for silence, seconds), whole hops each."""
    return np.concatenate([np.full(round(s / HOP_S) * HOP, word / 10, np.float32) for word, s in blocks])


def listen(
    samples: Samples,
    rules: ListeningRules | None = None,
    *,
    engine: LevelEngine | None = None,
    step: int = 3200,
) -> tuple[Listener, list[Transcript]]:
    engine = engine or LevelEngine()
    listener = Listener(engine, engine, rules or ListeningRules(), clock_s=engine.clock_s)
    heard = [t for i in range(0, len(samples), step) for t in listener.hear(samples[i : i + step])]
    return listener, heard


def commits(transcripts: Sequence[Transcript]) -> list[str]:
    return [t.text for t in transcripts if isinstance(t, CommittedTranscript)]


def partials(transcripts: Sequence[Transcript]) -> list[str]:
    return [t.text for t in transcripts if isinstance(t, PartialTranscript)]


def test_silence_ends_an_utterance() -> None:
    """Speech followed by enough silence is committed, once."""
    _, heard = listen(sound((0, 0.5), (1, 0.5), (2, 0.5), (0, 3.0)))
    assert commits(heard) == ["one two"]


def test_a_commit_comes_when_the_silence_is_long_enough() -> None:
    """Neither before the threshold nor a step after it."""
    speech, silence_s = sound((1, 0.96)), 0.96
    listener, heard = listen(speech, ListeningRules(silence_s=silence_s))
    hops_of_silence = 0
    while not commits(heard):
        heard += listener.hear(np.zeros(HOP, np.float32))
        hops_of_silence += 1
    assert hops_of_silence * HOP_S == silence_s


def test_pauses_shorter_than_the_threshold_join() -> None:
    """What was said around a short pause is one utterance."""
    _, heard = listen(sound((1, 0.5), (0, 0.4), (2, 0.5), (0, 1.0)))
    assert commits(heard) == ["one two"]


def test_long_pauses_join_where_the_threshold_is_longer() -> None:
    """A session may ask for three seconds of silence, though parts end after one."""
    _, heard = listen(sound((1, 0.5), (0, 2.5), (2, 0.5), (0, 3.2)), ListeningRules(silence_s=3.0))
    assert commits(heard) == ["one two"]


def test_silence_never_commits() -> None:
    """Nothing said is nothing told, however long it lasts."""
    _, heard = listen(np.zeros(SAMPLE_RATE_HZ * 20, np.float32))
    assert heard == []


def test_a_click_is_no_speech() -> None:
    """Speech shorter than the minimum begins nothing."""
    engine = LevelEngine()
    _, heard = listen(sound((0, 0.5), (1, 0.064), (0, 2.0)), ListeningRules(min_speech_s=0.2), engine=engine)
    assert heard == []
    assert engine.transcribed_s == []


def test_the_threshold_is_the_sessions() -> None:
    """What one session takes for speech is noise to another."""
    quiet = sound((1, 1.0), (0, 1.0))
    assert commits(listen(quiet, ListeningRules(threshold=0.5))[1]) == ["one"]
    assert commits(listen(quiet, ListeningRules(threshold=0.7))[1]) == []


@pytest.mark.parametrize("step", [HOP, 3200, 5280, SAMPLE_RATE_HZ])
def test_what_is_committed_does_not_depend_on_the_size_of_steps(step: int) -> None:
    """The recogniser gets the same sound, whether a busy machine comes to it early or late."""
    engine = LevelEngine()
    _, heard = listen(sound((0, 0.96), (1, 0.96), (0, 0.96)), engine=engine, step=step)
    assert commits(heard) == ["one"]
    assert engine.transcribed_s[-1] == pytest.approx(LEAD_S + 0.96 + TRAIL_S, abs=HOP_S / 2)


@pytest.mark.parametrize("text", ["", "♪♪♪♪", " ... "])
def test_noise_without_words_is_not_committed(text: str) -> None:
    """When the detector was wrong and the recogniser finds no word, nobody hears of it."""
    listener, heard = listen(sound((1, 1.0), (0, 2.0)), engine=LevelEngine(says=[text]))
    assert heard == []
    assert listener.commit() == CommittedTranscript("")


def test_partials_grow_with_the_utterance() -> None:
    """Each partial replaces the one before; none is blank or the same again."""
    _, heard = listen(sound((1, 0.6), (2, 0.6), (3, 0.6), (0, 0.3)))
    texts = partials(heard)
    assert texts[0] == "one"
    assert texts[-1] == "one two three"
    assert all(a != b for a, b in itertools.pairwise(texts))


def test_a_text_that_is_taken_back_makes_no_blank_partial() -> None:
    """A recogniser may change its mind to nothing; then there is nothing to say, or to commit."""
    _, heard = listen(sound((1, 1.5), (0, 2.0)), engine=LevelEngine(says=["one", ""]))
    assert heard == [PartialTranscript("one")]


def test_the_same_words_again_are_a_new_utterance() -> None:
    """Who says a thing twice gets its partials twice."""
    _, heard = listen(sound((1, 0.5), (0, 1.0), (1, 0.5), (0, 1.0)))
    assert heard == [PartialTranscript("one"), CommittedTranscript("one")] * 2


def test_the_first_partial_is_early() -> None:
    """Half a second of speech is enough for a partial, which barge-in waits for."""
    _, heard = listen(sound((0, 0.5), (1, 0.5)))
    assert partials(heard) == ["one"]


def test_a_pause_settles_the_text() -> None:
    """The commit after a pause needs no further recognition: its text was ready."""
    engine = LevelEngine()
    listener, heard = listen(sound((1, 0.5), (2, 0.5), (0, 0.4)), engine=engine)
    passes = len(engine.transcribed_s)
    heard += listener.hear(sound((0, 1.0)))
    assert commits(heard) == ["one two"]
    assert len(engine.transcribed_s) == passes


def test_recognition_keeps_to_its_share() -> None:
    """A slow recogniser is asked less often: a quarter of the time spoken, not more."""
    engine = LevelEngine(cost_s=0.5)
    listen(sound((1, 10.0)), engine=engine, step=HOP)
    assert engine.now_s <= 10.0 * RECOGNITION_SHARE
    assert len(engine.transcribed_s) >= 4


def test_who_is_in_a_hurry_gets_the_partials_that_matter() -> None:
    """The first, which may be a barge-in, and the one at the pause; the commit is the same."""
    speech = [sound((1, 0.64), (2, 2.56), (3, 2.56)), sound((0, 0.32)), sound((0, 0.64))]
    engine = LevelEngine()
    listener = Listener(engine, engine, ListeningRules(), clock_s=engine.clock_s)
    heard = [listener.hear(s[i : i + 3200], hurried=True) for s in speech for i in range(0, len(s), 3200)]
    transcripts = [transcript for some in heard for transcript in some]
    assert partials(transcripts) == ["one", "one two three"]
    assert commits(transcripts) == ["one two three"]
    assert len(engine.transcribed_s) == 2


def test_a_long_speech_is_recognised_in_parts() -> None:
    """No pass covers more than a part, and no word is lost or doubled at the cuts."""
    engine = LevelEngine()
    blocks = [block for n in range(30) for block in ((1 + n % 9, 0.96), (0, 0.096))]
    listener, heard = listen(sound(*blocks), engine=engine)
    assert listener.commit().text == " ".join(WORDS[1 + n % 9] for n in range(30))
    assert commits(heard) == []
    assert max(engine.transcribed_s) <= LONGEST_PART_S + 0.1


def test_a_cut_at_the_end_of_speech_leaves_no_part_of_silence() -> None:
    """Silence by itself is not transcribed: recognisers find words in it."""
    _, heard = listen(sound((1, LONGEST_PART_S - 0.4), (0, 2.0)))
    assert commits(heard) == ["one"]


def test_a_long_manual_session_is_committed_between_words() -> None:
    """The commit that comes by itself after a minute cuts no word in two."""
    words = [1 + n % 9 for n in range(60)]
    blocks = [block for word in words for block in ((word, 1.984), (0, 1.504))]
    listener, heard = listen(sound(*blocks), ListeningRules(commit_on_silence=False))
    texts = [*commits(heard), listener.commit().text]
    assert len(texts) == 4
    assert " ".join(texts).split() == [WORDS[word] for word in words]


def test_who_never_pauses_is_committed_anyway() -> None:
    """A television does not hold the session for ever, with either strategy."""
    for commit_on_silence in (True, False):
        rules = ListeningRules(commit_on_silence=commit_on_silence)
        _, heard = listen(sound((1, LONGEST_UTTERANCE_S * 1.5)), rules)
        assert len(commits(heard)) == 1


def test_the_memory_of_a_link_is_bounded() -> None:
    """An hour of a manual session keeps text, not sound."""
    listener, _ = listen(sound(*[(1, 1.0), (0, 2.0)] * 10), ListeningRules(commit_on_silence=False))
    kept = [*listener._lead, *(listener._part.hops if listener._part else ())]
    assert sum(map(len, kept)) <= SAMPLE_RATE_HZ
    assert all(part.hops == [] for part in listener._done)


def test_manual_commits_are_the_callers() -> None:
    """Silence ends nothing then; the commit brings all that was said."""
    listener, heard = listen(
        sound((1, 0.5), (0, 3.0), (2, 0.5), (0, 3.0)), ListeningRules(commit_on_silence=False)
    )
    assert commits(heard) == []
    assert partials(heard)[-1] == "one two"
    assert listener.commit().text == "one two"
    assert listener.commit().text == ""


def test_a_commit_in_the_middle_of_speech_cuts_there() -> None:
    """What comes after belongs to the next utterance, and no partial repeats the first."""
    listener, _ = listen(sound((1, 0.5), (2, 0.5)))
    assert listener.commit().text == "one two"
    heard = listener.hear(sound((3, 0.5), (4, 0.5), (0, 1.0)))
    assert commits(heard) == ["three four"]
    assert not any("one" in text for text in partials(heard))


def test_several_utterances_in_one_piece_of_sound() -> None:
    """A backlog is caught up with in order."""
    blocks = [(1, 0.5), (0, 1.0), (2, 0.5), (0, 1.0), (3, 0.5), (0, 0.2)]
    _, heard = listen(sound(*blocks), step=10**6)
    assert heard == [CommittedTranscript("one"), CommittedTranscript("two"), PartialTranscript("three")]


_BLOCKS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0.032, 0.128, 0.32, 0.64, 1.28])), min_size=1, max_size=12
)


@settings(deadline=None)
@given(_BLOCKS, st.lists(st.integers(100, 9000), min_size=1, max_size=5))
def test_how_sound_is_cut_changes_no_commit(blocks: list[tuple[int, float]], sizes: list[int]) -> None:
    """The chunks of a client are an accident of its network."""
    samples = sound(*blocks, (0, 1.0))
    _, at_once = listen(samples, step=10**6)
    listener, heard, start = Listener(LevelEngine(), LevelEngine(), ListeningRules()), [], 0
    for size in itertools.cycle(sizes):
        heard += listener.hear(samples[start : start + size])
        start += size
        if start >= len(samples):
            break
    assert commits(heard) == commits(at_once)


@settings(deadline=None)
@given(_BLOCKS, st.booleans())
def test_transcripts_are_never_blank_or_stale(
    blocks: list[tuple[int, float]], commit_on_silence: bool
) -> None:
    """A partial says something new; a commit by silence is never blank and ends its partials."""
    _, heard = listen(sound(*blocks), ListeningRules(commit_on_silence=commit_on_silence))
    before = ""
    for transcript in heard:
        assert transcript.text.strip()
        if isinstance(transcript, PartialTranscript):
            assert transcript.text != before
        before = transcript.text if isinstance(transcript, PartialTranscript) else ""


def test_words_come_where_they_were_asked_for() -> None:
    """Times are in seconds of the link's sound, in order, around the pause between the words."""
    samples = sound((0, 0.96), (1, 0.64), (0, 0.32), (2, 0.64), (0, 1.0))
    _, heard = listen(samples, ListeningRules(timestamps=True))
    (commit,) = [t for t in heard if isinstance(t, CommittedTranscript)]
    one, two = commit.words
    assert (one.text, two.text) == ("one", "two")
    assert (one.start_s, two.end_s) == pytest.approx((0.96, 2.56))
    assert one.end_s == pytest.approx(1.6)
    assert two.start_s == pytest.approx(1.92)


def test_words_after_a_commit_in_the_middle_of_speech_come_after_it() -> None:
    """The time of a word never reaches back into the utterance before."""
    listener, _ = listen(sound((1, 0.96)), ListeningRules(timestamps=True))
    assert [word.end_s for word in listener.commit().words] == [pytest.approx(0.96)]
    listener.hear(sound((2, 0.64)))
    (word,) = listener.commit().words
    assert (word.start_s, word.end_s) == pytest.approx((0.96, 1.6))


def test_words_are_left_out_unless_asked_for() -> None:
    """No estimate is passed off as something else."""
    _, heard = listen(sound((1, 0.64), (0, 1.0)))
    assert [t.words for t in heard if isinstance(t, CommittedTranscript)] == [()]


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=20), st.data())
def test_estimated_words_are_in_order(words: list[str], data: st.DataObject) -> None:
    """Words follow each other within their speech, none of them running backwards."""
    gaps = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=60))
    voiced = list(itertools.accumulate(gaps))
    estimated = list(estimate_words(" ".join(words), voiced))
    assert [w.text for w in estimated] == words
    assert estimated[0].start_s == voiced[0] * HOP_S
    assert estimated[-1].end_s == pytest.approx((voiced[-1] + 1) * HOP_S)
    times = [time for w in estimated for time in (w.start_s, w.end_s)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(times))
