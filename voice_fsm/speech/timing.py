"""Speech with its timing: when each character sounds, as the provider tells it or estimated."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterator

import attrs
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText


@attrs.frozen(kw_only=True)
class TimedSpeech:
    """Audio, and what it says if that is known by now."""

    audio: bytes
    alignment: Alignment | None = None
    """In milliseconds from the start of all audio."""
    start_ms: float
    """Where this audio begins."""
    estimated: bool = False
    """The provider tells no times: the characters share the time of their sentence."""


@trio.as_safe_channel
async def with_timing(
    speech: AsyncIterable[Speech], audio_format: AudioFormat, *, estimate: bool = True
) -> AsyncGenerator[TimedSpeech]:
    """Join what is said to its sound.

    A provider's alignment goes with the next audio. Where it only announces its texts, all audio of a text
    comes as one piece, since its length is needed to estimate the times. Without ``estimate`` it comes at
    once, and its times not at all.
    """
    joiner = _Joiner(audio_format)
    async for item in speech:
        if estimate or not isinstance(item, SpokenText):
            for timed in joiner.take(item):
                yield timed
    for timed in joiner.rest():
        yield timed


class _Joiner:
    """Audio that waits for its text's end, and an alignment that waits for its audio."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._audio_format = audio_format
        self._total_bytes = 0
        self._kept = bytearray()
        self._text: str | None = None
        self._told: Alignment | None = None

    def take(self, item: Speech) -> Iterator[TimedSpeech]:
        match item:
            case SpokenText(text):
                yield from self._finish_text()
                # Alone, a text without sound goes to the next; a space parts it from the one before.
                self._text = text if self._text is None else f"{self._text} {text}"
            case Alignment():
                self._told = item if self._told is None else _joined(self._told, item)
            case SpeechAudio(data):
                self._total_bytes += len(data)
                self._kept += data
                if self._text is None:
                    yield self._timed(self._told)
                    self._told = None

    def rest(self) -> Iterator[TimedSpeech]:
        yield from self._finish_text()
        if self._told is not None:
            yield self._timed(self._told)

    def _finish_text(self) -> Iterator[TimedSpeech]:
        if self._kept:
            end_ms = self._audio_format.duration_ms(self._total_bytes)
            yield self._timed(spread(self._text or "", self._start_ms, end_ms), estimated=True)
            self._text = ""

    @property
    def _start_ms(self) -> float:
        return self._audio_format.duration_ms(self._total_bytes - len(self._kept))

    def _timed(self, alignment: Alignment | None, *, estimated: bool = False) -> TimedSpeech:
        audio, start_ms = bytes(self._kept), self._start_ms
        self._kept.clear()
        return TimedSpeech(audio=audio, alignment=alignment, start_ms=start_ms, estimated=estimated)


def spread(text: str, start_ms: float, end_ms: float) -> Alignment:
    """Give each character of ``text`` the same share of a time."""
    each_ms = (end_ms - start_ms) / max(1, len(text))
    borders = [round(start_ms + number * each_ms, 3) for number in range(len(text) + 1)]
    return Alignment(tuple(text), tuple(borders[:-1]), tuple(borders[1:]))


def _joined(first: Alignment, second: Alignment) -> Alignment:
    return Alignment(
        first.chars + second.chars, first.starts_ms + second.starts_ms, first.ends_ms + second.ends_ms
    )
