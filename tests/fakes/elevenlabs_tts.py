"""A fake of ElevenLabs' text-to-speech: its HTTP endpoints and both of its WebSockets on one socket.

    fake = FakeElevenLabsTts(chunk_bytes=1001)
    async with serve(fake.handle) as address:
        base_url = address.replace("ws", "http", 1)
    fake.troubles.append(Trouble.HANG_MIDWAY)  # for the next request or context

Rules and texts: ElevenLabs' API reference and its clients, as of 2026-11. Every character sounds for
`CHAR_MS`; what the sound is depends on the text alone, so a test can say what it must be.
"""

import base64
import json
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import numpy as np
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.fakes.http_server import (
    LAST_CHUNK,
    Fault,
    HttpServer,
    Pause,
    Request,
    Step,
    chunk,
    chunked_head,
    json_response,
    response,
)
from tests.fakes.sockets import Handshake, accept, read_head, reject, reset, serve
from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_encode
from voice_fsm.upstream.websocket import background_nursery

CHAR_MS: Final = 60.0
"""How long one character sounds."""
VOICE_SETTINGS_RULE: Final = (
    "voice_settings field must be provided in the first message and then either be not provided or not "
    "change."
)

_PREFIX: Final = "/v1/text-to-speech/"
_SOCKET_FORMATS: Final = frozenset(
    {
        *(f"pcm_{rate}" for rate in (8000, 16000, 22050, 24000, 44100)),
        *("ulaw_8000", "alaw_8000", "mp3_22050_32"),
        *(f"mp3_44100_{rate}" for rate in (32, 64, 96, 128, 192)),
        *(f"opus_48000_{rate}" for rate in (32, 64, 96, 128, 192)),
    }
)
_HTTP_FORMATS: Final = _SOCKET_FORMATS | {"mp3_24000_48", "pcm_32000", "pcm_48000"}
_SCHEDULE: Final = (120, 160, 250, 290)
_TRIGGER_CHARS: Final = 50
_MAX_CONTEXTS: Final = 5


class Trouble(Enum):
    """What goes wrong with one request or context. "Midway" is after the first chunk of its audio."""

    HANG = auto()
    """No answer: over HTTP not even a head, on a socket no frame."""
    HANG_IN_HANDSHAKE = auto()
    """The upgrade of a socket is never answered."""
    HANG_MIDWAY = auto()
    RESET = auto()
    RESET_MIDWAY = auto()
    CUT_MIDWAY = auto()
    """A chunk or frame that announces more bytes than follow before the connection ends."""
    CLOSE_MIDWAY = auto()
    """The connection ends in good order, too early."""
    GARBAGE = auto()
    """The answer is not of the protocol."""
    BAD_JSON_MIDWAY = auto()
    BAD_BASE64 = auto()
    """Over HTTP."""
    NO_AUDIO = auto()
    """All is well, but nothing is said."""
    DRIP = auto()
    """The answer comes in crumbs, each in time."""
    DEAF = auto()
    """A socket's peer takes no notice of what comes after the first message, not even of pings."""


_OF_HANDSHAKE: Final = (Trouble.HANG_IN_HANDSHAKE, Trouble.RESET, Trouble.GARBAGE, Trouble.DEAF)


@attrs.frozen
class Refuse:
    """An HTTP status; on a socket it answers the upgrade."""

    status: int
    detail: Any = None
    """The body's ``detail``."""
    body: bytes | None = None
    """The body itself, instead."""
    headers: dict[str, str] = attrs.field(factory=dict)

    def body_bytes(self) -> bytes:
        return json.dumps({"detail": self.detail}).encode() if self.body is None else self.body


@attrs.frozen
class Report:
    """An error frame on a socket in place of the audio, then a close; over HTTP it is nothing."""

    error: str | None
    message: str
    code: int = 1008


@attrs.frozen
class CloseWith:
    """A close of the socket in place of the audio."""

    code: int
    reason: str = ""


@attrs.frozen
class Say:
    """A frame of a socket in place of the first audio."""

    frame: str


Misfortune = Trouble | Refuse | Report | CloseWith | Say

