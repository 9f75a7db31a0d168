"""One reply on its way: what is asked for its text, and how the answers become one stream of speech.

A provider says which requests a reply takes (`Plan`) and reads the frames of their answers; retries, the
announcement of texts and one clock for all times are here.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final, Protocol

import attrs
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText
from voice_fsm.tts.encoding import Transcoder
from voice_fsm.tts.script import Script, as_channel
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.retry import RetryPolicy, with_retries

_MAX_JOINED_MS: Final = 500.0
"""Audio that came together is handed on as one, up to this."""
_STEPS_TO_THE_CLIENT: Final = 2
"""Rounds of the scheduler after which who writes speech out has surely done so."""


@attrs.frozen
class Frame:
    """One message of the answer."""

    audio: bytes = b""
    alignment: Alignment | None = None
    is_final: bool = False
    text: str = ""
    """What its audio begins to say, if the service tells that."""


def shifted(alignment: Alignment, by_ms: float) -> Alignment:
    """Move an alignment to a later origin."""
    return Alignment(
        alignment.chars,
        tuple(start + by_ms for start in alignment.starts_ms),
        tuple(end + by_ms for end in alignment.ends_ms),
    )


def joined(frames: Sequence[Frame], max_bytes: int) -> Iterator[Frame]:
    """Make of frames that came together as few as hold so much audio each, and begin where a text does."""
    begin, size = 0, 0
    for at, frame in enumerate(frames):
        if at > begin and (frame.text or size + len(frame.audio) > max_bytes):
            yield _as_one(frames[begin:at])
            begin, size = at, 0
        size += len(frame.audio)
    yield _as_one(frames[begin:])


def _as_one(frames: Sequence[Frame]) -> Frame:
    if len(frames) == 1:
        return frames[0]
    alignments = [frame.alignment for frame in frames if frame.alignment is not None]
    return Frame(
        b"".join([frame.audio for frame in frames]),
        _one_after_another(alignments) if alignments else None,
        frames[-1].is_final,
        frames[0].text,
    )


def _one_after_another(alignments: Sequence[Alignment]) -> Alignment:
    return Alignment(
        tuple(char for alignment in alignments for char in alignment.chars),
        tuple(start for alignment in alignments for start in alignment.starts_ms),
        tuple(end for alignment in alignments for end in alignment.ends_ms),
    )


class FrameSource(Protocol):
    """The answer to one request."""

    async def next_frames(self) -> Sequence[Frame]:
        """Wait for the next frame, and give it with those that came together with it; none: that was all.

        Times are from the answer's start. Nothing comes with the first audio, so that it can go at once.

        Raises:
            ProviderError: the answer is late, broken or an error.
        """


class Request(Protocol):
    """Some or all of a reply's text, to be spoken by one call."""

    untold: list[str]
    """Text that the next frame says, if it does not tell so itself."""

    async def has_text(self) -> bool:
        """Wait for text; there may be none any more."""

    async def open(self) -> FrameSource:
        """Ask, and give the answer; once that is closed, it may be asked again.

        Raises:
            ProviderError: there is none.
        """

    async def aclose(self) -> None:
        """End the answer, finished or not, and let go of what was made ready."""


Plan = Callable[[Script], Awaitable[Iterator[Request]]]
"""Chooses the requests for a reply's text, as many as it takes; what is left over is not asked."""


