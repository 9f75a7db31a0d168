"""Upstreams and a client that do as a test tells them, on Trio's clock."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from voice_fsm.chat.base import ChatRequest, ReplyPart, ReplyText
from voice_fsm.fsm.options import BackendOptions, SttOptions, TtsOptions
from voice_fsm.runtime.outgoing import AudioChunk, Item
from voice_fsm.runtime.session import VoiceSession
from voice_fsm.stt.base import Transcript
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText, VoiceInfo


@attrs.define
class ScriptedLink:
    """A link whose transcripts a test puts into `transcripts`; an exception put there breaks it."""

    session_id: str
    config: dict[str, Any]
    transcripts: trio.MemoryReceiveChannel[Transcript | Exception]
    audio: bytearray
    commits: list[int]
    send_s: float = 0.0

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:
        await trio.sleep(self.send_s)
        self.audio += audio

    def send_now(self, audio: bytes) -> bool:
        if not self.send_s:
            self.audio += audio
        return not self.send_s

    async def commit(self) -> None:
        await trio.lowlevel.checkpoint()
        self.commits.append(len(self.audio))

    def __aiter__(self) -> AsyncIterator[Transcript]:
        return self

    async def __anext__(self) -> Transcript:
        item = await self.transcripts.receive()
        if isinstance(item, Exception):
            raise item
        return item


class ScriptedStt:
    """Keeps every link it gave out; ``connecting`` runs before each, and may fail or hang."""

    name = "scripted"

    def __init__(self) -> None:
        self.links: list[ScriptedLink] = []
        self.asked: list[SttOptions] = []
        self.open_links = 0
        self.connecting: Callable[[int], Any] | None = None
        self.closing_s = 0.0
        self._feeds: list[trio.MemorySendChannel[Transcript | Exception]] = []

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator[ScriptedLink]:
        await trio.lowlevel.checkpoint()
        self.asked.append(options)
        if self.connecting is not None:
            await self.connecting(len(self.links))
        feed, transcripts = trio.open_memory_channel[Transcript | Exception](100)
        number = len(self.links) + 1
        link = ScriptedLink(
            f"stt-{number}", {"format": str(options.audio_format)}, transcripts, bytearray(), []
        )
        self.links.append(link)
        self._feeds.append(feed)
        self.open_links += 1
        try:
            with feed, transcripts:
                yield link
        finally:
            self.open_links -= 1
            if self.closing_s:
                with trio.move_on_after(self.closing_s, shield=True):
                    await trio.sleep_forever()

    def say(self, *items: Transcript | Exception) -> None:
        """Have the newest link hear this; what nobody listens to is lost."""
        for item in items:
            if self._feeds:
                try:
                    self._feeds[-1].send_nowait(item)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return


Step = float | str | Exception | ReplyPart
"""Wait so many seconds; say this; fail so."""


class ScriptedChat:
    """Answers each turn with the script that ``script(request)`` gives."""

    name = "scripted"

    def __init__(
        self, script: Callable[[ChatRequest], Sequence[Step]] = lambda _: ["Fine, thank you."]
    ) -> None:
        self.script = script
        self.requests: list[ChatRequest] = []
        self.forgotten: list[str] = []
        self.open_calls = 0
        self.most_open = 0
        self.closing_s = 0.0

    def check(self, chosen: BackendOptions) -> None:
        """Everything goes."""

    def forget(self, session_id: str) -> None:
        """Remember who has left."""
        self.forgotten.append(session_id)

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        self.requests.append(request)
        self.open_calls += 1
        self.most_open = max(self.most_open, self.open_calls)
        try:
            async with play_script(self.script(request)) as parts:
                yield parts
        finally:
            if self.closing_s:
                with trio.move_on_after(self.closing_s, shield=True):
                    await trio.sleep_forever()
            self.open_calls -= 1


@trio.as_safe_channel
async def play_script(script: Sequence[Step]):  # type: ignore[no-untyped-def]  # noqa: ANN201  # decorated
    for step in script:
        match step:
            case float() | int():
                await trio.sleep(step)
            case str():
                await trio.lowlevel.checkpoint()
                yield ReplyText(step)
            case Exception():
                raise step
            case _:
                yield step


class ScriptedTts:
    """Speaks every character as ``ms_per_char`` of audio filled with the turn-independent byte 7."""

    name = "scripted"

    def __init__(
        self,
        *,
        ms_per_char: float = 50.0,
        chunk_ms: float = 100.0,
        first_s: float = 0.0,
        per_chunk_s: float = 0.0,
        error: Exception | None = None,
        error_after_chunks: int = 0,
    ) -> None:
        self.ms_per_char = ms_per_char
        self.chunk_ms = chunk_ms
        self.first_s = first_s
        self.per_chunk_s = per_chunk_s
        self.error = error
        self.error_after_chunks = error_after_chunks
        self.open_streams = 0
        self.most_open = 0
        self.spoken: list[str] = []
        self.prewarmed = 0

    def check(self, options: TtsOptions) -> None:
        """Everything goes."""

    def prewarm(self, options: TtsOptions) -> None:
        """Count."""
        self.prewarmed += 1

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """Have one."""
        await trio.lowlevel.checkpoint()
        return (VoiceInfo("scripted-1", "Scripted", "en"),)

    @asynccontextmanager
    async def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AsyncIterator[AsyncIterator[Speech]]:
        self.open_streams += 1
        self.most_open = max(self.most_open, self.open_streams)
        try:
            async with self._stream(pieces, options) as speech:
                yield speech
        finally:
            self.open_streams -= 1

    @trio.as_safe_channel
    async def _stream(self, pieces, options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # decorated
        chunks = 0
        await trio.sleep(self.first_s)
        async for piece in pieces:
            self.spoken.append(piece)
            yield SpokenText(piece)
            rest = options.output_format.size_bytes(len(piece) * self.ms_per_char)
            size = options.output_format.size_bytes(self.chunk_ms)
            while rest > 0:
                if self.error is not None and chunks >= self.error_after_chunks:
                    raise self.error
                await trio.sleep(self.per_chunk_s)
                yield SpeechAudio(b"\7" * min(size, rest))
                chunks += 1
                rest -= size
        if self.error is not None and chunks <= self.error_after_chunks:
            raise self.error


class RecordingDoor:
    """A client that writes down what it is told, reads as slowly as it is told, and leaves when told to."""

    def __init__(
        self, act: Callable[[VoiceSession], Any], *, read_s: Callable[[Item], float] | None = None
    ) -> None:
        self._act = act
        self._read_s = read_s
        self.items: list[tuple[float, Item]] = []
        self.closed_with: int | None = None

    async def listen(self, session: VoiceSession) -> None:
        await self._act(session)

    async def tell(self, items: Sequence[Item]) -> None:
        for item in items:
            await trio.sleep(self._read_s(item) if self._read_s else 0)
            self.items.append((trio.current_time(), item))

    async def close(self, code: int) -> None:
        await trio.lowlevel.checkpoint()
        self.closed_with = code

    @property
    def told(self) -> list[Item]:
        return [item for _, item in self.items]

    @property
    def names(self) -> list[str]:
        """What was told, by class, runs of audio as one."""
        names: list[str] = []
        for item in self.told:
            name = type(item).__name__
            if not (isinstance(item, AudioChunk) and names and names[-1] == name):
                names.append(name)
        return names
