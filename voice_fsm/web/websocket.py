"""A WebSocket connection between Hypercorn, which parsed its upgrade request, and an ASGI app.

The app runs in the connection's own task and reads the socket by its `receive`: no task, no queue and no lock
lie between them. With 100 clients that got 4 KB echoed ten times a second, a message in and out cost 170 us
of CPU, where Hypercorn's own path took 330. What follows from it:

- A client is slowed down by TCP as soon as the app does not receive; nothing piles up here.
- Pings are answered, and a client's leaving is noticed, while the app is in `receive`. Keep a task there.
- `send` writes at once, and is no checkpoint unless it has to wait: whoever sends without end, waits for
  something in between. Cancelling it while not one byte of the frame has gone leaves the connection whole;
  a frame once begun is finished, or the connection is given up. So it is with frames that are sent together.
- A `send` to a client that has gone raises `PeerGone`, as ASGI asks since 2.4; Starlette's `WebSocket` makes
  it a `WebSocketDisconnect`.

Compression is declined (speech does not compress; it would cost 250 KB a connection). A client that vanished
without a word is found in three ways: TCP_USER_TIMEOUT on what was sent to it, the ping that makes sure
something was, and the silence from one ping to the next, which sees through proxies too.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, cast
from urllib.parse import unquote

import h11
import trio
from hypercorn.config import Config
from hypercorn.protocol.ws_stream import Handshake
from starlette.types import ASGIApp, Message, Scope
from starlette.websockets import WebSocketDisconnect

from voice_fsm.upstream.eager import read_when_ready, write_now
from voice_fsm.web.messages import EXTENSION
from voice_fsm.web.pings import Pings
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.wire.frames import (
    BINARY,
    CLOSE,
    CONNECTION_LOST,
    INTERNAL_ERROR,
    NORMAL_CLOSURE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    Received,
    decode_close,
    decode_text,
    encode_close,
    encode_frame,
)

Address = tuple[str, int]
RawHeaders = list[tuple[bytes, bytes]]

_READ_BYTES: Final = 16 * 1024
"""Room made for each read, and given back but for what came: some 100 ms of the best audio."""
_log: Final = logging.getLogger("hypercorn.error")


class PeerGone(ConnectionError):  # noqa: N818  # says what happened, as trio's and asyncio's own do
    """The client has gone, or the connection is closed: nothing can be sent any more."""

    def __init__(self) -> None:
        super().__init__("the WebSocket is closed")


class _State(Enum):
    CONNECTING = auto()
    """The app has not yet answered the request."""
    REFUSING = auto()
    """The app is answering with an HTTP response."""
    OPEN = auto()
    CLOSED = auto()
    """Refused, closed by either side, or lost."""


class AsgiWebSocket:
    """Runs an app on a connection whose upgrade request has been read."""

    def __init__(
        self,
        stream: trio.SocketStream,
        http: h11.Connection,
        request: h11.Request,
        *,
        config: Config,
        settings: ServeConfig,
        pings: Pings,
        client: Address | None,
        server: Address | None,
        app_state: dict[str, Any],
    ) -> None:
        self._stream = stream
        self._http = http
        self._config = config
        self._settings = settings
        self._pings = pings
        self._handshake = Handshake(list(request.headers), request.http_version.decode())
        self._handshake.extensions = None  # whatever was offered: no compression
        self._scope: Scope = {
            **_request_scope(request),
            "root_path": config.root_path,
            "client": client,
            "server": server,
            "state": app_state,
            "subprotocols": self._handshake.subprotocols or [],
        }
        self._frames = FrameReader(settings.ws_max_message_bytes)
        self._frames.feed(http.trailing_data[0])
        self._state = _State.CONNECTING
        self._answered = trio.Event()
        self._announced = False
        self._end: Message | None = None
        self._sending = trio.Lock()
        self._listening = False
        self._heard = False

    async def run(self, app: ASGIApp) -> None:
        """Serve the client until the app is done with it."""
        try:
            if self._handshake.is_valid():
                await self._finish(await self._call(app))
            else:
                await self._refuse(400)
        except PeerGone:
            pass
        finally:
            self._pings.discard(self)

    async def ping(self) -> None:
        """Ping the client, or give it up if it has been silent since the last time.

        One whose socket is full is neither: TCP_USER_TIMEOUT sees to it.
        """
        if self._state is not _State.OPEN or self._sending.locked():
            self._heard = True
        elif self._listening and not self._heard:
            self._stream.socket.close()
        else:
            # If it has gone, the app will find out.
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                async with self._sending:
                    await self._write_ping()

    async def _call(self, app: ASGIApp) -> int:
        """Run the app; its fault ends this connection alone."""
        close_code = NORMAL_CLOSURE
        messages = {"receive": self.receive_message, "send": self.send_messages}
        extensions = {**self._scope["extensions"], EXTENSION: messages}
        try:
            await app({**self._scope, "extensions": extensions}, self.receive, self.send)
        except* (PeerGone, WebSocketDisconnect):
            pass  # how an app may learn that it has lost its client
        except* Exception:  # noqa: BLE001  # whatever it is, it must not reach the other connections
            _log.exception("error in the app, on %s", self._scope["path"])
            close_code = INTERNAL_ERROR
        return close_code

    # --- the app's side -----------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Give the next ASGI event; once the client has gone, `websocket.disconnect` again and again."""
        if not self._announced:
            self._announced = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        message = await self.receive_message()
        if isinstance(message, bytes):
            return {"type": "websocket.receive", "bytes": message, "text": None}
        if message is not None:
            return {"type": "websocket.receive", "bytes": None, "text": message}
        return cast(Message, self._end)  # there is one now

    async def receive_message(self) -> str | bytes | None:
        """Give the next message, past ASGI's events; ``None`` once the client has gone."""
        if not self._answered.is_set():  # to wait for what has come costs a turn of the scheduler
            await self._answered.wait()
        if self._frames.unread_bytes:
            await trio.lowlevel.checkpoint()  # a burst of small messages must not keep others waiting
        while self._end is None:
            try:
                received = self._frames.next()
                if received is None:
                    await self._read()
                elif received.opcode == BINARY:
                    return received.payload
                elif received.opcode == TEXT:
                    return decode_text(received.payload)
                else:
                    await self._answer(received)
            except FrameError as error:
                await self._fail(error)
            except PeerGone:
                pass
        await trio.lowlevel.checkpoint()
        return None

    async def send(self, message: Message) -> None:
        """Do what an ASGI event of the app says.

        Raises:
            PeerGone: the client has gone.
            RuntimeError: the event does not fit the state.
        """
        kind = message["type"]
        if self._state is _State.OPEN and kind == "websocket.send":
            data = message.get("bytes")
            await self._transmit(_frame(message["text"] if data is None else data))
        elif self._state is _State.OPEN and kind == "websocket.close":
            await self._close(message.get("code", NORMAL_CLOSURE), message.get("reason") or "")
        elif self._state is _State.CLOSED:
            if kind != "websocket.close":
                raise PeerGone
            await trio.lowlevel.checkpoint()
        elif self._state is _State.CONNECTING and kind == "websocket.accept":
            await self._accept(message)
        elif self._state is _State.CONNECTING and kind == "websocket.close":
            await self._refuse(403)
        elif self._state is _State.CONNECTING and kind == "websocket.http.response.start":
            self._state = _State.REFUSING
            await self._begin_response(message["status"], list(message.get("headers", ())))
        elif self._state is _State.REFUSING and kind == "websocket.http.response.body":
            await self._continue_response(message)
        else:
            raise RuntimeError(f"{kind} cannot be sent while {self._state.name}")

    async def send_messages(self, messages: Sequence[str | bytes]) -> None:
        """Send messages in one write, past ASGI's events.

        Raises:
            PeerGone: the client has gone.
            RuntimeError: the connection is not open yet.
        """
        if self._state is _State.CLOSED:
            raise PeerGone
        if self._state is not _State.OPEN:
            raise RuntimeError(f"messages cannot be sent while {self._state.name}")
        await self._transmit(b"".join([_frame(message) for message in messages]))

    # --- the handshake ------------------------------------------------------------------------------

    async def _accept(self, message: Message) -> None:
        status, headers, _ = self._handshake.accept(
            message.get("subprotocol"), list(message.get("headers", ()))
        )
        switch = h11.InformationalResponse(
            status_code=status,
            headers=[*headers, *self._config.response_headers("h11")],
            reason=b"Switching Protocols",
        )
        self._state = _State.OPEN
        await self._transmit(self._http.send(switch) or b"")
        del self._http, self._handshake  # there is no more HTTP on this connection
        self._answered.set()
        self._pings.add(self)

    async def _refuse(self, status: int) -> None:
        await self._begin_response(status, [(b"content-length", b"0")])
        await self._end_response()

    async def _begin_response(self, status: int, headers: RawHeaders) -> None:
        headers = [*headers, (b"connection", b"close"), *self._config.response_headers("h11")]
        await self._transmit(self._http.send(h11.Response(status_code=status, headers=headers)) or b"")

    async def _continue_response(self, message: Message) -> None:
        if body := message.get("body", b""):
            await self._transmit(self._http.send(h11.Data(data=body)) or b"")
        if not message.get("more_body", False):
            await self._end_response()

    async def _end_response(self) -> None:
        await self._transmit(self._http.send(h11.EndOfMessage()) or b"")
        self._end_with(CONNECTION_LOST)

    # --- reading ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        self._heard = self._listening = True
        try:
            data = await read_when_ready(self._stream.socket, _READ_BYTES)
        except (OSError, trio.ClosedResourceError):
            data = b""
        finally:
            self._listening = False
        if data:
            self._heard = True
            self._frames.feed(data)
        else:
            self._end_with(CONNECTION_LOST)

    async def _answer(self, control: Received) -> None:
        if control.opcode == PING:
            await self._transmit(encode_frame(PONG, control.payload))
        elif control.opcode == CLOSE:
            code, reason = decode_close(control.payload)
            self._end_with(code, reason)
            await self._transmit(encode_close(code))

    async def _fail(self, error: FrameError) -> None:
        """Tell the client what it did wrong, and the app that it has gone."""
        self._end_with(error.close_code, error.reason)
        with suppress(PeerGone):
            await self._transmit(encode_close(error.close_code, error.reason))

    def _end_with(self, code: int, reason: str = "") -> None:
        self._state = _State.CLOSED
        self._answered.set()
        if self._end is None:
            self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}

    # --- writing ------------------------------------------------------------------------------------

    async def _close(self, code: int, reason: str) -> None:
        self._end_with(code, reason)
        await self._transmit(encode_close(code, reason))

    async def _transmit(self, data: bytes) -> None:
        """Write frames, whole."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            # No lock for what is written before anybody else can run.
            sent_bytes = 0 if self._sending.locked() else write_now(self._stream.socket, data)
            if sent_bytes < len(data):
                await self._transmit_slowly(data, sent_bytes)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self._end_with(CONNECTION_LOST)
            raise PeerGone from None

    async def _transmit_slowly(self, data: bytes, sent_bytes: int) -> None:
        """Write what is left of frames; the lock is free if any of them has been written."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            # Not `send_all`: it cannot be cancelled without doubt about what has gone.
            sent_bytes = sent_bytes or await self._stream.socket.send(data)
            if sent_bytes < len(data):
                await self._transmit_rest(data[sent_bytes:])
        finally:
            self._sending.release()

    async def _transmit_rest(self, data: bytes) -> None:
        with trio.move_on_after(self._settings.tcp_user_timeout_s, shield=True) as patience:
            await self._stream.send_all(data)
        if patience.cancelled_caught:
            self._stream.socket.close()
            raise trio.ClosedResourceError

    async def _write_ping(self) -> None:
        frame = encode_frame(PING, b"")
        sent_bytes = write_now(self._stream.socket, frame)
        self._heard = sent_bytes == 0
        if 0 < sent_bytes < len(frame):
            await self._transmit_rest(frame[sent_bytes:])

    async def _finish(self, close_code: int) -> None:
        """Answer or close what the app left unanswered or open."""
        if self._state is _State.CONNECTING:
            await self._refuse(500)
        elif self._state is _State.OPEN:
            await self._close(close_code, "")


def _frame(message: str | bytes) -> bytes:
    if isinstance(message, str):
        return encode_frame(TEXT, message.encode())
    return encode_frame(BINARY, message)


def _request_scope(request: h11.Request) -> Scope:
    raw_path, _, query_string = request.target.partition(b"?")
    return {
        "type": "websocket",
        "asgi": {"spec_version": "2.4", "version": "3.0"},
        "extensions": {"websocket.http.response": {}},
        "scheme": "ws",
        "http_version": request.http_version.decode(),
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": query_string,
        "headers": list(request.headers),
    }
