"""A session's sound on the session's clock: what the microphone sent, and what was heard of the assistant.

Both are made from notes, which come in order of time. What was sent is not heard: the assistant's audio
waits until it is due, stands still while the reply is paused, and is dropped where the reply is interrupted.
A track is given away only when no note can change it any more.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import Resampler, ulaw_decode
from voice_fsm.fsm.effects import TurnEnded, TurnInterrupted, TurnPaused, TurnResumed
from voice_fsm.fsm.playback import MAX_CLIENT_LAG_S

RATE_HZ: Final = 16_000
CHANNELS: Final = 2
HELD_S: Final = MAX_CLIENT_LAG_S + 2.0
"""For so long it may turn out that audio was not heard: a client's reports come as late as that."""
MAX_WAITING_S: Final = 120.0
"""Audio of the assistant that may wait to be heard, 5.8 MB at 24 kHz; what is beyond becomes silence."""
JITTER_S: Final = 0.1
"""Microphone audio that comes so late or less follows the audio before it; else there was a gap."""
BLOCK: Final = 10 * RATE_HZ
"""Frames that are given at once, at most."""
MAX_PASSAGES: Final = 256
"""Of one turn that can still be cut."""

Samples = npt.NDArray[np.int16]

_SILENCE: Final = np.zeros(1, "<i2")


# --- notes ------------------------------------------------------------------------------------------


@attrs.frozen
class Heard:
    """Audio came from the microphone."""

    at_s: float
    audio: bytes = attrs.field(repr=lambda audio: f"<{len(audio)} bytes>")
    audio_format: AudioFormat


@attrs.frozen
class Sent:
    """Audio of a turn went to the client; ``None`` where only its length is known."""

    at_s: float
    turn_id: int
    audio: bytes | None = attrs.field(repr=lambda audio: audio and f"<{len(audio)} bytes>")
    audio_format: AudioFormat
    duration_ms: float


@attrs.frozen
class Told:
    """Something happened to the turn."""

    at_s: float
    effect: TurnPaused | TurnResumed | TurnInterrupted | TurnEnded


@attrs.frozen
class Reported:
    """The client told how much of a turn its listener has heard."""

    at_s: float
    turn_id: int
    heard_ms: float


@attrs.frozen
class Over:
    """The session has ended."""

    at_s: float


Note = Heard | Sent | Told | Reported | Over


def is_plain(audio_format: AudioFormat) -> bool:
    """Whether audio of this format can be put on a track."""
    return audio_format.codec in ("pcm", "ulaw")


# --- the sound --------------------------------------------------------------------------------------


class SessionSound:
    """Takes notes and gives stereo PCM at `RATE_HZ`: the microphone left, the assistant right."""

    def __init__(self, opened_s: float) -> None:
        """``opened_s`` is the time on the notes' clock with which the sound begins."""
        self._opened_s = opened_s
        self._left, self._right = Track(), Track()
        self._microphone = Microphone(self._left)
        self._assistant = Assistant(self._right)
        self._final = 0
        """Up to which frame nothing changes any more."""
        self.has_begun = False
        """Whether there has been any sound."""
        self.is_over = False

    def take(self, note: Note) -> None:
        """Take the next note."""
        at_s = note.at_s - self._opened_s
        self._assistant.advance(at_s)
        self._final = max(self._final, round((at_s - HELD_S) * RATE_HZ))
        match note:
            case Heard(_, audio, audio_format):
                self.has_begun = True
                self._microphone.hear(at_s, _pcm(audio, audio_format), audio_format.sample_rate_hz)
            case Sent():
                self.has_begun = True
                self._assistant.send(at_s, note)
            case Told(_, effect):
                self._tell(at_s, effect)
            case Reported(_, turn_id, heard_ms):
                self._assistant.correct(turn_id, heard_ms)
            case Over():
                self.is_over = True
                self._assistant.cut(at_s)
                self._microphone.finish()
                self._final = max(self._final, round(at_s * RATE_HZ), self._left.end)

    def blocks(self) -> Iterator[bytes]:
        """What is final and has not been given yet, at most `BLOCK` frames at a time.

        Less than a second of it is kept back, but at the end.
        """
        if self._final - self._left.start < RATE_HZ and not self.is_over:
            return
        while (frames := min(self._final - self._left.start, BLOCK)) > 0:
            channels = (self._left.take(frames), self._right.take(frames))
            yield np.stack(channels, axis=1).tobytes()

    def _tell(self, at_s: float, effect: TurnPaused | TurnResumed | TurnInterrupted | TurnEnded) -> None:
        match effect:
            case TurnPaused():
                self._assistant.pause()
            case TurnResumed():
                self._assistant.resume(at_s)
            case TurnInterrupted(turn_id, _, _, heard_ms):
                self._assistant.end(turn_id)
                self._assistant.cut(at_s)
                self._assistant.interrupt(heard_ms)
            case TurnEnded(turn_id, outcome):
                self._assistant.end(turn_id)
                if outcome != "completed":
                    self._assistant.cut(at_s)


