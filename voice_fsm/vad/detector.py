"""Where a session's microphone hears speech: two judges in a cascade, and rules for what they say.

    audio ── 16 kHz ── frames: loud enough? may be speech? ──▶ hops: is it speech? ──▶ started, stopped

The quick judge sees all audio. The thorough one is asked only around frames in which the quick one may have
heard speech, with a little of the sound before them: in silence and in steady noise it costs nothing.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from voice_fsm.audio import Codec
from voice_fsm.audio.samples import Resampler, ulaw_decode
from voice_fsm.vad.engines import FRAME, HOP, RATE_HZ, QuickJudge, ThoroughJudge, ThoroughJudges, WebRtcJudge
from voice_fsm.vad.hysteresis import Change, Hysteresis, VadRules
from voice_fsm.vad.loudness import NoiseFloor, TalkerLevel, levels_db

CONTEXT_HOPS: Final = 6
"""Sound from before the first such frame that the thorough judge gets too, to judge by: 0.2 s."""
ATTENTIVE_FRAMES: Final = 10
"""For how long after a frame that may be speech the thorough judge goes on: 0.2 s."""

_BYTES_PER_MS: Final = RATE_HZ * 2 / 1000
_FRAME_BYTES: Final = FRAME * 2
_HOP_BYTES: Final = HOP * 2
_FRAME_MS: Final = FRAME * 1000 / RATE_HZ
_HOP_MS: Final = HOP * 1000 / RATE_HZ


class SpeechDetector:
    """Listens to one microphone."""

    def __init__(self, rules: VadRules, judges: ThoroughJudges, *, quick: QuickJudge | None = None) -> None:
        self._quick = quick or WebRtcJudge()
        self._judges = judges
        self._thorough: ThoroughJudge | None = None
        """Lent to this detector while something may be speech."""
        self._hysteresis = Hysteresis(rules)
        self._floor = NoiseFloor()
        self._talker = TalkerLevel()
        self._expects_echo = False
        self._unframed = b""
        self._unjudged = bytearray()
        """What the thorough judge has not been given: up to a hop while it listens, else its context."""
        self._heard_bytes = 0
        self._attentive_frames = 0
        self._probability = 0.0

    @property
    def is_speaking(self) -> bool:
        """Whether speech has started and not stopped."""
        return self._hysteresis.is_speaking

    @property
    def heard_ms(self) -> float:
        """How much audio has been heard."""
        return self._heard_bytes / _BYTES_PER_MS

    def hear(self, pcm: bytes, *, expects_echo: bool = False) -> list[Change]:
        """Listen to the next sound (PCM at 16 kHz, whole samples); tell what it changed, in order.

        ``expects_echo`` says that the assistant is audible where the microphone is. Speech then starts only
        if it is not much fainter than the user's was.
        """
        self._expects_echo = expects_echo
        sound = self._unframed + pcm
        whole = len(sound) // _FRAME_BYTES * _FRAME_BYTES
        self._unframed = sound[whole:]
        changes: list[Change] = []
        for number, level_db in enumerate(levels_db(np.frombuffer(sound[:whole], "<i2"), FRAME)):
            frame = sound[number * _FRAME_BYTES : (number + 1) * _FRAME_BYTES]
            changes += self._take_frame(frame, level_db)
        return changes

    def take_probability(self) -> float:
        """The highest probability of speech since the last call; 0 where the thorough judge was not asked."""
        probability, self._probability = self._probability, 0.0
        return probability

    def close(self) -> None:
        """Give back what was lent."""
        if self._thorough is not None:
            self._judges.take_back(self._thorough)
            self._thorough = None

    def _take_frame(self, frame: bytes, level_db: float) -> list[Change]:
        self._heard_bytes += _FRAME_BYTES
        self._unjudged += frame
        self._floor.note(level_db, in_speech=self.is_speaking)
        # The quick judge adapts to what it hears, so it hears everything.
        if self._quick.may_be_speech(frame) and level_db >= self._floor.audible_db:
            self._attentive_frames = ATTENTIVE_FRAMES
        if self._attentive_frames:
            self._attentive_frames -= 1
            self._thorough = self._thorough or self._judges.lend()
            return list(self._judge(self._thorough))
        self.close()
        del self._unjudged[: -CONTEXT_HOPS * _HOP_BYTES]
        self._talker.note_silence(_FRAME_MS)
        stopped = self._hysteresis.note_silence(self.heard_ms)
        return [stopped] if stopped else []

    def _judge(self, judge: ThoroughJudge) -> Iterator[Change]:
        while len(self._unjudged) >= _HOP_BYTES:
            hop = bytes(self._unjudged[:_HOP_BYTES])
            del self._unjudged[:_HOP_BYTES]
            until_ms = (self._heard_bytes - len(self._unjudged)) / _BYTES_PER_MS
            change = self._judge_hop(hop, judge.process_chunk(hop), until_ms)
            if change is not None:
                yield change

    def _judge_hop(self, hop: bytes, probability: float, until_ms: float) -> Change | None:
        self._probability = max(self._probability, probability)
        (level_db,) = levels_db(np.frombuffer(hop, "<i2"), HOP)
        if level_db < self._least_db() or probability < self._hysteresis.threshold:
            return self._hysteresis.note_silence(until_ms)
        started = self._hysteresis.note_speech(until_ms, _HOP_MS)
        if self.is_speaking:
            self._talker.note_speech(level_db)
        return started

    def _least_db(self) -> float:
        """The level from which a hop may be the user's speech."""
        if self._expects_echo and not self.is_speaking:
            return max(self._floor.audible_db, self._talker.beyond_echo_db)
        return self._floor.audible_db


class Intake:
    """A microphone's audio, in whatever format it comes, as the detector's PCM."""

    def __init__(self, codec: Codec, sample_rate_hz: int) -> None:
        self._is_ulaw = codec == "ulaw"
        # The resampler of better quality holds back up to 0.1 s.
        self._resampler = Resampler(sample_rate_hz, RATE_HZ, prompt=True)

    def pcm(self, audio: bytes) -> bytes:
        """The next audio at 16 kHz."""
        return self._resampler.feed(ulaw_decode(audio) if self._is_ulaw else audio)
