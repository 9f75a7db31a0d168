"""The two ends of a reply: the text as it is being written, and the speech as it is handed on."""

from collections.abc import AsyncIterable, Iterator
from typing import Protocol

import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText
from voice_fsm.tts.elevenlabs_wire import Frame, shifted


class Script:
    """The text of one reply, piece by piece, kept so that a second attempt can read it from its start.

    The pieces are read by a task of their own (`record`), so that waiting for one may be given up at any
    time: cancelling a foreign iterator could end it. It reads at most one piece ahead of the speech.
    """

    def __init__(self, pieces: AsyncIterable[str]) -> None:
        self.taken = 0
        """How many pieces belong to requests that were made already."""
        self._source = pieces
        self._recorder, self._reader = trio.open_memory_channel[str](0)
        self._pieces: list[str] = []

    async def record(self) -> None:
        """Read all pieces, but not those that cannot be spoken, such as a lone emoji."""
        with self._recorder:
            async for piece in self._source:
                text = piece.strip()
                if any(map(str.isalnum, text)):
                    await self._recorder.send(text)

    async def piece(self, number: int) -> str | None:
        """Wait for one piece, at most one beyond those already read; ``None``: the reply has ended."""
        if number < len(self._pieces):
            return self._pieces[number]
        try:
            text = await self._reader.receive()
        except trio.EndOfChannel:
            return None
        self._pieces.append(text)
        return text

    async def whole(self, within_s: float, max_chars: int) -> str | None:
        """Give all of the text if its end is known so soon, and it is no longer than that."""
        with trio.move_on_after(within_s):
            number = 0
            while await self.piece(number) is not None:
                number += 1
            text = self.until(number)
            return text if len(text) <= max_chars else None
        return None

    def until(self, number: int) -> str:
        """Give the text of all pieces before this one."""
        return " ".join(self._pieces[:number])


class FrameSource(Protocol):
    """The answer to one request."""

    async def next_frame(self) -> Frame | None:
        """Wait for the next frame, with times from the answer's start; ``None``: that was all.

        Raises:
            ProviderError: the answer is late, broken or an error.
        """


class Narrator:
    """Hands on what the answers to a reply's requests say, on one clock from the reply's first sample."""

    def __init__(self, output_format: AudioFormat) -> None:
        self._format = output_format
        self._audio_bytes = 0
        self.begin_answer()

    def begin_answer(self) -> None:
        """Take what comes as another request's answer, whose times count from its own start."""
        self._origin_ms = self._format.duration_ms(self._audio_bytes)
        self._half_sample = b""
        self._aligned: bool | None = None

    def tell(self, frame: Frame, untold: list[str]) -> Iterator[Speech]:
        """Give a frame's speech; of its text, what ``untold`` holds, which is emptied, if nothing aligns it.

        The first frame that says anything decides which: later ones without an alignment belong to the one
        before.
        """
        if self._aligned is None and (frame.audio or frame.alignment):
            self._aligned = frame.alignment is not None
        if self._aligned:
            untold.clear()
            if frame.alignment is not None:
                yield shifted(frame.alignment, self._origin_ms)
        elif untold and frame.audio:
            yield SpokenText(" ".join(untold))
            untold.clear()
        audio = self._whole_samples(frame.audio)
        if audio:
            self._audio_bytes += len(audio)
            yield SpeechAudio(audio)

    def _whole_samples(self, audio: bytes) -> bytes:
        audio = self._half_sample + audio
        whole = len(audio) - len(audio) % self._format.bytes_per_sample
        self._half_sample = audio[whole:]
        return audio[:whole]
