"""The ear beside the recogniser: when the user speaks, told before there are words.

It costs CPU time for every second of audio, so it listens only in sessions where something hangs on it: a
barge-in, an event that the client asked for, or the end of utterances.
"""

from collections.abc import Callable
from typing import Final

import attrs
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.events import AnyEvent, SpeechStarted, SpeechStopped
from voice_fsm.fsm.options import SessionOptions, SttOptions
from voice_fsm.vad.detector import Intake, SpeechDetector
from voice_fsm.vad.engines import ThoroughJudges
from voice_fsm.vad.hysteresis import Started, VadRules

PIECE_MS: Final = 100
"""Audio that is listened to before others get their turn: at most 1 ms of work."""


@attrs.frozen
class Assignment:
    """What a session wants of its detector."""

    rules: VadRules
    ends_utterances: bool
    """Whether silence ends an utterance, where the recogniser is not to decide that."""


def assignment_for(options: SessionOptions, rules: VadRules, *, is_told: bool) -> Assignment | None:
    """What these options ask of the detector; ``None`` if nothing hangs on it.

    ``is_told`` says that the client asked for the events. ``rules`` are the server's. A client can change
    them where they end its utterances; elsewhere what it asks for is meant for the recogniser's own detector.
    """
    stt = options.stt
    if stt.commit_strategy == "local_vad":
        return Assignment(_rules_for(stt, rules), ends_utterances=True)
    if is_told or options.turn.barge_in == "vad":
        return Assignment(rules, ends_utterances=False)
    return None


def for_recogniser(options: SttOptions) -> SttOptions:
    """What a recogniser is asked for: where we end utterances, it is not to do so."""
    if options.commit_strategy != "local_vad":
        return options
    return attrs.evolve(
        options,
        commit_strategy="manual",
        vad_threshold=None,
        vad_silence_threshold_secs=None,
        min_speech_duration_ms=None,
        min_silence_duration_ms=None,
    )


def _rules_for(options: SttOptions, rules: VadRules) -> VadRules:
    silence_s = options.vad_silence_threshold_secs
    silence_ms = rules.silence_ms if silence_s is None else silence_s * 1000
    return VadRules(
        threshold=rules.threshold if options.vad_threshold is None else options.vad_threshold,
        min_speech_ms=(
            rules.min_speech_ms if options.min_speech_duration_ms is None else options.min_speech_duration_ms
        ),
        silence_ms=max(silence_ms, options.min_silence_duration_ms or 0),
    )


@attrs.frozen
class _Sound:
    audio: bytes
    audio_format: AudioFormat


