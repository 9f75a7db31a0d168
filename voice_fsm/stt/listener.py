"""Where utterances begin and end, and what they say: the listening of one link, apart from threads and time.

    sound ── hops, each judged ──▶ parts (speech up to a pause) ──▶ utterance ──▶ commit

The recogniser starts from scratch each time, so a part is transcribed again as it grows, ever less often the
longer that takes; once its speaker pauses the text is settled, and committing it costs nothing more.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import attrs
import numpy as np

from voice_fsm.fsm.events import Word
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, Transcript
from voice_fsm.stt.moonshine import Samples
from voice_fsm.vad.engines import HOP, RATE_HZ, ThoroughJudge

HOP_S: Final = HOP / RATE_HZ

LEAD_S: Final = 0.3
"""Sound from before the first speech that the recogniser gets too: soft onsets lie in it."""
FIRST_PARTIAL_S: Final = 0.3
"""Speech before the first partial; of less, the recogniser makes guesses."""
PARTIAL_EVERY_S: Final = 0.3
RECOGNITION_SHARE: Final = 0.25
"""How much of the time spoken may be spent on partials."""
TRAIL_S: Final = 7 * HOP_S
"""Silence after the last speech that the recogniser gets too; with it a text is settled. More is cut off: how
much there is depends on how busy the machine is, and some words are read otherwise with another silence."""
LONGEST_PAUSE_S: Final = 1.0
"""A longer pause ends a part, so that silence is neither kept nor transcribed."""
LONGEST_PART_S: Final = 12.0
"""A part that lasts longer is cut where it is quietest: recognising costs more than its share otherwise."""
LONGEST_UTTERANCE_S: Final = 60.0
"""After this, what a speaker (or a television) has said is committed at the end of a part, pause or not."""
SILENT_PEAK: Final = 0.001
"""Of a hop; a muted microphone's need not be judged."""


class SpeechEngine(Protocol):
    """What the listener asks of an engine; see `voice_fsm.stt.moonshine.Moonshine`."""

    def transcribe(self, samples: Samples) -> str:
        """What ``samples`` say."""


@attrs.frozen(kw_only=True)
class ListeningRules:
    """When one session's speech begins, pauses and ends."""

    commit_on_silence: bool = True
    """Whether silence ends an utterance; else only `Listener.commit` does."""
    threshold: float = 0.5
    """Probability of speech from which a hop (32 ms) counts."""
    silence_s: float = 0.6
    """Silence that ends an utterance."""
    pause_s: float = 0.2
    """Silence that is a pause rather than a part of a word: the text is brought up to date."""
    min_speech_s: float = 0.1
    """Speech without a gap that begins an utterance."""
    timestamps: bool = False


@attrs.define
class _Part:
    """Speech up to a pause, with a little silence around it."""

    hops: list[Samples]
    start_hop: int
    voiced: list[int]
    """Which hops of the link hold its speech."""
    text: str = ""
    settled: bool = False
    """Whether ``text`` covers all of the speech."""
    transcribed_hops: int = 0

    @property
    def sound(self) -> Samples:
        """What there is to transcribe."""
        end = self.voiced[-1] + 1 - self.start_hop + round(TRAIL_S / HOP_S)
        return np.concatenate(self.hops[:end])

    def add(self, hop: Samples, hop_index: int, *, voiced: bool) -> None:
        self.hops.append(hop)
        if voiced:
            self.voiced.append(hop_index)
            self.settled = False