_UNREADABLE: Final = Report(
    "invalid_input_message",
    "Could not parse input message, make sure it is a json and follows the schema outlined in protocol.",
)
_TOO_MANY_CONTEXTS: Final = Report(
    "max_active_conversations",
    "Maximum simultaneous contexts per WebSocket connection exceeded (5). Please close an existing context "
    "before opening a new one.",
)


def _deque(troubles: Iterable[Misfortune | None]) -> deque[Misfortune | None]:
    return deque(troubles)


@attrs.define
class StreamLog:
    """What one WebSocket asked for and sent."""

    handshake: Handshake
    messages: list[dict[str, Any]] = attrs.field(factory=list)
    close_code: int | None = None
    """The code of the end; 1006 is a connection that just ended."""
    spoken: list[str] = attrs.field(factory=list)
    """The texts that were generated, each at once."""

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.messages if "text" in message]

    @property
    def contexts(self) -> list[str]:
        """The ids that were named, in order."""
        return list(dict.fromkeys(message["context_id"] for message in self.messages))

    @property
    def closed(self) -> list[str]:
        """The ids of contexts that were closed."""
        return [message["context_id"] for message in self.messages if message.get("close_context")]


@attrs.define(kw_only=True)
class FakeElevenLabsTts:
    """The service. Attributes may be changed at any time; requests under way go on as they began."""

    api_key: str = "xi-key"
    voices: frozenset[str] = frozenset({"voice-1", "voice-2"})
    chunk_bytes: int = 4801
    """Odd by default: samples are cut in two."""
    aligned: bool = True
    """Whether frames have alignments; over HTTP only ``with-timestamps`` ever does."""
    alignment_first: bool = False
    """Whether a socket's alignments come in frames of their own, each before its audio."""
    old_spelling: bool = False
    """Keys of the sockets' frames as they were in 2025."""
    first_audio_s: float = 0.0
    between_chunks_s: float = 0.0
    inactivity_s: float = math.inf
    """How long a socket or context may be silent at most, whatever it asked for."""
    troubles: deque[Misfortune | None] = attrs.field(default=(), converter=_deque)
    """One for each request or context to come, from the left; ``None`` is a good one."""
    streams: list[StreamLog] = attrs.field(factory=list)
    live_streams: int = 0
    http: HttpServer = attrs.field(init=False)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.http = HttpServer(0, self._answer)

    @property
    def requests(self) -> list[Request]:
        """All HTTP requests."""
        return self.http.requests

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection of `tests.fakes.sockets.serve`."""
        assert isinstance(stream, trio.SocketStream)
        await trio.lowlevel.wait_readable(stream.socket)
        first_line = (await stream.socket.recv(4096, socket.MSG_PEEK)).partition(b"\r\n")[0]
        if b"stream-input" not in first_line:
            await self.http.serve(stream)
            return
        self.live_streams += 1
        try:
            await self._serve_socket(stream, has_contexts=b"/multi-stream-input" in first_line)
        finally:
            self.live_streams -= 1
            self._changed.set()
            self._changed = trio.Event()

    async def streams_gone(self) -> None:
        """Wait until all WebSockets have ended."""
        while self.live_streams:
            await self._changed.wait()

    def _coming(self) -> Misfortune | None:
        return self.troubles[0] if self.troubles else None

    def next_trouble(self) -> Misfortune | None:
        return self.troubles.popleft() if self.troubles else None

    # --- HTTP -----------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Iterator[Step]:
        trouble = self.next_trouble()
        yield Pause(self.first_audio_s)
        match trouble:
            case Refuse(status):
                yield response(status, trouble.body_bytes(), **trouble.headers)
                return
            case Trouble.HANG:
                yield Fault.HANG
            case Trouble.RESET:
                yield Fault.RESET
            case Trouble.GARBAGE:
                yield b"\x16\x03\x01 this is no HTTP\r\n\r\n"
                yield Fault.CLOSE
        if request.method == "GET":
            yield self._listing(request)
            return
        refusal = self._refusal(request)
        yield from [refusal] if refusal is not None else self._speech(request, trouble)

    def _listing(self, request: Request) -> bytes:
        """Answer ``GET /v2/voices``, with two voices a page at most."""
        parts = urlsplit(request.path)
        if request.headers.get("xi-api-key") != self.api_key:
            return _detail(401, {"status": "invalid_api_key", "message": "Invalid API key"})
        if parts.path != "/v2/voices":
            return _detail(404, "Not Found")
        query = parse_qs(parts.query)
        begin = int(query.get("next_page_token", ["0"])[0])
        end = begin + min(2, int(query.get("page_size", ["10"])[0]))
        known = sorted(self.voices)
        voices = [
            {"voice_id": voice, "name": voice.title(), "labels": {"language": "en"}, "category": "premade"}
            for voice in known[begin:end]
        ]
        has_more = end < len(known)
        token = str(end) if has_more else None
        page = {"voices": voices, "has_more": has_more, "total_count": len(known), "next_page_token": token}
        return json_response(page)

    def _refusal(self, request: Request) -> bytes | None:
        parts = urlsplit(request.path)
        body = request.json() if request.body else {}
        output_format = parse_qs(parts.query).get("output_format", ["mp3_44100_128"])[0]
        if request.headers.get("xi-api-key") != self.api_key:
            return _detail(401, {"status": "invalid_api_key", "message": "Invalid API key"})
        if not isinstance(body.get("text"), str):
            return _detail(422, [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}])
        if _voice_of(parts.path) not in self.voices:
            return _detail(404, {"status": "voice_not_found", "message": "A voice was not found."})
        if output_format not in _HTTP_FORMATS:
            return _detail(422, [{"loc": ["query", "output_format"], "msg": "No enum", "type": "enum"}])
        if body.get("model_id") == "eleven_v3":
            return _v3_refusal(body)
        return None

    def _speech(self, request: Request, trouble: Misfortune | None) -> Iterator[Step]:
        parts = urlsplit(request.path)
        audio_format = AudioFormat.parse(parse_qs(parts.query).get("output_format", ["mp3_44100_128"])[0])
        text = request.json()["text"]
        timed = parts.path.endswith("/with-timestamps")
        if "/stream" not in parts.path:
            audio = speech_of(text, audio_format)
            timestamps = {"audio_base64": _encoded(audio), **_http_alignment(text, 0, len(text))}
            yield json_response(timestamps) if timed else response(200, audio, content_type="audio/mpeg")
            return
        yield chunked_head("application/json" if timed else "audio/mpeg", x_trace_id="trace-1")
        lines = _timed_lines if timed else _plain_chunks
        pieces = list(lines(text, audio_format, self.chunk_bytes))
        if not self.aligned and timed:
            pieces = [_without_alignment(piece) for piece in pieces]
        yield from _played(pieces, trouble, self.between_chunks_s)

    # --- WebSocket ------------------------------------------------------------------------------------

    async def _serve_socket(self, stream: trio.SocketStream, *, has_contexts: bool) -> None:
        begun = not has_contexts or isinstance(self._coming(), Refuse) or self._coming() in _OF_HANDSHAKE
        match trouble := self.next_trouble() if begun else None:
            case Refuse(status):
                await reject(stream, status, headers=trouble.headers, body=trouble.body_bytes())
                return
            case Trouble.HANG_IN_HANDSHAKE:
                await read_head(stream)
                await stream.receive_some()
                return
            case Trouble.RESET:
                await read_head(stream)
                await reset(stream)
                return
            case Trouble.GARBAGE:
                await read_head(stream)
                await stream.send_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
                return
        heard = _DeafStream(stream) if trouble is Trouble.DEAF else stream
        async with accept(heard) as (handshake, connection):
            log = StreamLog(handshake)
            self.streams.append(log)
            try:
                socket = _Socket(self, log, connection, stream)
                await (_Contexts(socket) if has_contexts else _Stream(socket, trouble)).run()
            except ConnectionClosed as closed:
                log.close_code = closed.reason.code if closed.reason else None


class _DeafStream(trio.abc.Stream):
    """A stream that delivers the handshake and what follows it at once, then nothing."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._deliveries_left = 2

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._deliveries_left:
            await trio.sleep_forever()
        self._deliveries_left -= 1
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Socket:
    """One open socket, of either kind: what was asked for by its address."""

    def __init__(
        self,
        fake: FakeElevenLabsTts,
        log: StreamLog,
        connection: WebSocketConnection,
        stream: trio.SocketStream,
    ) -> None:
        query = {name: values[0] for name, values in log.handshake.query.items()}
        self.fake = fake
        self.log = log
        self.connection = connection
        self.stream = stream
        self._model_id = query.get("model_id", "")
        self.format_name = query.get("output_format", "mp3_44100_128")
        self.auto_mode = query.get("auto_mode") == "true"
        self.patience_s = min(float(query.get("inactivity_timeout", 20)), 180.0, fake.inactivity_s)

    async def is_refused(self) -> bool:
        refusal = self._refusal()
        if refusal is not None:
            await self.report(refusal)
        return refusal is not None

    def _refusal(self) -> Report | None:
        if self.log.handshake.path.removeprefix(_PREFIX).split("/")[0] not in self.fake.voices:
            return Report("voice_not_found", "A voice with the voice_id was not found.")
        if self._model_id.startswith(("eleven_v3", "eleven_v4")):
            return Report("unsupported_model", f"The model {self._model_id} cannot stream input.")
        if self.format_name not in _SOCKET_FORMATS:
            return Report("invalid_output_format", f"Unknown output format {self.format_name}.")
        return None

    def has_key(self, message: Mapping[str, Any]) -> bool:
        headers = self.log.handshake.headers
        given = headers.get("xi-api-key"), message.get("xi-api-key"), message.get("xi_api_key")
        return self.fake.api_key in given

    async def send(self, frame: Mapping[str, Any]) -> None:
        await self.connection.send_message(json.dumps(frame))

    async def report(self, report: Report, **whose: str) -> None:
        frame = {"message": report.message, "error": report.error, "code": report.code, **whose}
        await self.send({name: value for name, value in frame.items() if value is not None})
        await self.connection.aclose(report.code, report.message.encode()[:123].decode())