class Track:
    """One channel from `start` on; what nobody writes is silence."""

    def __init__(self) -> None:
        self.start = 0
        self._pcm = bytearray()

    @property
    def end(self) -> int:
        """The frame behind the last that was written."""
        return self.start + len(self._pcm) // 2

    def write(self, frame: int, pcm: bytes) -> None:
        """Put samples there; of what has been taken nothing changes."""
        at = 2 * (frame - self.start)
        pcm, at = pcm[max(0, -at) :], max(0, at)
        self._pcm.extend(bytes(max(0, at - len(self._pcm))))
        self._pcm[at : at + len(pcm)] = pcm

    def cut(self, frame: int) -> None:
        """Make it silent from there on."""
        del self._pcm[max(0, 2 * (frame - self.start)) :]

    def take(self, frames: int) -> Samples:
        """Give the first frames away."""
        pcm = bytes(self._pcm[: 2 * frames]).ljust(2 * frames, b"\0")
        del self._pcm[: 2 * frames]
        self.start += frames
        return np.frombuffer(pcm, "<i2")


class Passage:
    """Sound without a gap, on its way into a track."""

    def __init__(self, track: Track, start_s: float, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.frame = max(round(start_s * RATE_HZ), track.start)
        self._start_s = start_s
        self._track = track
        self._resampler = Resampler(rate_hz, RATE_HZ)
        self._taken = 0
        self._written = 0

    @property
    def end_s(self) -> float:
        return self._start_s + self._taken / self.rate_hz

    @property
    def frames(self) -> int:
        """How long it is, in frames of the track."""
        return round(self._taken * RATE_HZ / self.rate_hz)

    def samples_until(self, to_s: float) -> int:
        """How many more samples there is time for; the margin undoes rounding."""
        return int((to_s - self._start_s) * self.rate_hz + 1e-3) - self._taken

    def add(self, samples: bytes) -> None:
        self._taken += len(samples) // 2
        self._write(self._resampler.feed(samples))

    def finish(self) -> None:
        """Write what the resampler has kept back."""
        self._write(self._resampler.feed(b"", last=True))

    def _write(self, pcm: bytes) -> None:
        self._track.write(self.frame + self._written, pcm)
        self._written += len(pcm) // 2


class Microphone:
    """Audio that is heard when it comes: a chunk ends where it came, or follows the one before."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._passage: Passage | None = None

    def hear(self, at_s: float, pcm: bytes, rate_hz: int) -> None:
        """Put the next chunk on the track."""
        start_s = max(0.0, at_s - len(pcm) / 2 / rate_hz)
        before = self._passage
        if before is None or before.rate_hz != rate_hz or start_s > before.end_s + JITTER_S:
            self.finish()
            before_s = 0.0 if before is None else before.end_s
            self._passage = Passage(self._track, max(start_s, before_s), rate_hz)
        assert self._passage is not None  # noqa: S101  # one was there, or has been begun
        self._passage.add(pcm)

    def finish(self) -> None:
        """Nothing follows what was heard last."""
        if self._passage is not None:
            self._passage.finish()


@attrs.define
class _Waiting:
    """Samples that the client has, and has not played yet."""

    samples: Samples
    rate_hz: int


class Assistant:
    """Audio that is heard one after the other, from when it was sent; `advance` before whatever happens."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._waiting: deque[_Waiting] = deque()
        self._waiting_s = 0.0
        self._passage: Passage | None = None
        """That is being heard."""
        self._next_s = 0.0
        """When the next one begins."""
        self._is_paused = False
        self._turn_id = 0
        self._ended_id = 0
        """Of this turn, and of those before it, nothing is heard any more."""
        self._played: deque[tuple[int, int]] = deque(maxlen=MAX_PASSAGES)
        """Of the turn: where each passage began, and its length."""
        self._played_frames = 0
        self._is_correctable = False
        """Whether the turn was interrupted: the client may tell afterwards how much of it had been heard."""

    def advance(self, to_s: float) -> None:
        """Let the client play until then."""
        if self._is_paused:
            return
        while self._waiting:
            passage, first = self._passage_of(self._waiting[0].rate_hz), self._waiting[0]
            due = passage.samples_until(to_s)
            if due <= 0:
                return
            heard, first.samples = first.samples[:due], first.samples[due:]
            self._waiting_s -= len(heard) / first.rate_hz
            passage.add(heard.tobytes())
            if not len(first.samples):
                self._waiting.popleft()
        if self._passage is not None and self._passage.samples_until(to_s) > 0:
            self._finish_passage()

    def send(self, at_s: float, sent: Sent) -> None:
        """Have this heard after what waits."""
        if sent.turn_id <= self._ended_id:
            return
        if sent.turn_id != self._turn_id:
            self._begin(sent.turn_id)
        if not self._waiting and self._passage is None:
            self._next_s = at_s
        waiting = self._kept(sent)
        self._waiting.append(waiting)
        self._waiting_s += len(waiting.samples) / waiting.rate_hz

    def pause(self) -> None:
        """The client stands still."""
        self._finish_passage()
        self._is_paused = True

    def resume(self, at_s: float) -> None:
        """The client plays on."""
        self._next_s, self._is_paused = at_s, False

    def end(self, turn_id: int) -> None:
        """Take nothing more of this turn."""
        self._ended_id = turn_id

    def cut(self, at_s: float) -> None:
        """Drop what waits."""
        self.resume(at_s)
        self._waiting.clear()
        self._waiting_s = 0.0
        self._finish_passage()

    def interrupt(self, heard_ms: float) -> None:
        """Of the turn that was cut no more was heard than this; the client may still know it better."""
        self._is_correctable = True
        surplus = self._played_frames - round(heard_ms * RATE_HZ / 1000)
        while surplus > 0 and self._played:
            frame, frames = self._played.pop()
            kept = max(0, frames - surplus)
            self._track.cut(frame + kept)
            self._played_frames -= frames - kept
            surplus -= frames
            if kept:
                self._played.append((frame, kept))

    def correct(self, turn_id: int, heard_ms: float) -> None:
        """The client says how much of a turn had been heard; told too late, when another one sounds."""
        if turn_id == self._turn_id and self._is_correctable:
            self.interrupt(heard_ms)

    def _begin(self, turn_id: int) -> None:
        """What still waits of the turn before has been heard, by the client's reports."""
        self._waiting.clear()
        self._waiting_s = 0.0
        self._finish_passage()
        self._played.clear()
        self._played_frames = 0
        self._turn_id = turn_id
        self._is_correctable = False

    def _kept(self, sent: Sent) -> _Waiting:
        if sent.audio is None or not is_plain(sent.audio_format) or self._waiting_s > MAX_WAITING_S:
            samples = round(sent.duration_ms * RATE_HZ / 1000)
            return _Waiting(np.broadcast_to(_SILENCE, samples), RATE_HZ)
        pcm = _pcm(sent.audio, sent.audio_format)
        return _Waiting(np.frombuffer(pcm, "<i2"), sent.audio_format.sample_rate_hz)

    def _passage_of(self, rate_hz: int) -> Passage:
        passage = self._passage
        if passage is None or passage.rate_hz != rate_hz:
            start_s = self._next_s if passage is None else passage.end_s
            self._finish_passage()
            self._passage = passage = Passage(self._track, start_s, rate_hz)
        return passage

    def _finish_passage(self) -> None:
        if self._passage is not None:
            self._passage.finish()
            self._played.append((self._passage.frame, self._passage.frames))
            self._played_frames += self._passage.frames
            self._passage = None


def _pcm(audio: bytes, audio_format: AudioFormat) -> bytes:
    return ulaw_decode(audio) if audio_format.codec == "ulaw" else audio