class Listener:
    """Turns the sound of one link into transcripts. Blocking; used by one thread at a time."""

    def __init__(
        self,
        engine: SpeechEngine,
        judge: ThoroughJudge,
        rules: ListeningRules,
        *,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``judge`` is for this sound alone: it remembers."""
        self._engine = engine
        self._judge = judge
        self._rules = rules
        self._clock_s = clock_s
        self._min_speech = max(1, round(rules.min_speech_s / HOP_S))
        self._unfinished = np.zeros(0, np.float32)
        self._lead: deque[Samples] = deque(maxlen=round(LEAD_S / HOP_S) + self._min_speech)
        self._hop_count = 0
        self._speech_run = 0
        self._silence_run = 0
        self._done: list[_Part] = []
        self._part: _Part | None = None
        self._partial_every_s = PARTIAL_EVERY_S
        self._shown = ""

    def hear(self, samples: Samples, *, hurried: bool = False) -> list[Transcript]:
        """Listen to the next sound (16 kHz); give back what it changed, in order.

        ``hurried`` leaves out the partials that only follow speech along: the first of a part, which may be a
        barge-in, and those at pauses still come.
        """
        transcripts: list[Transcript] = []
        for hop in self._hops(samples):
            self._advance(hop, voiced=self._is_speech(hop))
            if self._is_over():
                transcripts.append(self._finish())
        return transcripts + self._update(hurried=hurried)

    def commit(self) -> CommittedTranscript:
        """End the utterance here, whatever the rules say; blank if nothing was said since the last one."""
        if self._part is not None:
            self._close(self._part)
        self._speech_run = 0
        return self._finish()

    def _hops(self, samples: Samples) -> Samples:
        sound = np.concatenate((self._unfinished, samples))
        whole = len(sound) // HOP * HOP
        self._unfinished = sound[whole:]
        return sound[:whole].reshape(-1, HOP)

    def _is_speech(self, hop: Samples) -> bool:
        if np.max(np.abs(hop)) < SILENT_PEAK:
            return False
        pcm = np.clip(hop * 32768, -32768, 32767).astype("<i2").tobytes()
        return self._judge.process_chunk(pcm) >= self._rules.threshold

    def _advance(self, hop: Samples, *, voiced: bool) -> None:
        self._silence_run = 0 if voiced else self._silence_run + 1
        self._speech_run = self._speech_run + 1 if voiced else 0
        if self._part is not None:
            self._part.add(hop, self._hop_count, voiced=voiced)
            self._limit(self._part)
        else:
            self._lead.append(hop)
            if self._speech_run >= self._min_speech:
                self._begin_part()
        self._hop_count += 1

    def _begin_part(self) -> None:
        end = self._hop_count + 1
        self._part = _Part(list(self._lead), end - len(self._lead), list(range(end - self._speech_run, end)))
        self._lead.clear()

    def _limit(self, part: _Part) -> None:
        if self._silence_s >= min(self._rules.silence_s, LONGEST_PAUSE_S):
            self._close(part)
        elif len(part.hops) * HOP_S >= LONGEST_PART_S:
            self._split(part)

    def _split(self, part: _Part) -> None:
        cut = _quietest(part.hops)
        first_after = part.start_hop + cut
        before = [i for i in part.voiced if i < first_after]
        after = [i for i in part.voiced if i >= first_after]
        self._close(_Part(part.hops[:cut], part.start_hop, before))
        self._part = _Part(part.hops[cut:], first_after, after) if after else None

    def _close(self, part: _Part) -> None:
        if not part.settled:
            self._transcribe(part)
        part.hops.clear()
        self._part = None
        if part.text:
            self._done.append(part)

    @property
    def _silence_s(self) -> float:
        return self._silence_run * HOP_S

    def _is_over(self) -> bool:
        if not self._done:
            return False
        lasts_s = (self._hop_count - self._done[0].start_hop) * HOP_S
        is_silent = self._rules.commit_on_silence and self._silence_s >= self._rules.silence_s
        return is_silent or lasts_s >= LONGEST_UTTERANCE_S

    def _finish(self) -> CommittedTranscript:
        done, self._done, self._shown = self._done, [], ""
        words = (word for part in done for word in estimate_words(part.text, part.voiced))
        return CommittedTranscript(_join(done), tuple(words) if self._rules.timestamps else ())

    def _update(self, *, hurried: bool) -> list[Transcript]:
        if self._part is not None and self._is_due(self._part, hurried=hurried):
            self._transcribe(self._part)
        text = _join((*self._done, self._part))
        if text in ("", self._shown):
            return []
        self._shown = text
        return [PartialTranscript(text)]

    def _is_due(self, part: _Part, *, hurried: bool) -> bool:
        if part.settled:
            return False
        if self._silence_s >= max(self._rules.pause_s, TRAIL_S):
            return True
        if hurried and part.transcribed_hops:
            return False
        new_s = (len(part.hops) - part.transcribed_hops) * HOP_S
        return len(part.voiced) * HOP_S >= FIRST_PARTIAL_S and new_s >= self._partial_every_s

    def _transcribe(self, part: _Part) -> None:
        before_s = self._clock_s()
        text = self._engine.transcribe(part.sound)
        cost_s = self._clock_s() - before_s
        self._partial_every_s = max(PARTIAL_EVERY_S, cost_s / RECOGNITION_SHARE)
        part.text = text if any(map(str.isalnum, text)) else ""  # music is transcribed as notes
        part.settled = self._silence_s >= TRAIL_S
        part.transcribed_hops = len(part.hops)


def estimate_words(text: str, voiced_hops: Sequence[int]) -> Iterator[Word]:
    """Spread the words of ``text`` over the speech they were heard in, by their length.

    The engine gives no times for words. This is right at both ends and at pauses, and off by a few tenths
    of a second between them.
    """
    words = text.split()
    letters = sum(len(word) + 1 for word in words)
    start = 0.0
    for word in words:
        end = min(start + (len(word) + 1) * len(voiced_hops) / letters, len(voiced_hops))
        first, last = int(start), math.ceil(end) - 1
        start_s = (voiced_hops[first] + start - first) * HOP_S
        end_s = (voiced_hops[last] + end - last) * HOP_S
        yield Word(word, start_s, end_s)
        start = end


def _join(parts: Sequence[_Part | None]) -> str:
    return " ".join(part.text for part in parts if part is not None and part.text)


def _quietest(hops: Sequence[Samples]) -> int:
    """Where to cut: a hop in the last third, but not at its end, amid the least sound."""
    loudness = np.convolve([float(np.mean(hop**2)) for hop in hops], np.ones(3), mode="same")
    start, end = len(hops) * 2 // 3, len(hops) - 8
    return start + int(np.argmin(loudness[start:end]))
