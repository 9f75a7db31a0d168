"""Whole recordings through a recogniser that is made for conversations.

A recording is cut where it is quietest into segments short enough that no recogniser commits one by itself,
so that each commit of ours has exactly one answer.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import attrs
import numpy as np
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.events import Word
from voice_fsm.fsm.options import PCM_16K, SttOptions
from voice_fsm.stt.base import CommittedTranscript, SttLink, SttProvider

RECORDING_FORMAT: Final = PCM_16K

SHORTEST_SEGMENT_S: Final = 15.0
LONGEST_SEGMENT_S: Final = 25.0
"""ElevenLabs has been seen to commit by itself after 36 s, the local engine does after 60."""
_WINDOW_S: Final = 0.1
"""Of the loudness that is compared."""
_PIECE_MS: Final = 500
_TAIL_S: Final = 0.4
"""Silence after the last word: ElevenLabs commits nothing shorter than 0.3 s."""


@attrs.frozen(kw_only=True)
class RecordedSpeech:
    """A recording to be understood."""

    pcm: bytes
    """In `RECORDING_FORMAT`."""
    language_code: str | None = None
    """``None``: whoever listens finds out."""
    model_id: str | None = None
    """What its client would like to have listening."""


@attrs.frozen
class Segment:
    """What was said from ``start_s`` to ``end_s`` of the recording."""

    text: str
    start_s: float
    end_s: float


@attrs.frozen(kw_only=True)
class Transcription:
    """What a recording says."""

    text: str
    words: tuple[Word, ...]
    """With the times that the recogniser tells or, the local one, estimates."""
    segments: tuple[Segment, ...]
    duration_s: float
    language_code: str | None = None
    """As the recogniser names it; ``None``: it does not tell."""
    estimated: bool = False
    """The recogniser has no times of words, and has spread them over the speech it heard."""


Transcribe = Callable[[RecordedSpeech], Awaitable[Transcription]]
"""Has a recording transcribed.

Raises:
    ClientError: whoever listens does not know the language.
    ProviderError: it failed; also in an ExceptionGroup.
"""


async def transcribe(provider: SttProvider, recorded: RecordedSpeech) -> Transcription:
    """Transcribe a recording over a link, as fast as the recogniser takes it.

    Raises:
        ProviderError: there is no link to be had.
        ClientError: the recogniser does not know the language.
        ExceptionGroup: with a ProviderError: the recogniser failed.
    """
    options = SttOptions(
        audio_format=RECORDING_FORMAT,
        commit_strategy="manual",
        language_code=recorded.language_code,
        include_timestamps=True,
    )
    pcm = recorded.pcm
    segments, words = list[Segment](), list[Word]()
    silence = bytes(RECORDING_FORMAT.size_bytes(_TAIL_S * 1000))
    async with provider.connect(options) as link:
        cuts = await trio.to_thread.run_sync(quiet_cuts, pcm)
        for start, end in zip((0, *cuts), (*cuts, len(pcm)), strict=True):
            audio = pcm[start:end] + (silence if end == len(pcm) else b"")
            committed = await _committed(link, audio)
            words += committed.words
            if committed.text.strip():
                segments.append(Segment(committed.text.strip(), *_times(committed, start, end)))
    return Transcription(
        text=" ".join(segment.text for segment in segments),
        words=tuple(words),
        segments=tuple(segments),
        duration_s=RECORDING_FORMAT.duration_ms(len(pcm)) / 1000,
        language_code=link.config.get("language_code"),
        estimated=link.config.get("timestamps") == "estimated",
    )


def quiet_cuts(pcm: bytes, audio_format: AudioFormat = RECORDING_FORMAT) -> tuple[int, ...]:
    """Where to cut a recording, in bytes: amid the least sound, `SHORTEST_SEGMENT_S` or more apart."""
    return tuple(_cuts(pcm, audio_format))


def _cuts(pcm: bytes, audio_format: AudioFormat) -> Iterator[int]:
    shortest, longest, window = (
        audio_format.size_bytes(seconds * 1000)
        for seconds in (SHORTEST_SEGMENT_S, LONGEST_SEGMENT_S, _WINDOW_S)
    )
    start = 0
    while len(pcm) - start > longest:
        candidates = np.frombuffer(pcm[start + shortest : start + longest], "<i2").astype(np.float32)
        loudness = np.square(candidates).reshape(-1, window // 2).mean(axis=1)
        quietest = int(np.argmin(loudness))
        start += shortest + quietest * window + window // 4 * 2
        yield start


async def _committed(link: SttLink, audio: bytes) -> CommittedTranscript:
    """Give the link one segment; its transcript."""
    result = CommittedTranscript("")
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            step = RECORDING_FORMAT.size_bytes(_PIECE_MS)
            for start in range(0, len(audio), step):
                await link.send(audio[start : start + step])
            await link.commit()

        nursery.start_soon(speak)
        async for transcript in link:
            if isinstance(transcript, CommittedTranscript):
                result = transcript
                break
    return result


def _times(committed: CommittedTranscript, start: int, end: int) -> tuple[float, float]:
    if committed.words:
        return committed.words[0].start_s, committed.words[-1].end_s
    return tuple(RECORDING_FORMAT.duration_ms(at) / 1000 for at in (start, end))  # type: ignore[return-value]  # two