class Narrator:
    """Hands on what the answers to a reply's requests say, on one clock from the reply's first sample."""

    def __init__(
        self,
        audio_format: AudioFormat,
        late_alignment_ms: float = 0.0,
        transcoder: Transcoder | None = None,
    ) -> None:
        """Let an answer's first alignment come as much as ``late_alignment_ms`` of audio too late.

        Only then does it count as an answer without any. The answers' audio is in ``audio_format``.
        """
        self._format = audio_format
        self._bytes_per_sample = audio_format.bytes_per_sample
        self._max_joined_bytes = audio_format.size_bytes(_MAX_JOINED_MS)
        self._late_alignment_ms = late_alignment_ms
        self._transcoder = transcoder
        self._audio_bytes = 0
        self.begin_answer()

    def begin_answer(self) -> None:
        """Take what comes as another request's answer, whose times count from its own start."""
        self._origin_ms = self._format.duration_ms(self._audio_bytes)
        self._half_sample = b""
        self._aligned: bool | None = None

    def tell_all(self, frames: Sequence[Frame], untold: list[str]) -> list[Speech]:
        """Give the speech of frames that came together, as `tell` does, in as few pieces as may be."""
        return [
            speech for frame in joined(frames, self._max_joined_bytes) for speech in self.tell(frame, untold)
        ]

    def tell(self, frame: Frame, untold: list[str]) -> list[Speech]:
        """Give a frame's speech; of its text, what ``untold`` holds, which is emptied, if nothing aligns it.

        The first frame that says anything decides which, unless alignments may be late: later ones without an
        alignment belong to the one before.
        """
        said: list[Speech] = []
        if frame.text:
            untold.append(frame.text)
        if self._aligned is None:
            self._aligned = self._is_aligned(frame)
        if self._aligned:
            untold.clear()
            if frame.alignment is not None:
                said.append(shifted(frame.alignment, self._origin_ms))
        elif self._aligned is False and untold and frame.audio:
            said.append(SpokenText(" ".join(untold)))
            untold.clear()
        audio = self._whole_samples(frame.audio)
        self._audio_bytes += len(audio)
        if audio and self._transcoder is not None:
            audio = self._transcoder.feed(audio)
        if audio:
            said.append(SpeechAudio(audio))
        return said

    def end(self) -> list[Speech]:
        """Give what was held back."""
        audio = b"" if self._transcoder is None else self._transcoder.end()
        return [SpeechAudio(audio)] if audio else []

    def _is_aligned(self, frame: Frame) -> bool | None:
        if frame.alignment is not None:
            return True
        said_ms = self._format.duration_ms(self._audio_bytes) - self._origin_ms
        return False if frame.audio and said_ms >= self._late_alignment_ms else None

    def _whole_samples(self, audio: bytes) -> bytes:
        if self._half_sample:
            audio = self._half_sample + audio
        whole = len(audio) - len(audio) % self._bytes_per_sample
        self._half_sample = audio[whole:]
        return audio[:whole]


@asynccontextmanager
async def speak_script(
    pieces: AsyncIterable[str],
    output_format: AudioFormat,
    plan: Plan,
    retries: RetryPolicy,
    *,
    source_format: AudioFormat | None = None,
    late_alignment_ms: float = 0.0,
    max_piece_chars: int | None = None,
) -> AsyncIterator[AsyncIterator[Speech]]:
    """Speak one reply, request by request.

    ``source_format`` is what the answers hold, if not ``output_format``. For ``late_alignment_ms`` see
    `Narrator`. Pieces longer than ``max_piece_chars`` are cut.

    Raises:
        ProviderError: while iterating: the service failed; before the first audio of a request it was tried
            again. At any time: the text failed.
    """
    source_format = source_format or output_format
    transcoder = None if source_format == output_format else Transcoder(source_format, output_format)
    narrator = Narrator(source_format, late_alignment_ms, transcoder)
    async with as_channel(pieces) as channel:
        script = Script(channel, max_piece_chars=max_piece_chars)
        async with aclosing(_speech(script, plan, retries, narrator)) as speech:
            yield speech


async def _speech(
    script: Script, plan: Plan, retries: RetryPolicy, narrator: Narrator
) -> AsyncGenerator[Speech]:
    """Make the speech as it is asked for. It holds no scope of Trio's, and has to be closed."""
    for request in await plan(script):
        async with aclosing(request):
            if not await request.has_text():
                break
            source, early = await with_retries(partial(_ask, request), retries)
            narrator.begin_answer()
            for frame in early:
                for speech in narrator.tell(frame, request.untold):
                    yield speech
            await _let_out()
            while frames := await source.next_frames():
                for speech in narrator.tell_all(frames, request.untold):
                    yield speech
    for speech in narrator.end():
        yield speech


async def _ask(request: Request) -> tuple[FrameSource, list[Frame]]:
    """Give a request's answer, and its frames up to the first audio.

    Raises:
        ProviderError: it went wrong before that; nothing is left open.
    """
    try:
        source = await request.open()
        return source, await _until_audio(source)
    except ProviderError:
        await request.aclose()
        raise


async def _let_out() -> None:
    """Let the first audio go its way before the rest is decoded, which may well be here already."""
    for _ in range(_STEPS_TO_THE_CLIENT):
        await trio.lowlevel.checkpoint()


async def _until_audio(source: FrameSource) -> list[Frame]:
    """Give the frames up to the first audio.

    Raises:
        ProviderError: see `FrameSource`; BAD_RESPONSE if there is no audio at all.
    """
    early: list[Frame] = []
    while frames := await source.next_frames():
        early += frames
        if frames[-1].audio:
            return early
    raise provider_error(Upstream.TTS, ProviderFault.BAD_RESPONSE)
