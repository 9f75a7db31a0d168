"""A fake of Deepgram's text to speech: ``/v1/speak`` by WebSocket and HTTP, and ``/v1/models``.

    fake = FakeDeepgramTts(chunk_bytes=1001)
    async with serve_deepgram_tts(fake) as base_url: ...
    fake.troubles.append(Trouble.HANG_MIDWAY)  # for the next socket or request

Rules and texts: Deepgram's documentation and Python client, as of 2026-11. What is said depends on the text
alone (`speech_of`), so a test can say what it must be.
"""

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

from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.http_server import HttpServer, Pause, Request, Step, chunked_head, json_response
from tests.fakes.sockets import Handshake, accept, reject, serve
from tests.fakes.troubles import (
    DRIP_S,
    CloseWith,
    Misfortune,
    Say,
    Trouble,
    before_http,
    chunks_of,
    instead_of_handshake,
    instead_of_http,
    misbehave_midway,
    queue,
)
from voice_fsm.audio import AudioFormat
from voice_fsm.upstream.websocket import background_nursery

_RATES_HZ: Final = {
    "linear16": {8000, 16000, 24000, 32000, 48000},
    "mulaw": {8000, 16000},
    "alaw": {8000, 16000},
}
_CODECS: Final = {"linear16": "pcm", "mulaw": "ulaw"}
_WINDOW_S: Final = 60.0
_MAX_CHARS: Final = 2400
_MAX_FLUSHES: Final = 20
_MAX_MESSAGE_CHARS: Final = 2000


@attrs.define
class SocketLog:
    """What one socket was asked for, and how it ended."""

    handshake: Handshake
    messages: list[dict[str, Any]] = attrs.field(factory=list)
    close_code: int | None = None


