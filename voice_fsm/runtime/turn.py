"""One turn: ask the chat backend, cut its reply into pieces, have them spoken, hand the audio on."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import structlog
import trio

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.errors import ProviderError, VoiceError
from voice_fsm.fsm.effects import StartTurn
from voice_fsm.fsm.events import (
    AnyEvent,
    FirstAudio,
    ReplyComplete,
    ReplyStarted,
    SpeechAligned,
    SpokenSpan,
    TurnDone,
    TurnFailed,
)
from voice_fsm.fsm.sentences import SentenceSplitter
from voice_fsm.runtime.groups import first_error
from voice_fsm.runtime.outgoing import AudioChunk, Outgoing, SpeechTiming, TextDelta
from voice_fsm.runtime.speculation import Speculation
from voice_fsm.runtime.succession import Leaving, await_all_gone
from voice_fsm.tts.base import Alignment, SpeechAudio, SpokenText, TtsProvider

log = structlog.get_logger()

MAX_DELTA_CHARS = 4000
"""Text is cut into sentences at 1 to 5 µs a character; more at once would hold up the other sessions."""
MAX_PIECES = 256
"""Pieces of text that may wait to be spoken: text is small, and the chat call shall end when it can."""


@attrs.frozen
class SlowReply:
    """What is said while the chat backend keeps the user waiting."""

    after_s: float
    text: str


class Words:
    """Characters and their times, grouped into words with the space that follows; frames cut anywhere."""

    def __init__(self) -> None:
        self._word = ""
        self._start_ms = 0.0
        self._end_ms = 0.0

    def feed(self, alignment: Alignment) -> tuple[SpokenSpan, ...]:
        """The words that are complete now."""
        spans: list[SpokenSpan] = []
        times = zip(alignment.chars, alignment.starts_ms, alignment.ends_ms, strict=True)
        for char, start_ms, self._end_ms in times:
            if not self._word:
                self._start_ms = start_ms
            self._word += char
            if char.isspace():
                spans += self.finish()
        return tuple(spans)

    def finish(self) -> tuple[SpokenSpan, ...]:
        """The word that ends here, if one has begun."""
        span = SpokenSpan(self._word, self._start_ms, self._end_ms)
        self._word = ""
        return (span,) if span.text else ()


def chat_request(start: StartTurn) -> ChatRequest:
    """What the chat backend is asked."""
    return ChatRequest(
        session_id=start.session_id,
        turn_id=start.turn_id,
        text=start.text,
        cause=start.cause,
        history=start.history,
        backend=start.options.backend,
    )


async def _send_all(texts: Iterable[str], pieces: trio.MemorySendChannel[str]) -> None:
    """Hand them on; where there is room, as nearly always, without a turn of the scheduler."""
    for text in texts:
        await trio.lowlevel.checkpoint_if_cancelled()  # then nobody reads them any more
        try:
            pieces.send_nowait(text)
        except trio.WouldBlock:
            await pieces.send(text)


@trio.as_safe_channel
async def _fixed_reply(text: str) -> AsyncGenerator[ReplyPart]:
    await trio.lowlevel.checkpoint()
    yield ReplyText(text)


@attrs.define
class TurnTask:
    """The work of one turn, all of it inside `scope`."""

    start: StartTurn
    chat: ChatProvider
    tts: TtsProvider
    outgoing: Outgoing
    step: Callable[[AnyEvent], None]
    slow_reply: SlowReply | None = None
    speculation: Speculation | None = None
    """Where the reply comes from, if it was asked for already."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gone: trio.Event = attrs.field(factory=trio.Event)
    """Set when nothing of the turn runs any more."""
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """For the first text of the reply."""
    _audio_ms: float = 0.0
    _words: Words = attrs.field(factory=Words)

    @property
    def turn_id(self) -> int:
        return self.start.turn_id

    async def run(self, predecessors: Sequence[Leaving]) -> None:
        """Do the turn's work once its predecessors' is gone, and report how it ended."""
        try:
            with self.scope:
                error = await await_all_gone(predecessors) or await self._converse()
                if error is None:
                    self.step(TurnDone(at_s=trio.current_time(), turn_id=self.turn_id))
                else:
                    self._fail(error)
        finally:
            if self.speculation is not None:
                self.speculation.scope.cancel(reason=f"turn {self.turn_id} is over")
            self.gone.set()

    async def _converse(self) -> VoiceError | None:
        error: VoiceError | None = None
        try:
            async with trio.open_nursery() as nursery:
                write_pieces, read_pieces = trio.open_memory_channel[str](MAX_PIECES)
                if self.slow_reply is not None:
                    nursery.start_soon(self._apologise, self.slow_reply, write_pieces.clone())
                nursery.start_soon(self._ask, write_pieces)
                await self._speak(read_pieces)
            await self.outgoing.drained()
        except* VoiceError as group:
            error = first_error(group)
        return error

    async def _ask(self, pieces: trio.MemorySendChannel[str]) -> None:
        splitter = SentenceSplitter()
        texts: list[str] = []
        metadata: dict[str, Any] = {}
        with pieces:
            async with self._reply() as parts:
                async for part in parts:
                    match part:
                        case ReplyText(text):
                            if not texts:
                                self._stop_waiting()
                                self.step(ReplyStarted(at_s=trio.current_time(), turn_id=self.turn_id))
                            texts.append(text)
                            for start_at in range(0, len(text), MAX_DELTA_CHARS):
                                if start_at:
                                    await trio.lowlevel.checkpoint()
                                delta = text[start_at : start_at + MAX_DELTA_CHARS]
                                await self.outgoing.put_output(TextDelta(self.turn_id, delta))
                                await _send_all(splitter.feed(delta), pieces)
                        case ReplyMetadata(data):
                            metadata.update(data)
            self._stop_waiting()
            await _send_all(splitter.finish(), pieces)
            self.step(
                ReplyComplete(
                    at_s=trio.current_time(), turn_id=self.turn_id, text="".join(texts), metadata=metadata
                )
            )

    def _reply(self) -> AbstractAsyncContextManager[AsyncIterator[ReplyPart]]:
        if self.speculation is not None:
            return self.speculation.reply()
        if self.start.say is not None:
            return _fixed_reply(self.start.say)
        return self.chat.reply(chat_request(self.start))

    def _stop_waiting(self) -> None:
        if self.slow_reply is not None:
            self._waiting.cancel()

    async def _apologise(self, slow: SlowReply, pieces: trio.MemorySendChannel[str]) -> None:
        """Say something if the reply is slow to come."""
        with pieces, self._waiting:
            await trio.sleep(slow.after_s)
            await pieces.send(slow.text)

    async def _speak(self, pieces: trio.MemoryReceiveChannel[str]) -> None:
        if self.start.options.tts.silent:
            with pieces:
                async for _ in pieces:
                    pass
            return
        with pieces:
            async with self.tts.speak(pieces, self.start.options.tts) as speech:
                async for item in speech:
                    match item:
                        case SpeechAudio(data):
                            await self._send_audio(data)
                        case SpokenText(text):
                            self._aligned((SpokenSpan(text, self._audio_ms),))
                        case Alignment():
                            self._aligned(self._words.feed(item))
                            await self.outgoing.put_output(SpeechTiming(self.turn_id, item))
        self._aligned(self._words.finish())

    async def _send_audio(self, data: bytes) -> None:
        if not self._audio_ms:
            self.step(FirstAudio(at_s=trio.current_time(), turn_id=self.turn_id))
        output_format = self.start.options.tts.output_format
        self._audio_ms += output_format.duration_ms(len(data))
        await self.outgoing.put_output(AudioChunk(self.turn_id, output_format, data))

    def _aligned(self, spans: tuple[SpokenSpan, ...]) -> None:
        if spans:
            self.step(SpeechAligned(at_s=trio.current_time(), turn_id=self.turn_id, spans=spans))

    def _fail(self, error: VoiceError) -> None:
        upstream = (
            {"status": error.status, "request_id": error.request_id}
            if isinstance(error, ProviderError)
            else {}
        )
        log.warning("turn_failed", turn_id=self.turn_id, code=error.code, **upstream)
        self.step(
            TurnFailed(
                at_s=trio.current_time(),
                turn_id=self.turn_id,
                code=error.code,
                message=error.message,
                retryable=error.retryable,
            )
        )