class _Utterance:
    """Text that comes bit by bit, and its speech."""

    def __init__(self, socket: _Socket, trouble: Misfortune | None, context_id: str | None = None) -> None:
        self._socket = socket
        self._fake = socket.fake
        self._trouble = trouble
        self._context_id = context_id
        self._schedule = deque(_SCHEDULE)
        self._settings: Any = None
        self._is_begun = False
        self._buffer = ""
        self._to_speak, self._texts = trio.open_memory_channel[str](math.inf)

    def take(self, message: Mapping[str, Any]) -> Report | None:
        first, self._is_begun = not self._is_begun, True
        text = message.get("text") or ""
        if first:
            self._settings = message.get("voice_settings")
            schedule = (message.get("generation_config") or {}).get("chunk_length_schedule")
            self._schedule = deque(schedule or _SCHEDULE)
            if not self._socket.has_key(message):
                return Report("invalid_api_key", "Invalid API key")
        elif message.get("voice_settings") not in (None, self._settings):
            return Report(None, VOICE_SETTINGS_RULE)
        if not first or text.strip():
            self._buffer += text
        if self._is_enough(message):
            self.generate()
        return None

    def _is_enough(self, message: Mapping[str, Any]) -> bool:
        if self._socket.auto_mode or message.get("flush"):
            return True
        if message.get("try_trigger_generation") and len(self._buffer) >= _TRIGGER_CHARS:
            return True
        return len(self._buffer) >= self._schedule[0]

    def generate(self) -> None:
        text, self._buffer = self._buffer, ""
        if text.strip():
            self._socket.log.spoken.append(text)
            self._to_speak.send_nowait(text)
            if len(self._schedule) > 1:
                self._schedule.popleft()

    def end(self) -> None:
        """Take no more text; what was generated is still said."""
        self._to_speak.close()

    async def speak(self) -> None:
        await trio.sleep(self._fake.first_audio_s)
        async for text in self._texts:
            await self._say(text)

    async def tell_end(self) -> None:
        await self._send({"audio": None, "isFinal": True})

    async def _say(self, text: str) -> None:
        if await self._misbehave_at_once():
            return
        audio_format = AudioFormat.parse(self._socket.format_name)
        begin_ms = 0.0
        for number, (audio, first, last) in enumerate(_cuts(text, audio_format, self._fake.chunk_bytes)):
            times_ms = [round(CHAR_MS * char - begin_ms) for char in range(first, last)]
            begin_ms += audio_format.duration_ms(len(audio))
            alignment = self._alignment(text[first:last], times_ms)
            if self._fake.alignment_first:
                await self._send({"audio": None, **alignment})
                alignment = {}
            await self._send({"audio": _encoded(audio), "isFinal": None, **alignment})
            if number == 0:
                await self._misbehave_midway()
            await trio.sleep(3.0 if self._trouble is Trouble.DRIP else self._fake.between_chunks_s)

    def _alignment(self, text: str, starts_ms: list[int]) -> dict[str, Any]:
        if not (self._fake.aligned and text):
            return {"alignment": None, "normalizedAlignment": None}
        durations = "charsDurationsMs" if self._fake.old_spelling else "charDurationsMs"
        value = {"chars": list(text), "charStartTimesMs": starts_ms, durations: [int(CHAR_MS)] * len(text)}
        return {"alignment": value, "normalizedAlignment": value}

    async def _misbehave_at_once(self) -> bool:
        """Do what is due before the first audio; true if the text remains unsaid."""
        match self._trouble:
            case Report():
                await self._socket.report(self._trouble, **self._whose())
            case CloseWith(code, reason):
                await self._socket.connection.aclose(code, reason)
            case Trouble.HANG:
                await trio.sleep_forever()
            case Say(frame):
                await self._socket.connection.send_message(frame)
                return True
            case Trouble.NO_AUDIO:
                return True
        return False

    async def _misbehave_midway(self) -> None:
        match self._trouble:
            case Trouble.HANG_MIDWAY:
                await trio.sleep_forever()
            case Trouble.RESET_MIDWAY:
                await reset(self._socket.stream)
            case Trouble.CUT_MIDWAY:
                await self._socket.stream.send_all(b"\x81\x7e\x10\x00only a part")
                await trio.aclose_forcefully(self._socket.stream)
            case Trouble.CLOSE_MIDWAY:
                await self._socket.connection.aclose(1000)
            case Trouble.BAD_JSON_MIDWAY:
                await self._socket.connection.send_message('{"audio":"AAAA"')

    async def _send(self, frame: Mapping[str, Any]) -> None:
        if self._fake.old_spelling and frame.get("isFinal"):
            frame = {"audio": None, "is_final": True}
        await self._socket.send({**frame, **self._whose()})

    def _whose(self) -> dict[str, str]:
        if self._context_id is None:
            return {}
        return {"context_id" if self._fake.old_spelling else "contextId": self._context_id}