class VoiceActivity:
    """Takes a session's audio as it comes, and tells the session when speech starts and stops."""

    def __init__(
        self,
        judges: ThoroughJudges,
        rules: VadRules,
        *,
        step: Callable[[AnyEvent], None],
        end_utterance: Callable[[], None],
        is_assistant_audible: Callable[[], bool],
    ) -> None:
        self._judges = judges
        self._rules = rules
        self._step = step
        self._end_utterance = end_utterance
        self._is_assistant_audible = is_assistant_audible
        self.tell_score: Callable[[float], None] | None = None
        """Who is told, for every `PIECE_MS` of audio, how probable speech is in it; set before `ensure`."""
        self._assignment: Assignment | None = None
        self._waiting: list[_Sound | Assignment | None] = []
        """Audio, and between it the assignments that hold from there on."""
        self._worker = trio.lowlevel.ParkingLot()
        self._ear: _Ear | None = None
        self._is_needed = False

    def ensure(self, options: SessionOptions, *, is_told: bool) -> bool:
        """Listen as these options ask for, from here on; see `assignment_for`.

        Tells whether `run` is to be started: few sessions ever need it.
        """
        is_told = is_told or self.tell_score is not None
        assignment = assignment_for(options, self._rules, is_told=is_told)
        if assignment == self._assignment:
            return False
        self._assignment = assignment
        self._waiting.append(assignment)
        self._worker.unpark()
        is_first, self._is_needed = not self._is_needed, True
        return is_first

    def put(self, audio: bytes, audio_format: AudioFormat) -> None:
        """Add audio, whole samples; nothing happens to it if nobody wants it listened to."""
        if self._assignment is not None:
            self._waiting.append(_Sound(audio, audio_format))
            self._worker.unpark()

    def note_partial(self, text: str) -> None:
        """The recogniser has heard words, whether we have heard speech or not."""
        if self._ear is not None:
            self._ear.note_text(text)

    def note_commit(self) -> None:
        """The recogniser is done with the words so far."""
        if self._ear is not None:
            self._ear.note_text("")

    async def run(self) -> None:
        """Listen to what comes; never returns."""
        try:
            while True:
                while not self._waiting:
                    await self._worker.park()
                item = self._waiting.pop(0)
                if isinstance(item, _Sound):
                    await self._listen(item)
                else:
                    self._take_on(item)
        finally:
            self._put_down()

    def _take_on(self, assignment: Assignment | None) -> None:
        if self._put_down():
            self._step(SpeechStopped(at_s=trio.current_time()))
        if assignment is not None:
            self._ear = _Ear(assignment, SpeechDetector(assignment.rules, self._judges))

    def _put_down(self) -> bool:
        """Stop listening; tell whether somebody was speaking."""
        ear, self._ear = self._ear, None
        if ear is None:
            return False
        ear.detector.close()
        return ear.detector.is_speaking

    async def _listen(self, sound: _Sound) -> None:
        size = sound.audio_format.size_bytes(PIECE_MS)
        for start in range(0, len(sound.audio), size):
            if self._ear is not None:
                self._hear(self._ear, _Sound(sound.audio[start : start + size], sound.audio_format))
            await trio.lowlevel.checkpoint()

    def _hear(self, ear: "_Ear", sound: _Sound) -> None:
        for change in ear.detector.hear(ear.pcm(sound), expects_echo=self._is_assistant_audible()):
            now_s = trio.current_time()
            if isinstance(change, Started):
                self._step(SpeechStarted(at_s=now_s, speech_ms=change.speech_ms))
            else:
                silence_ms = change.at_ms - change.spoke_until_ms
                self._step(SpeechStopped(at_s=now_s, silence_ms=silence_ms))
                ear.note_stop()
        if ear.take_end():
            self._end_utterance()
        if self.tell_score is not None and ear.take_piece():
            self.tell_score(ear.detector.take_probability())


class _Ear:
    """A detector at work on one assignment, and what it cannot know by itself: the words."""

    def __init__(self, assignment: Assignment, detector: SpeechDetector) -> None:
        self.detector = detector
        self._assignment = assignment
        self._intakes: dict[AudioFormat, Intake] = {}
        self._has_stopped = False
        """Whether speech has stopped since the last end of an utterance."""
        self._text = ""
        """Words without an end."""
        self._text_at_ms = 0.0
        self._pieces = 0

    def pcm(self, sound: _Sound) -> bytes:
        """The sound as the detector wants it; one resampler goes on for as long as the format stays."""
        intake = self._intakes.get(sound.audio_format)
        if intake is None:
            intake = Intake(sound.audio_format.codec, sound.audio_format.sample_rate_hz)
            self._intakes = {sound.audio_format: intake}
        return intake.pcm(sound.audio)

    def note_stop(self) -> None:
        """The detector heard speech stop."""
        self._has_stopped = True

    def note_text(self, text: str) -> None:
        """The recogniser has these words, which want an end though the detector may have missed them."""
        if text != self._text:
            self._text = text
            self._text_at_ms = self.detector.heard_ms

    def take_end(self) -> bool:
        """Whether an utterance ends here; true once for each."""
        if not self._assignment.ends_utterances or self.detector.is_speaking:
            return False
        if not self._has_stopped and not self._is_overdue():
            return False
        self._has_stopped, self._text = False, ""
        return True

    def take_piece(self) -> bool:
        """Whether another `PIECE_MS` of audio has been heard."""
        before, self._pieces = self._pieces, int(self.detector.heard_ms // PIECE_MS)
        return self._pieces > before

    def _is_overdue(self) -> bool:
        silent_ms = self.detector.heard_ms - self._text_at_ms
        return bool(self._text) and silent_ms >= self._assignment.rules.silence_ms
