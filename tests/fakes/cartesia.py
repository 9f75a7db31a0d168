"""A fake of Cartesia's text to speech: its WebSocket, ``/tts/bytes`` and ``/voices`` on one socket.

    fake = FakeCartesia(chunk_bytes=1001)
    async with serve_cartesia(fake) as base_url: ...
    fake.troubles.append(Trouble.HANG_MIDWAY)  # for the next context or request

Rules and texts: docs.cartesia.ai and the Python client, as of 2026-11. What is said depends on the text
alone (`speech_of`), so a test can say what it must be; every character sounds for `CHAR_MS`.
"""

import base64
import json
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.fakes.elevenlabs_tts import CHAR_MS, speech_of
from tests.fakes.http_server import HttpServer, Pause, Request, Step, chunked_head, json_response
from tests.fakes.sockets import Handshake, accept, reject, serve
from tests.fakes.troubles import (
    DRIP_S,
    CloseWith,
    Misfortune,
    Refuse,
    Say,
    Trouble,
    before_http,
    chunks_of,
    instead_of_handshake,
    instead_of_http,
    misbehave_midway,
    queue,
    take,
)
from voice_fsm.audio import AudioFormat
from voice_fsm.upstream.websocket import background_nursery

_RATES_HZ: Final = frozenset({8000, 16000, 22050, 24000, 44100, 48000})
_CODECS: Final = {"pcm_s16le": "pcm", "pcm_mulaw": "ulaw"}
_STEADY: Final = ("model_id", "voice", "output_format", "language", "max_buffer_delay_ms", "add_timestamps")
"""What may not change within a context."""


@attrs.define
class SocketLog:
    """What one socket was asked for."""

    handshake: Handshake
    messages: list[dict[str, Any]] = attrs.field(factory=list)
    close_code: int | None = None

    @property
    def contexts(self) -> list[str]:
        """Their ids, in order."""
        return list(dict.fromkeys(message["context_id"] for message in self.messages))

    @property
    def cancelled(self) -> list[str]:
        """The ids of contexts that were cancelled."""
        return [message["context_id"] for message in self.messages if message.get("cancel")]