class _Stream:
    """What is said on a socket of `stream-input`: one utterance."""

    def __init__(self, socket: _Socket, trouble: Misfortune | None) -> None:
        self._socket = socket
        self._utterance = _Utterance(socket, trouble)
        self._patience_s = socket.patience_s

    async def run(self) -> None:
        if await self._socket.is_refused():
            return
        async with background_nursery() as nursery:
            nursery.start_soon(self._speak)
            await self._listen()

    async def _speak(self) -> None:
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await self._utterance.speak()
            await self._utterance.tell_end()
            await self._socket.connection.aclose(1000)

    async def _listen(self) -> None:
        while True:
            with trio.move_on_after(self._patience_s) as patience:
                message = _json_object(await self._socket.connection.get_message())
            if patience.cancelled_caught:
                await self._socket.report(_input_timeout(self._patience_s))
            elif message is None or "text" not in message:
                await self._socket.report(_UNREADABLE)
            else:
                await self._take(message)

    async def _take(self, message: dict[str, Any]) -> None:
        self._socket.log.messages.append(message)
        refusal = self._utterance.take(message)
        if refusal is not None:
            await self._socket.report(refusal)
        elif message["text"] == "":
            self._utterance.generate()
            self._utterance.end()
            self._patience_s = math.inf


class _Contexts:
    """What is said on a socket of `multi-stream-input`."""

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket
        self._contexts: dict[str, _Utterance] = {}
        """Those whose final frame was not sent."""
        self._silent_since_s: dict[str | None, float] = {None: trio.current_time()}
        """Of the socket (``None``) and of the contexts that take text."""

    async def run(self) -> None:
        if await self._socket.is_refused():
            return
        async with background_nursery() as nursery:
            while True:
                with trio.move_on_at(self._deadline_s()) as patience:
                    message = _json_object(await self._socket.connection.get_message())
                if patience.cancelled_caught:
                    await self._time_out()
                elif message is None:
                    await self._socket.report(_UNREADABLE)
                elif (refusal := self._take(message, nursery)) is not None:
                    await self._socket.report(refusal)

    def _deadline_s(self) -> float:
        return min(self._silent_since_s.values()) + self._socket.patience_s

    async def _time_out(self) -> None:
        (silent, _) = min(self._silent_since_s.items(), key=lambda item: (item[1], item[0] is None))
        await self._socket.report(
            _input_timeout(self._socket.patience_s), **({} if silent is None else {"contextId": silent})
        )

    def _take(self, message: dict[str, Any], nursery: trio.Nursery) -> Report | None:
        self._socket.log.messages.append(message)
        self._silent_since_s[None] = trio.current_time()
        context_id = message.get("context_id") or message.get("contextId")
        if message.get("close_socket"):
            nursery.start_soon(self._end)
            return None
        if context_id is None:
            return None if message.get("text") == "" else self._talk("default", message, nursery)
        return self._talk(context_id, message, nursery)

    def _talk(self, context_id: str, message: dict[str, Any], nursery: trio.Nursery) -> Report | None:
        context = self._contexts.get(context_id)
        if context is None:
            if len(self._contexts) >= _MAX_CONTEXTS:
                return _TOO_MANY_CONTEXTS
            context = _Utterance(self._socket, self._socket.fake.next_trouble(), context_id)
            self._contexts[context_id] = context
            self._silent_since_s[context_id] = trio.current_time()
            nursery.start_soon(self._speak, context_id, context)
        if context_id not in self._silent_since_s:
            return None  # it is closed, and takes nothing more
        self._silent_since_s[context_id] = trio.current_time()
        if (refusal := context.take(message)) is not None:
            return refusal
        if message.get("close_context"):
            self._close(context_id)
        return None

    def _close(self, context_id: str) -> None:
        """Take no more text; what was not generated by now is lost, and what was is still said."""
        self._silent_since_s.pop(context_id, None)
        self._contexts[context_id].end()

    async def _speak(self, context_id: str, context: _Utterance) -> None:
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await context.speak()
            del self._contexts[context_id]
            await context.tell_end()

    async def _end(self) -> None:
        for context_id in self._contexts:
            self._close(context_id)
        while self._contexts:
            await trio.sleep(0.01)
        with suppress(ConnectionClosed):
            await self._socket.connection.aclose(1000)


