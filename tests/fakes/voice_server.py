"""A scripted stand-in for the server of `/v1/voice/ws`, for pages: a real socket, a thread of its own.

A test sets the `Script`, drives a browser, and looks at what the server was told; `FakeVoiceServer.tell` and
its siblings make it say a thing at a moment of the test's choice.
"""

import itertools
import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import Resampler, ulaw_encode

SPEECH_HZ: Final = 24000
"""Rate of `Script.speech`."""

Json = dict[str, Any]


@attrs.define(kw_only=True)
class Script:
    """What the server does. Everything but ``speech`` has a default that makes a plain conversation."""

    speech: bytes
    """PCM of every reply."""
    reply: str = "It was the best of times, it was the worst of times."
    chunk_bytes: Sequence[int] = (4800,)
    """Sizes of the audio chunks, over and over; odd ones cut samples in two."""
    pace: float = 0.5
    """Time between two chunks as a part of what the first one sounds for."""
    waits: bool = False
    """Whether every chunk but the first waits for `FakeVoiceServer.speak_on`."""
    linger_s: float = 0.0
    """Time between `assistant.interrupted` and all that follows it."""
    ignores: Sequence[str] = ()
    """Types of messages that get no answer."""
    late_chunks: int = 0
    """So many chunks of a turn follow its interruption: what a server must never do."""
    file: bytes | None = None
    """The reply's audio in one piece, as `assistant.audio`, in place of chunks."""
    resume: str | None = None
    """Token told with `session.closing`."""


