"""A room for whole sessions: an assistant that is heard in it, a microphone, and somebody who speaks.

Everything runs on Trio's mock clock, so an hour in the room takes a minute, and always goes the same way. The
session, its detector and its queues are the server's own; the recogniser is scripted: each word comes in a
partial transcript 150 to 500 ms after it was spoken, as with those over a network.
"""

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
import numpy as np
import trio
import trio.testing

from tests.bench import sounds
from tests.bench.sounds import NoiseKind, Utterance
from tests.fakes.recordings import from_pcm, to_pcm
from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import TurnEnded, TurnInterrupted, TurnPaused, TurnResumed
from voice_fsm.fsm.options import SessionOptions, TtsOptions, TurnOptions
from voice_fsm.runtime.outgoing import AudioChunk, Item
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText
from voice_fsm.vad.engines import ThoroughJudges
from voice_fsm.vad.hysteresis import VadRules

VOICE: Final = "en-us+f2"
"""The assistant's."""
FORMAT: Final = AudioFormat("pcm", SAMPLE_RATE_HZ)
INTO_REPLY_S: Final = 2.5
"""How much of the reply is heard before anything happens."""
AFTERWARDS_S: Final = 3.0
"""How long the reply is listened to after it has: longer than any decision takes."""
_ROOM_S: Final = 60
_FIRST_S: Final = 0.5
_LATE_S: Final = (0.15, 0.5)
"""How much later than the word its partial transcript comes."""
_PAUSE_S: Final = 0.7
"""Silence after which the recogniser commits."""
_MISHEARD: Final = 0.1
_LOST: Final = 0.05
"""Shares of the words of an echo."""
_LONG_WORD: Final = 5
_SHORT_WORDS: Final = ("a", "the", "and", "it", "on")
_PACE: Final = 1.2345
"""How much faster than it is spoken the voice is made; an odd number, so that its audio does not come at the
same moment as the microphone's: Trio would shuffle the two."""


@attrs.frozen(kw_only=True, eq=False)
class Scene:
    """What happens while the assistant speaks, and the room in which it does."""

    name: str
    first: Utterance
    """What the user has said before, and is being answered."""
    sound: Samples
    text: str = ""
    """What a recogniser hears of the sound."""
    onset: int = 0
    end: int = 0
    """The first and the last sample of it that can be heard."""
    background: NoiseKind | None = None
    snr_db: float = 0.0
    echo_db: float | None = None
    """How loud the assistant comes back through the microphone; ``None`` for not at all."""
    seed: int = 0


@attrs.frozen
class Outcome:
    """What became of the reply; times from the onset of the sound, in ms."""

    silent_ms: float | None
    """When a client that stands still as it is told fell silent, of a reply that was stopped."""
    stopped_ms: float | None
    """When the client was told that the reply is over."""
    last_audio_ms: float | None
    """When it was sent the last of a reply that was stopped."""
    pauses_ms: tuple[float, ...]
    """How long each lasted after which the reply went on."""
    before: int
    """Pauses and stops before anything happened."""
    stale: int
    """Pieces of audio sent although the reply was paused or over."""


def witness(
    scene: Scene, turn: TurnOptions, rules: VadRules, judges: ThoroughJudges, *, chunk_ms: int = 20
) -> Outcome:
    """Run one session through the scene."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_witness, scene, turn, rules, judges, chunk_ms, clock=clock)


async def _witness(
    scene: Scene, turn: TurnOptions, rules: VadRules, judges: ThoroughJudges, chunk_ms: int
) -> Outcome:
    stt = ScriptedStt()
    services = Services(
        stt=stt,
        chat=ScriptedChat(lambda _: [" ".join(sounds.CHATTER)]),
        tts=_Voice(),
        vad_rules=rules,
        vad_judges=judges,
    )
    options = SessionOptions(turn=turn, tts=TtsOptions(output_format=FORMAT))
    room = _Room(scene, options, stt, chunk_ms)
    with trio.fail_after(120):
        await VoiceSession(services, room).run()
    return room.outcome()


# --- the assistant ----------------------------------------------------------------------------------


class _Voice(ScriptedTts):
    """Speaks with eSpeak's voice, a little faster than it is heard."""

    @asynccontextmanager
    async def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AsyncIterator[AsyncIterator[Speech]]:
        async with _spoken(pieces) as speech:
            yield speech