# --- what is said -------------------------------------------------------------------------------------


def speech_of(text: str, audio_format: AudioFormat) -> bytes:
    """Make the audio of a text: a tone whose pitch is that of its first letter."""
    duration_ms = CHAR_MS * len(text)
    if audio_format.codec in ("mp3", "opus"):
        size = audio_format.size_bytes(duration_ms)
        return (text.encode() * (size // max(len(text.encode()), 1) + 1))[:size]
    samples = round(audio_format.sample_rate_hz * duration_ms / 1000)
    pitch_hz = 200 + ord(text[:1] or " ")
    wave = 8000 * np.sin(2 * np.pi * pitch_hz / audio_format.sample_rate_hz * np.arange(samples))
    pcm = wave.astype("<i2").tobytes()
    return pcm if audio_format.codec == "pcm" else ulaw_encode(pcm)


def _cuts(text: str, audio_format: AudioFormat, chunk_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Cut a text's audio; with each chunk come the borders of its characters, by their starts."""
    audio = speech_of(text, audio_format)
    said = 0
    for begin in range(0, len(audio), chunk_bytes):
        data = audio[begin : begin + chunk_bytes]
        until_ms = audio_format.duration_ms(begin + len(data))
        first, said = said, min(len(text), math.ceil(until_ms / CHAR_MS))
        yield data, first, said


def _plain_chunks(text: str, audio_format: AudioFormat, chunk_bytes: int) -> Iterator[bytes]:
    for data, _, _ in _cuts(text, audio_format, chunk_bytes):
        yield data


def _timed_lines(text: str, audio_format: AudioFormat, chunk_bytes: int) -> Iterator[bytes]:
    for data, first, last in _cuts(text, audio_format, chunk_bytes):
        line = {"audio_base64": _encoded(data), **_http_alignment(text, first, last)}
        yield json.dumps(line).encode() + b"\n"


def _http_alignment(text: str, first: int, last: int) -> dict[str, Any]:
    if first == last:
        return {"alignment": None, "normalized_alignment": None}
    times_s = [number * CHAR_MS / 1000 for number in range(first, last + 1)]
    value = {
        "characters": list(text[first:last]),
        "character_start_times_seconds": times_s[:-1],
        "character_end_times_seconds": times_s[1:],
    }
    return {"alignment": value, "normalized_alignment": value}


def _without_alignment(line: bytes) -> bytes:
    return json.dumps({"audio_base64": json.loads(line)["audio_base64"], "alignment": None}).encode() + b"\n"


def _played(pieces: list[bytes], trouble: Misfortune | None, pause_s: float) -> Iterator[Step]:
    """Send the chunks of an HTTP answer, as far as the trouble lets them."""
    if trouble is Trouble.NO_AUDIO:
        pieces = []
    if trouble is Trouble.BAD_BASE64:
        pieces = [b'{"audio_base64":"*not base64*"}\n']
    if trouble is Trouble.DRIP:
        for byte in b"".join(pieces):
            yield chunk(bytes([byte]))
            yield Pause(3)
    for number, piece in enumerate(pieces):
        yield chunk(piece)
        if number == 0:
            yield from _midway(trouble)
        yield Pause(pause_s)
    yield LAST_CHUNK


def _midway(trouble: Misfortune | None) -> Iterator[Step]:
    match trouble:
        case Trouble.HANG_MIDWAY:
            yield Fault.HANG
        case Trouble.RESET_MIDWAY:
            yield Fault.RESET
        case Trouble.CUT_MIDWAY:
            yield b"1000\r\nonly a part"
            yield Fault.CLOSE
        case Trouble.CLOSE_MIDWAY:
            yield Fault.CLOSE
        case Trouble.BAD_JSON_MIDWAY:
            yield chunk(b'{"audio_base64":"AAAA"\n')


def _v3_refusal(body: Mapping[str, Any]) -> bytes | None:
    if body.get("previous_text") or body.get("next_text"):
        message = "Providing previous_text or next_text is not yet supported with the 'eleven_v3' model."
        return _detail(400, {"status": "unsupported_parameter", "message": message})
    if (body.get("voice_settings") or {}).get("stability", 0.5) not in (0.0, 0.5, 1.0):
        return _detail(400, {"status": "invalid_stability", "message": "Must be one of 0.0, 0.5, 1.0."})
    return None


def _input_timeout(after_s: float) -> Report:
    return Report(
        "input_timeout_exceeded",
        f"Have not received a new text input within the timeout of {after_s:.1f} seconds. Streaming input "
        "terminated. Please make sure to either feed the input in the timely manner, or to send the end of "
        'input text (empty string "") when done.',
    )


def _detail(status: int, detail: Any) -> bytes:
    return json_response({"detail": detail}, status)


def _voice_of(path: str) -> str:
    return path.removeprefix(_PREFIX).split("/")[0]


def _encoded(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def _json_object(message: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(message)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("text", ""), str) else None


@asynccontextmanager
async def serve_elevenlabs_tts(fake: FakeElevenLabsTts) -> AsyncIterator[str]:
    """Serve; gives the base address, such as ``http://127.0.0.1:41234``."""
    async with serve(fake.handle) as address:
        yield address.replace("ws", "http", 1)