@attrs.define
class FakeVoiceServer:
    """The handle for the test's thread."""

    script: Script
    url: str = ""
    """Where the page is: http://127.0.0.1:port."""
    microphone: bytearray = attrs.field(factory=bytearray)
    """PCM of all sessions so far, in order."""
    microphone_frames: list[tuple[Literal["binary", "json"], int]] = attrs.field(factory=list)
    """How each piece of it came, and its bytes."""
    messages: list[Json] = attrs.field(factory=list)
    """JSON from the clients, audio left out."""
    connections: int = 0
    """Open now."""
    _token: trio.lowlevel.TrioToken | None = None
    _session: "_Session | None" = None

    def received(self, type_: str) -> list[Json]:
        """Messages of one type, oldest first."""
        return [message for message in self.messages if message["type"] == type_]

    def tell(self, type_: str, **fields: Any) -> None:
        """Say something to the client that came last."""
        self._in_session(lambda session: session.send(type_, **fields))

    def speak_on(self) -> None:
        """Send the next chunk of a turn that waits."""
        self._in_session(lambda session: session.speak_on())

    def interrupt(self) -> None:
        """Cut the running turn short, as if the user had spoken."""
        self._in_session(lambda session: session.interrupt("speech"))

    def hang_up(self, reason: str, code: int) -> None:
        """Close the socket, with `session.closing` before."""
        self._in_session(lambda session: session.close(reason, code))

    def _in_session(self, act: Callable[["_Session"], Any]) -> None:
        async def in_server() -> None:
            assert self._session is not None, "no client"
            await act(self._session)

        trio.from_thread.run(in_server, trio_token=self._token)

    async def _serve_client(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.connections += 1
        try:
            async with trio.open_nursery() as nursery:
                self._session = _Session(self, websocket, nursery)
                await self._session.run()
                nursery.cancel_scope.cancel()
        finally:
            self.connections -= 1


@contextmanager
def run_voice_server(script: Script, routes: Sequence[BaseRoute]) -> Iterator[FakeVoiceServer]:
    """Serve ``routes`` and the voice endpoint until the block is left."""
    server = FakeVoiceServer(script)
    stop = trio.Event()
    started = threading.Event()

    async def serve_until_stopped() -> None:
        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.errorlog = None
        config.graceful_timeout = 0.2
        # Hypercorn spells out ASGI's dictionaries, Starlette does not.
        app: Any = Starlette(routes=[*routes, WebSocketRoute("/v1/voice/ws", server._serve_client)])
        server._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            serve_app = partial(serve, app, config, shutdown_trigger=stop.wait)
            binds: list[str] = await nursery.start(serve_app)
            server.url = binds[0]
            started.set()

    thread = threading.Thread(target=trio.run, args=(serve_until_stopped,), name="fake-voice-server")
    thread.start()
    assert started.wait(10), "the fake server did not start"
    try:
        yield server
    finally:
        assert server._token is not None
        trio.from_thread.run_sync(stop.set, trio_token=server._token)
        thread.join(10)
        assert not thread.is_alive(), "the fake server did not stop"


def _whole_frame() -> trio.CancelScope:
    """Hypercorn compresses a frame before it may be cancelled, and one that is lost garbles all after it."""
    return trio.move_on_after(5, shield=True)


class _Session:
    """One client: unconfigured, listening, thinking, speaking, closed."""

    def __init__(self, server: FakeVoiceServer, websocket: WebSocket, nursery: trio.Nursery) -> None:
        self._server = server
        self._websocket = websocket
        self._nursery = nursery
        self._sending = trio.Lock()
        self._seq = itertools.count(1)
        self._turn_ids = itertools.count(1)
        self._turn: _Turn | None = None
        self._state = "unconfigured"
        self.config: Json = {}

    async def run(self) -> None:
        await self.send("session.ready", message="Send session.configure to begin.")
        while (frame := await self._websocket.receive())["type"] != "websocket.disconnect":
            if frame.get("bytes") is not None:
                self._hear("binary", frame["bytes"])
            else:
                await self._take(json.loads(frame["text"]))

    async def send(self, type_: str, **fields: Any) -> None:
        async with self._sending:
            message = {"type": type_, "seq": next(self._seq), **fields}
            with _whole_frame():
                await self._websocket.send_text(json.dumps(message))

    async def send_audio(self, turn_id: int, index: int, data: bytes, output_format: str) -> None:
        if self.config.get("audio_out") == "binary":
            async with self._sending:
                header = turn_id.to_bytes(4, "big") + index.to_bytes(4, "big")
                with _whole_frame():
                    await self._websocket.send_bytes(header + data)
        else:
            await self.send(
                "assistant.audio.chunk",
                turn_id=turn_id,
                audio=b64encode(data).decode(),
                content_type=AudioFormat.parse(output_format).content_type,
                output_format=output_format,
                chunk_index=index,
            )

    async def move(self, state: str, by: str) -> None:
        before, self._state = self._state, state
        if "state" in self.config.get("events", ()):
            await self.send("state.changed", **{"from": before, "to": state, "input": by, "at_ms": 0.0})

    async def close(self, reason: str, code: int) -> None:
        await self.send("session.closing", reason=reason, resume=self._server.script.resume)
        await self._websocket.close(code)
        self._nursery.cancel_scope.cancel()

    async def _take(self, message: Json) -> None:
        if message["type"] == "audio.append":
            self._hear("json", b64decode(message["audio"]))
            return
        self._server.messages.append(message)
        if message["type"] in self._server.script.ignores:
            return
        match message:
            case {"type": "session.configure"}:
                await self._configure(message)
            case {"type": "text.prompt"}:
                await self._begin_turn(message["text"])
            case {"type": "response.cancel"}:
                await self.interrupt("client")
            case {"type": "playback.progress"} if self._turn is not None:
                self._turn.progress(message["turn_id"], message["played_ms"])

    async def _configure(self, message: Json) -> None:
        self.config = message
        session_id = message.get("session_id", "session-1")
        await self.send("session.configured", session_id=session_id)
        await self.send("stt.session_started", session_id=session_id, config={})
        if self._state == "unconfigured":
            await self.move("listening", "configure")

    def _hear(self, how: Literal["binary", "json"], pcm: bytes) -> None:
        self._server.microphone += pcm
        self._server.microphone_frames.append((how, len(pcm)))

    async def _begin_turn(self, prompt: str) -> None:
        if self._turn is not None:
            await self.interrupt("prompt")
        self._turn = _Turn(self, self._server.script, next(self._turn_ids))
        await self.send("assistant.started", turn_id=self._turn.turn_id, text=prompt)
        await self.move("thinking", "utterance")
        self._nursery.start_soon(self._run_turn, self._turn)

    async def _run_turn(self, turn: "_Turn") -> None:
        with turn.scope:
            await turn.run()
            self._turn = None
            await turn.tell_metrics()
            await self.send("assistant.done", turn_id=turn.turn_id, outcome="completed")
            await self.move("listening", "playback_over")

    async def speak_on(self) -> None:
        assert self._turn is not None, "no turn"
        self._turn.speak_on()

    async def interrupt(self, reason: str) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        turn.scope.cancel()
        await turn.end_audio()
        await self.send(
            "assistant.interrupted",
            turn_id=turn.turn_id,
            reason=reason,
            heard_text=turn.heard_text,
            heard_ms=turn.played_ms,
        )
        await trio.sleep(self._server.script.linger_s)
        await turn.tell_metrics()
        await self.send("assistant.done", turn_id=turn.turn_id, outcome="interrupted")
        await self.move("listening", "interrupt" if reason == "client" else "barge_in")
        for _ in range(self._server.script.late_chunks):
            await turn.send_next_chunk()


class _Turn:
    """One reply: text, then audio in the client's format, then the wait until it has been heard."""

    def __init__(self, session: _Session, script: Script, turn_id: int) -> None:
        self.turn_id = turn_id
        self.scope = trio.CancelScope()
        self.played_ms = 0.0
        self._session = session
        self._script = attrs.evolve(script)  # as it is now; a test may change it for the next turn
        self._format = AudioFormat.parse(session.config["tts"]["output_format"])
        self._chunks = list(_cut(_convert(script.speech, self._format), script.chunk_bytes))
        self._next = 0
        self._audio_is_open = False
        self._may_send = trio.Semaphore(1)
        self._heard_out = trio.Event()
        self._started_s = trio.current_time()
        self._metrics: Json = {}

    @property
    def heard_text(self) -> str:
        """The words whose time has come."""
        words = self._script.reply.split()
        part = self.played_ms / self._duration_ms
        return " ".join(words[: round(part * len(words))])

    @property
    def _duration_ms(self) -> float:
        return len(self._script.speech) * 1000 / (2 * SPEECH_HZ)

    def progress(self, turn_id: int, played_ms: float) -> None:
        """The client says how far it is."""
        if turn_id == self.turn_id:
            self.played_ms = played_ms
            if played_ms >= self._duration_ms - 1:
                self._heard_out.set()

    def speak_on(self) -> None:
        self._may_send.release()

    async def run(self) -> None:
        await trio.sleep(0.05)
        self._mark("first_text_ms")
        for word in self._script.reply.split(" "):
            await self._tell("assistant.text.delta", text=f"{word} ")
        await self._tell("assistant.message", text=self._script.reply, metadata={})
        if self._script.file is not None:
            await self._send_file(self._script.file)
            return
        await self._align()
        self._mark("first_speech_ms")
        await self._start_audio()
        self._mark("first_audio_sent_ms")
        while self._next < len(self._chunks):
            if self._script.waits:
                await self._may_send.acquire()
            size_bytes = await self.send_next_chunk()
            await trio.sleep(self._format.duration_ms(size_bytes) / 1000 * self._script.pace)
        await self.end_audio()
        await self._heard_out.wait()
        self._mark("playback_done_ms")

    async def send_next_chunk(self) -> int:
        """Send one chunk; the bytes it had."""
        data = self._chunks[self._next]
        self._next += 1
        await self._session.send_audio(self.turn_id, self._next, data, str(self._format))
        return len(data)

    async def end_audio(self) -> None:
        """Say that no more audio follows, if any was announced."""
        if self._audio_is_open:
            self._audio_is_open = False
            await self._tell("assistant.audio.end", **self._audio_facts(), chunk_count=self._next)

    async def tell_metrics(self) -> None:
        await self._tell("turn.metrics", **self._metrics)

    async def _start_audio(self) -> None:
        self._audio_is_open = True
        await self._tell("assistant.audio.start", **self._audio_facts())
        await self._session.move("speaking", "first_audio")

    async def _send_file(self, file: bytes) -> None:
        await self._session.move("speaking", "first_audio")
        await self._tell("assistant.audio", audio=b64encode(file).decode(), **self._audio_facts())
        await self._heard_out.wait()

    async def _align(self) -> None:
        """Every character takes the same time."""
        chars = list(self._script.reply)
        each_ms = self._duration_ms / len(chars)
        starts_ms = [index * each_ms for index in range(len(chars))]
        ends_ms = [start_ms + each_ms for start_ms in starts_ms]
        await self._tell("assistant.audio.alignment", chars=chars, starts_ms=starts_ms, ends_ms=ends_ms)

    async def _tell(self, type_: str, **fields: Any) -> None:
        await self._session.send(type_, turn_id=self.turn_id, **fields)

    def _audio_facts(self) -> Json:
        return {"content_type": self._format.content_type, "output_format": str(self._format)}

    def _mark(self, stage: str) -> None:
        self._metrics[stage] = (trio.current_time() - self._started_s) * 1000


def _convert(speech: bytes, output_format: AudioFormat) -> bytes:
    """The speech in a streamable format; what is not is left to `Script.file`."""
    pcm = Resampler(SPEECH_HZ, output_format.sample_rate_hz).feed(speech, last=True)
    return ulaw_encode(pcm) if output_format.codec == "ulaw" else pcm


def _cut(audio: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(audio):
            return
        yield audio[at : at + size]
        at += size