@trio.as_safe_channel
async def _spoken(pieces: AsyncIterable[str]):  # type: ignore[no-untyped-def]  # noqa: ANN202  # decorated
    size = FORMAT.size_bytes(100)
    async for piece in pieces:
        yield SpokenText(piece)
        pcm = to_pcm(sounds.spoken(piece, VOICE))
        for start in range(0, len(pcm), size):
            await trio.sleep(0.1 / _PACE)
            yield SpeechAudio(pcm[start : start + size])


@attrs.define
class _Player:
    """Plays what it is sent at once."""

    waiting: list[Samples] = attrs.field(factory=list)
    played: int = 0
    """Samples of the reply."""
    is_standing: bool = False

    def play(self, count: int) -> Samples:
        """Up to ``count`` samples of sound."""
        if self.is_standing or not self.waiting:
            return np.zeros(0, np.float32)
        ready = np.concatenate(self.waiting)
        self.waiting = [ready[count:]] if len(ready) > count else []
        self.played += len(ready[:count])
        return ready[:count]


# --- the recogniser ---------------------------------------------------------------------------------


@attrs.define
class _Recogniser:
    """Hears words as they end, and says so later."""

    random: np.random.Generator
    due: list[tuple[float, str]] = attrs.field(factory=list)
    """When each word is told."""
    words: list[str] = attrs.field(factory=list)
    silent_s: float = 0.0
    """How long nobody has spoken."""

    def hear(self, now_s: float, words: Sequence[str], *, is_speech: bool, passed_s: float) -> None:
        """These words have just ended; ``is_speech``: somebody speaks."""
        for word in words:
            late_s = now_s + self.random.uniform(*_LATE_S)
            self.due.append((max([late_s, *(due_s for due_s, _ in self.due[-1:])]), word))
        self.silent_s = 0.0 if is_speech else self.silent_s + passed_s

    def tell(self, now_s: float) -> Iterator[PartialTranscript | CommittedTranscript]:
        """What is to be told by now."""
        ready = [word for due_s, word in self.due if due_s <= now_s]
        self.due = self.due[len(ready) :]
        if ready:
            self.words += ready
            yield PartialTranscript(" ".join(self.words))
        if self.words and not self.due and self.silent_s >= _PAUSE_S:
            yield CommittedTranscript(" ".join(self.words))
            self.words = []


def _timed(text: str, onset: int, end: int) -> list[tuple[int, str]]:
    """Each word with the sample at which it ends, as if all letters took the same time."""
    words = text.split()
    lengths = np.cumsum([len(word) + 1 for word in words])
    return [
        (onset + round((end - onset) * length / lengths[-1]), word)
        for length, word in zip(lengths, words, strict=True)
    ]


def _of_reply() -> list[tuple[int, str]]:
    """The words of the assistant's reply with the samples at which they end."""
    found: list[tuple[int, str]] = []
    start = 0
    for sentence in sounds.CHATTER:
        length = len(sounds.spoken(sentence, VOICE))
        found += _timed(sentence, start, start + length)
        start += length
    return found


# --- the room ---------------------------------------------------------------------------------------