@attrs.define(kw_only=True)
class FakeCartesia:
    """The service. Attributes may be changed at any time; calls under way go on as they began."""

    api_key: str = "sk_car_key"
    models: frozenset[str] = frozenset({"sonic-2", "sonic-3", "sonic-3.5"})
    sunset_models: frozenset[str] = frozenset({"sonic-english"})
    voices: tuple[str, ...] = ("voice-1", "voice-2", "voice-3")
    page_size: int = 2
    chunk_bytes: int = 4801
    """Odd by default: samples are cut in two."""
    timestamps: bool = True
    """Whether it knows when words sound, if it is asked."""
    timestamps_first: bool = False
    """Whether it tells before the audio, or after its first chunk."""
    first_audio_s: float = 0.0
    between_chunks_s: float = 0.0
    cancel_stops: bool = False
    """Whether a context that is being spoken stops when it is cancelled; by the docs it does not."""
    max_contexts: int = 10
    expires_s: float = 1.0
    """How long after its last audio a context is forgotten."""
    idle_s: float = 300.0
    troubles: deque[Misfortune | None] = attrs.field(default=(), converter=queue)
    """One for each context or request to come, from the left; ``None`` is a good one."""
    sockets: list[SocketLog] = attrs.field(factory=list)
    spoken: list[str] = attrs.field(factory=list)
    """All texts, over sockets and HTTP, when their audio begins."""
    live_sockets: int = 0
    http: HttpServer = attrs.field(init=False)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.http = HttpServer(0, self._answer)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection of `tests.fakes.sockets.serve`."""
        assert isinstance(stream, trio.SocketStream)
        await trio.lowlevel.wait_readable(stream.socket)
        first_line = (await stream.socket.recv(4096, socket.MSG_PEEK)).partition(b"\r\n")[0]
        if b"/tts/websocket" not in first_line:
            await self.http.serve(stream)
            return
        self.live_sockets += 1
        try:
            await self._serve_socket(stream)
        finally:
            self.live_sockets -= 1
            self._changed.set()
            self._changed = trio.Event()

    async def gone(self) -> None:
        """Wait until no socket is open, and no more than one HTTP connection, for later."""
        while self.live_sockets:
            await self._changed.wait()
        await self.http.wait_until(lambda server: server.live_connections <= 1)

    def refusal(self, asked: dict[str, Any], *, containers: set[str]) -> dict[str, Any] | None:
        """Find fault with a request for speech, in the words of the service."""
        voice, output = asked.get("voice"), asked.get("output_format") or {}
        if asked.get("model_id") in self.sunset_models:
            return _fault(400, "model_sunsetted", "The requested model has been sunsetted.")
        if asked.get("model_id") not in self.models:
            return _fault(400, "model_not_found", "The model is invalid.")
        if not (isinstance(voice, dict) and voice.get("id") in self.voices):
            return _fault(404, "voice_not_found", "The voice was not found.")
        if output.get("container") not in containers or output.get("sample_rate") not in _RATES_HZ:
            return _fault(400, "invalid_output_format", "The output format is invalid.")
        speed = (asked.get("generation_config") or {}).get("speed", 1.0)
        return None if 0.6 <= speed <= 1.5 else _fault(400, "invalid_speed", "The speed is invalid.")

    # --- HTTP -----------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Iterator[Step]:
        trouble = self.troubles.popleft() if self.troubles else None
        yield Pause(self.first_audio_s)
        yield from before_http(trouble)
        answer = instead_of_http(trouble) or self._unauthorized(request.headers)
        if answer is not None:
            yield answer
        elif request.method == "GET":
            yield self._listing(request)
        else:
            yield from self._speech(request, trouble)

    def _unauthorized(self, headers: dict[str, str]) -> bytes | None:
        if "cartesia-version" not in headers:
            return _refused(_fault(400, "missing_version", "The Cartesia-Version header is missing."))
        keys = {headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer ")}
        return None if self.api_key in keys else _refused(_fault(401, "unauthorized", "Invalid API key."))

    def _listing(self, request: Request) -> bytes:
        after = parse_qs(urlsplit(request.path).query).get("starting_after")
        begin = self.voices.index(after[0]) + 1 if after else 0
        data = [_voice(voice) for voice in self.voices[begin : begin + self.page_size]]
        if request.headers["cartesia-version"].startswith("2024"):
            return json_response([_voice(voice) for voice in self.voices])
        return json_response({"data": data, "has_more": begin + self.page_size < len(self.voices)})

    def _speech(self, request: Request, trouble: Misfortune | None) -> Iterator[Step]:
        asked = request.json()
        refusal = self.refusal(asked, containers={"raw", "wav", "mp3"})
        if refusal is not None:
            yield _refused(refusal)
            return
        text = asked["transcript"]
        self.spoken.append(text)
        yield chunked_head("audio/mpeg", x_request_id="req-1")
        yield from chunks_of(
            list(self.cut(text, _format(asked["output_format"]))), trouble, self.between_chunks_s
        )

    def cut(self, text: str, audio_format: AudioFormat) -> Iterator[bytes]:
        """Speak a text in chunks."""
        audio = speech_of(text, audio_format)
        for at in range(0, len(audio), self.chunk_bytes):
            yield audio[at : at + self.chunk_bytes]

    # --- WebSocket ------------------------------------------------------------------------------------

    async def _serve_socket(self, stream: trio.SocketStream) -> None:
        if await instead_of_handshake(stream, take(self.troubles, in_handshake=True)):
            return
        async with accept_if(stream, self._unauthorized) as (handshake, connection):
            log = SocketLog(handshake)
            self.sockets.append(log)
            try:
                await _Socket(self, log, connection, stream).run()
            except ConnectionClosed as closed:
                log.close_code = closed.reason.code if closed.reason else None


@asynccontextmanager
async def accept_if(
    stream: trio.SocketStream, refusal: Any
) -> AsyncIterator[tuple[Handshake, WebSocketConnection]]:
    """Accept a handshake, or leave after the answer that ``refusal`` makes of its headers."""
    head = (await stream.socket.recv(65536, socket.MSG_PEEK)).decode("latin-1")
    fields = (line.partition(":") for line in head.split("\r\n")[1:])
    answer = refusal({name.lower(): value.strip() for name, _, value in fields})
    if answer is not None:
        status = int(answer.split(b" ", 2)[1])
        await reject(stream, status, body=answer.partition(b"\r\n\r\n")[2])
        raise trio.ClosedResourceError
    async with accept(stream) as accepted:
        yield accepted


class _Socket:
    """One open socket, and its contexts."""

    def __init__(
        self, fake: FakeCartesia, log: SocketLog, connection: WebSocketConnection, stream: trio.SocketStream
    ) -> None:
        self.fake = fake
        self.connection = connection
        self.stream = stream
        self._log = log
        self._contexts: dict[str, _Context] = {}

    async def run(self) -> None:
        async with background_nursery() as nursery:
            while True:
                with trio.move_on_after(self.fake.idle_s) as patience:
                    message = await self.connection.get_message()
                if patience.cancelled_caught:
                    await self.connection.aclose(1000, "idle")
                    return
                await self._take(json.loads(message), nursery)

    async def _take(self, message: dict[str, Any], nursery: trio.Nursery) -> None:
        self._log.messages.append(message)
        context_id = message.get("context_id")
        context = self._contexts.get(context_id) if isinstance(context_id, str) else None
        if message.get("cancel"):
            if context is not None:
                context.cancel()
            return
        if context is None:
            refusal = self._refusal(message)
            if refusal is not None:
                await self.send({"type": "error", **refusal, "context_id": context_id})
                return
            context = _Context(self, message, take(self.fake.troubles, in_handshake=False))
            self._contexts[message["context_id"]] = context
            nursery.start_soon(self._run_context, context)
        elif any(message.get(key) != context.asked.get(key) for key in _STEADY):
            await self.send(
                {
                    "type": "error",
                    "done": True,
                    **_fault(400, None, "Fields changed."),
                    "context_id": context_id,
                }
            )
            return
        context.add(message)

    def _refusal(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if len(self._contexts) >= self.fake.max_contexts:
            return _fault(429, "concurrency_limited", "You have exceeded your plan's concurrency limit.")
        if not message.get("transcript"):
            return _fault(400, "invalid_transcript", "The transcript is empty.")
        return self.fake.refusal(message, containers={"raw"})

    async def _run_context(self, context: "_Context") -> None:
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await context.run()
        del self._contexts[context.asked["context_id"]]

    async def send(self, message: dict[str, Any]) -> None:
        await self.connection.send_message(json.dumps(message))


class _Context:
    """One utterance."""

    def __init__(self, socket: _Socket, asked: dict[str, Any], trouble: Misfortune | None) -> None:
        self.asked = asked
        self._socket = socket
        self._fake = socket.fake
        self._trouble = trouble
        self._format = _format(asked["output_format"])
        self._to_speak, self._texts = trio.open_memory_channel[str](math.inf)
        self._said_s = 0.0
        self._scope = trio.CancelScope()

    def add(self, message: dict[str, Any]) -> None:
        if message["transcript"]:
            self._to_speak.send_nowait(message["transcript"])
        if not message.get("continue"):
            self._to_speak.close()

    def cancel(self) -> None:
        """Take no more text; what is being spoken goes on unless the fake is told otherwise."""
        self._to_speak.close()
        if self._fake.cancel_stops:
            self._scope.cancel()

    async def run(self) -> None:
        if await self._misbehave_at_once():
            return
        with self._scope:
            flush_id = 0
            await trio.sleep(self._fake.first_audio_s)
            while (text := await self._next_text()) is not None:
                flush_id += 1
                await self._say(text, flush_id)
                await self._send("flush_done", flush_done=True, flush_id=flush_id)
        await self._send("done", done=True)

    async def _next_text(self) -> str | None:
        """Wait for text; without any for a while after the last audio, the context is forgotten."""
        with trio.move_on_after(self._fake.expires_s if self._said_s else math.inf):
            try:
                return await self._texts.receive()
            except trio.EndOfChannel:
                return None
        return None

    async def _say(self, text: str, flush_id: int) -> None:
        self._fake.spoken.append(text)
        chunks = [] if self._trouble is Trouble.NO_AUDIO else list(self._fake.cut(text, self._format))
        if self._trouble is Trouble.DRIP:
            chunks = [chunks[0][at : at + 2] for at in range(0, len(chunks[0]), 2)]
        if self._fake.timestamps_first:
            await self._tell_times(text)
        for number, data in enumerate(chunks):
            await self._send("chunk", data=base64.b64encode(data).decode(), step_time=1.5, flush_id=flush_id)
            if number == 0:
                if not self._fake.timestamps_first:
                    await self._tell_times(text)
                await misbehave_midway(self._socket.connection, self._socket.stream, self._trouble)
            await trio.sleep(DRIP_S if self._trouble is Trouble.DRIP else self._fake.between_chunks_s)
        self._said_s += len(text) * CHAR_MS / 1000

    async def _tell_times(self, text: str) -> None:
        if not (self._fake.timestamps and self.asked.get("add_timestamps")):
            return
        words, starts, ends, at = text.split(), [], [], 0
        for word in words:
            at = text.index(word, at)
            starts.append(self._said_s + at * CHAR_MS / 1000)
            at += len(word)
            ends.append(self._said_s + at * CHAR_MS / 1000)
        await self._send("timestamps", word_timestamps={"words": words, "start": starts, "end": ends})

    async def _misbehave_at_once(self) -> bool:
        match self._trouble:
            case Refuse(status):
                await self._send("error", **_fault(status, None, "Something failed."))
            case Say(text):
                await self._socket.connection.send_message(text)
            case CloseWith(code, reason):
                await self._socket.connection.aclose(code, reason)
            case Trouble.HANG:
                await trio.sleep_forever()
            case _:
                return False
        return True

    async def _send(self, kind: str, *, done: bool = False, **fields: Any) -> None:
        common = {"type": kind, "context_id": self.asked["context_id"], "status_code": 206, "done": done}
        await self._socket.send({**common, **fields})


def _format(asked: dict[str, Any]) -> AudioFormat:
    if asked["container"] == "mp3":
        return AudioFormat("mp3", asked["sample_rate"], asked["bit_rate"] // 1000)
    return AudioFormat(_CODECS[asked["encoding"]], asked["sample_rate"])  # type: ignore[arg-type]  # by the table


def _voice(voice_id: str) -> dict[str, Any]:
    """Describe a voice as the client's model of it demands."""
    return {
        "id": voice_id,
        "name": voice_id.title(),
        "language": "en",
        "description": "A voice.",
        "tagline": "",
        "is_owner": False,
        "access": "public",
        "visibility": "all",
        "created_at": "2026-01-01T00:00:00Z",
        "locales": [{"locale": "en-US", "is_native": True}],
    }


def _fault(status: int, code: str | None, message: str) -> dict[str, Any]:
    return {
        "status_code": status,
        "error_code": code,
        "title": message.partition(".")[0],
        "message": message,
        "request_id": "req-1",
        "done": True,
    }


def _refused(fault: dict[str, Any]) -> bytes:
    body = {key: fault[key] for key in ("error_code", "title", "message", "request_id")}
    return json_response(body, fault["status_code"], x_request_id="req-1")


@asynccontextmanager
async def serve_cartesia(fake: FakeCartesia) -> AsyncIterator[str]:
    """Serve; gives the base address, such as ``http://127.0.0.1:41234``."""
    async with serve(fake.handle) as address:
        yield address.replace("ws", "http", 1)