@attrs.define(kw_only=True)
class FakeDeepgramTts:
    """The service. Attributes may be changed at any time; calls under way go on as they began."""

    api_key: str = "dg-key"
    models: tuple[str, ...] = ("aura-asteria-en", "aura-2-asteria-en", "aura-2-thalia-en")
    chunk_bytes: int = 4801
    """Odd by default: samples are cut in two."""
    first_audio_s: float = 0.0
    between_chunks_s: float = 0.0
    idle_s: float = math.inf
    warning_spelling: str = "warn_"
    """How a warning's fields begin; the description of the API leaves it out."""
    troubles: deque[Misfortune | None] = attrs.field(default=(), converter=queue)
    """One for each socket or request to come, from the left; ``None`` is a good one."""
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
        head = (await stream.socket.recv(65536, socket.MSG_PEEK)).decode("latin-1")
        if not head.startswith("GET /v1/speak"):
            await self.http.serve(stream)
            return
        self.live_sockets += 1
        try:
            await self._serve_socket(stream, head)
        finally:
            self.live_sockets -= 1
            self._changed.set()
            self._changed = trio.Event()

    async def gone(self) -> None:
        """Wait until no socket is open, and no more than one HTTP connection, for later."""
        while self.live_sockets:
            await self._changed.wait()
        await self.http.wait_until(lambda server: server.live_connections <= 1)

    def refusal(self, query: dict[str, list[str]], headers: dict[str, str]) -> tuple[int, bytes] | None:
        """Find fault with what every call has, in the words of the service."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("token", "bearer") or key != self.api_key:
            return _fault(401, "INVALID_AUTH", "Invalid credentials.")
        if query.get("model", ["aura-asteria-en"])[0] not in self.models:
            return _fault(400, "INVALID_QUERY_PARAMETER", "No such model/version combination found.")
        if not 0.7 <= float(query.get("speed", ["1"])[0]) <= 1.5:
            return _fault(400, "INVALID_QUERY_PARAMETER", "speed is out of range.")
        return None

    def cut(self, text: str, audio_format: AudioFormat) -> list[bytes]:
        """Speak a text in chunks."""
        audio = speech_of(text, audio_format)
        return [audio[at : at + self.chunk_bytes] for at in range(0, len(audio), self.chunk_bytes)]

    # --- HTTP -----------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Iterator[Step]:
        trouble = self.troubles.popleft() if self.troubles else None
        yield Pause(self.first_audio_s)
        yield from before_http(trouble)
        query = parse_qs(urlsplit(request.path).query)
        refusal = self.refusal(query, request.headers)
        answer = instead_of_http(trouble)
        if answer is not None:
            yield answer
        elif refusal is not None:
            yield json_response(json.loads(refusal[1]), refusal[0], dg_request_id="req-1")
        elif request.method == "GET":
            models = (*self.models, self.models[0], "flux-haley-en")
            yield json_response({"stt": [], "tts": [_model(name) for name in models]})
        else:
            text = request.json()["text"]
            self.spoken.append(text)
            yield chunked_head("audio/mpeg", dg_request_id="req-1", dg_model_name="aura")
            yield from chunks_of(self.cut(text, _file_format(query)), trouble, self.between_chunks_s)

    # --- WebSocket ------------------------------------------------------------------------------------

    async def _serve_socket(self, stream: trio.SocketStream, head: str) -> None:
        trouble = self.troubles.popleft() if self.troubles else None
        if await instead_of_handshake(stream, trouble):
            return
        first, *lines = head.split("\r\n")
        query = parse_qs(urlsplit(first.split(" ")[1]).query)
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        audio_format = _raw_format(query)
        refusal = self.refusal(query, headers)
        if refusal is None and audio_format is None:
            refusal = _fault(400, "INVALID_QUERY_PARAMETER", "Unsupported encoding or sample rate.")
        if refusal is not None or audio_format is None:
            status, body = refusal or (500, b"")
            await reject(stream, status, headers={"dg-error": "refused"}, body=body)
            return
        async with accept(stream) as (handshake, connection):
            log = SocketLog(handshake)
            self.sockets.append(log)
            try:
                await _Socket(self, log, connection, stream, audio_format, trouble).run()
            except ConnectionClosed as closed:
                log.close_code = closed.reason.code if closed.reason else None


class _Socket:
    """One open socket."""

    def __init__(
        self,
        fake: FakeDeepgramTts,
        log: SocketLog,
        connection: WebSocketConnection,
        stream: trio.SocketStream,
        audio_format: AudioFormat,
        trouble: Misfortune | None,
    ) -> None:
        self._fake = fake
        self._log = log
        self._connection = connection
        self._stream = stream
        self._format = audio_format
        self._trouble = trouble
        self._buffer = ""
        self._sequence_id = 0
        self._chars: deque[tuple[float, int]] = deque()
        self._flushes: deque[tuple[float, int]] = deque()
        self._to_speak, self._texts = trio.open_memory_channel[str | None](math.inf)
        self._speaking = trio.CancelScope()

    async def run(self) -> None:
        await self._tell("Metadata", request_id="req-1", model_name="aura", model_version="1", model_uuid="u")
        async with background_nursery() as nursery:
            nursery.start_soon(self._speak)
            while True:
                with trio.move_on_after(self._fake.idle_s) as patience:
                    message = await self._connection.get_message()
                if patience.cancelled_caught:
                    await self._connection.aclose(1000)
                    return
                await self._take(message)

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            await self._connection.aclose(1003, "MESSAGE-0000")
            return
        event = json.loads(message)
        self._log.messages.append(event)
        match event:
            case {"type": "Speak", "text": str(text)}:
                await self._add(text)
            case {"type": "Flush"}:
                await self._flush()
            case {"type": "Clear"}:
                self._buffer = ""
                while self._texts.statistics().current_buffer_used:
                    self._texts.receive_nowait()
                self._speaking.cancel()
                await self._tell("Cleared", sequence_id=self._sequence_id)
            case {"type": "Close"}:
                self._to_speak.send_nowait(None)
            case _:
                await self._connection.aclose(1008, "DATA-0000")

    async def _add(self, text: str) -> None:
        if len(text) > _MAX_MESSAGE_CHARS:
            await self._connection.aclose(1009, "BIG-0001")
        elif _spend(self._chars, len(text)) > _MAX_CHARS:
            await self._connection.aclose(1008, "DATA-0001")
        else:
            self._buffer += text

    async def _flush(self) -> None:
        if _spend(self._flushes, 1) > _MAX_FLUSHES:
            name = self._fake.warning_spelling
            code = {"warn_": ("warn_code", "warn_msg"), "": ("code", "description")}[name]
            await self._tell("Warning", **{code[0]: "EXCESSIVE_FLUSH", code[1]: "Rate limit exceeded."})
            return
        self._to_speak.send_nowait(self._buffer)
        self._buffer = ""

    async def _speak(self) -> None:
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            async for text in self._texts:
                if text is None:
                    await self._connection.aclose(1000)
                    return
                with trio.CancelScope() as self._speaking:
                    await self._say(text)

    async def _say(self, text: str) -> None:
        await trio.sleep(self._fake.first_audio_s)
        match self._trouble:
            case Say(message):
                await self._connection.send_message(message)
                return
            case CloseWith(code, reason):
                await self._connection.aclose(code, reason)
            case Trouble.HANG:
                await trio.sleep_forever()
        self._fake.spoken.append(text)
        chunks = [] if self._trouble is Trouble.NO_AUDIO else self._fake.cut(text, self._format)
        if self._trouble is Trouble.DRIP:
            chunks = [chunks[0][at : at + 2] for at in range(0, len(chunks[0]), 2)]
        for number, data in enumerate(chunks):
            await self._connection.send_message(data)
            if number == 0:
                await misbehave_midway(self._connection, self._stream, self._trouble)
            await trio.sleep(DRIP_S if self._trouble is Trouble.DRIP else self._fake.between_chunks_s)
        await self._tell("Flushed", sequence_id=self._sequence_id)
        self._sequence_id += 1

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self._connection.send_message(json.dumps({"type": kind, **fields}))


def _spend(spent: deque[tuple[float, int]], amount: int) -> int:
    """Note an amount; gives how much it was within a minute."""
    now_s = trio.current_time()
    spent.append((now_s, amount))
    while spent[0][0] < now_s - _WINDOW_S:
        spent.popleft()
    return sum(amount for _, amount in spent)


def _raw_format(query: dict[str, list[str]]) -> AudioFormat | None:
    encoding = query.get("encoding", ["linear16"])[0]
    rate_hz = int(query.get("sample_rate", ["24000"])[0])
    if rate_hz not in _RATES_HZ.get(encoding, ()):
        return None
    return AudioFormat(_CODECS[encoding], rate_hz)  # type: ignore[arg-type]  # by the table


def _file_format(query: dict[str, list[str]]) -> AudioFormat:
    encoding = query.get("encoding", ["mp3"])[0]
    if encoding in _RATES_HZ:
        return _raw_format(query) or AudioFormat("pcm", 24000)
    kbps = int(query.get("bit_rate", ["48000"])[0]) // 1000
    return AudioFormat("opus", 48000, kbps) if encoding == "opus" else AudioFormat("mp3", 22050, kbps)


def _model(name: str) -> dict[str, Any]:
    return {
        "name": name.split("-")[-2],
        "canonical_name": name,
        "architecture": "aura",
        "languages": ["en", "en-US"],
        "version": "2025-04-07.0",
        "uuid": "e4979ab0-8475-4901-9d66-0a562a4949bb",
        "metadata": {"accent": "American", "tags": ["feminine"]},
    }


def _fault(status: int, code: str, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"err_code": code, "err_msg": message, "request_id": "req-1"}).encode()


@asynccontextmanager
async def serve_deepgram_tts(fake: FakeDeepgramTts) -> AsyncIterator[str]:
    """Serve; gives the base address, such as ``http://127.0.0.1:41234``."""
    async with serve(fake.handle) as address:
        yield address.replace("ws", "http", 1)