class _Room:
    """The client of a session (`Door`): its player, its microphone, and what its recogniser hears."""

    def __init__(self, scene: Scene, options: SessionOptions, stt: ScriptedStt, chunk_ms: int) -> None:
        self._scene = scene
        self._options = options
        self._stt = stt
        self._chunk = SAMPLE_RATE_HZ * chunk_ms // 1000
        self._player = _Player()
        self._random = np.random.default_rng(scene.seed)
        self._recogniser = _Recogniser(self._random)
        self._air = sounds.background(scene.background, scene.snr_db, _ROOM_S * SAMPLE_RATE_HZ, scene.seed)
        """All that the microphone takes in."""
        self._words: list[tuple[int, str]] = []
        """The user's, with the samples at which they end."""
        self._speech: list[tuple[int, int]] = []
        """From where to where the user speaks."""
        self._echoes = _of_reply() if scene.echo_db is not None else []
        self._happens: int | None = None
        """Where the scene's sound begins."""
        self._began_s = 0.0
        self._told: list[tuple[float, Item]] = []

    async def listen(self, session: VoiceSession) -> None:
        """See `Door`: speak, be answered, and let the scene happen."""
        session.configure("room", self._options)
        await trio.testing.wait_all_tasks_blocked()
        self._began_s = trio.current_time()
        first = self._scene.first
        self._say(first.samples, first.text, first.onset, first.end, _seconds(_FIRST_S))
        for at in itertools.count(0, self._chunk):
            if self._is_over(at):
                return
            await trio.sleep_until(self._began_s + (at + self._chunk) / SAMPLE_RATE_HZ)
            self._play(at)
            session.hear(to_pcm(self._air[at : at + self._chunk]))

    async def tell(self, items: Sequence[Item]) -> None:
        """See `Door`: do as a player does that can stand still."""
        await trio.lowlevel.checkpoint()
        for item in items:
            self._take(item)

    def _take(self, item: Item) -> None:
        self._told.append((trio.current_time() - self._began_s, item))
        match item:
            case AudioChunk(_, _, data):
                self._player.waiting.append(from_pcm(data))
            case TurnPaused():
                self._player.is_standing = True
            case TurnResumed():
                self._player.is_standing = False
            case TurnInterrupted():
                self._player.waiting.clear()

    async def close(self, code: int) -> None:
        """See `Door`."""
        await trio.lowlevel.checkpoint()

    def outcome(self) -> Outcome:
        """What became of the reply."""
        assert self._happens is not None, self._scene.name
        onset_s = (self._happens + self._scene.onset) / SAMPLE_RATE_HZ
        pauses_ms: list[float] = []
        silent_s = stopped_s = last_audio_s = None
        before = stale = 0
        for at_s, item in self._told:
            match item:
                case AudioChunk(turn_id=1):
                    last_audio_s = at_s
                    stale += silent_s is not None
                case TurnPaused():
                    silent_s = at_s
                    before += at_s < onset_s
                case TurnResumed() if silent_s is not None:
                    pauses_ms.append((at_s - silent_s) * 1000)
                    silent_s = None
                case TurnInterrupted(turn_id=1, reason="speech"):
                    stopped_s = at_s
                    silent_s = at_s if silent_s is None else silent_s
                    before += at_s < onset_s
        if stopped_s is None:
            silent_s = last_audio_s = None

        def after_onset_ms(at_s: float | None) -> float | None:
            return None if at_s is None else (at_s - onset_s) * 1000

        return Outcome(
            silent_ms=after_onset_ms(silent_s),
            stopped_ms=after_onset_ms(stopped_s),
            last_audio_ms=after_onset_ms(last_audio_s),
            pauses_ms=tuple(pauses_ms),
            before=before,
            stale=stale,
        )

    def _say(self, sound: Samples, text: str, onset: int, end: int, at: int) -> None:
        self._air[at : at + len(sound)] += sound
        if text:
            self._words += _timed(text, at + onset, at + end)
            self._speech.append((at + onset, at + end))

    def _play(self, at: int) -> None:
        """Let the reply be heard for one chunk, and the recogniser hear what the room does."""
        before, scene = self._player.played, self._scene
        played = self._player.play(self._chunk)
        if len(played) and self._happens is None:
            self._happens = at + _seconds(INTO_REPLY_S + scene.seed % 7 * 0.013)  # anywhere in a chunk
            self._say(scene.sound, scene.text, scene.onset, scene.end, self._happens)
        until = at + self._chunk
        words = [word for end, word in self._words if at <= end < until]
        is_speech = any(start < until and end > at for start, end in self._speech)
        if scene.echo_db is not None and len(played):
            echo = sounds.echo(played, gain_db=scene.echo_db)
            self._air[at : at + len(echo)] += echo
            if not is_speech:  # which would drown it
                words += self._echoed(before, self._player.played)
            is_speech = True
        self._recogniser.hear(
            trio.current_time(), words, is_speech=is_speech, passed_s=self._chunk / SAMPLE_RATE_HZ
        )
        self._stt.say(*self._recogniser.tell(trio.current_time()))

    def _echoed(self, start: int, until: int) -> Iterator[str]:
        """Words of the reply that ended here, as far as they are understood."""
        for end, word in self._echoes:
            if start <= end < until and self._random.random() >= _LOST:
                yield self._misheard(word) if self._random.random() < _MISHEARD else word

    def _misheard(self, word: str) -> str:
        """Long words lose their end, short ones are taken for another."""
        is_long = len(word) >= _LONG_WORD
        return word[:-1] if is_long else str(self._random.choice(_SHORT_WORDS))

    def _is_over(self, at: int) -> bool:
        if any(isinstance(item, TurnEnded) for _, item in self._told[-20:]):
            return True
        lasts = len(self._scene.sound) + _seconds(AFTERWARDS_S)
        return self._happens is not None and at >= self._happens + lasts


def _seconds(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ)
