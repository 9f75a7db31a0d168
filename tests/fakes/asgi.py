"""Small ASGI apps, a server around them, and a WebSocket client that can misbehave."""

import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio
from starlette.types import ASGIApp, Receive, Scope, Send
from trio import socket

from voice_fsm.web.serve import ServeConfig, serve
from voice_fsm.wire.frames import CLOSE, TEXT

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT_OF_KEY: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Both are RFC 6455's example."""


def with_lifespan(websocket: Handler | None = None, http: Handler | None = None) -> ASGIApp:
    """Make an app of handlers of its scopes; HTTP is answered by 200 and ``ok`` unless told otherwise."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            assert websocket is not None
            await websocket(scope, receive, send)
        else:
            await (http or ok)(scope, receive, send)

    return app


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def ok(_: Scope, _receive: Receive, send: Send) -> None:
    """Answer a request."""
    await respond(send, b"ok")


async def respond(send: Send, body: bytes) -> None:
    """Answer with 200 and a body."""
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def accept(receive: Receive, send: Send) -> None:
    """Let the client in."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Give back each message until the client has gone."""
    await accept(receive, send)
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


@attrs.frozen
class Served:
    """A server that a test runs."""

    port: int
    draining: trio.Event
    stop: trio.Event
    ended: trio.Event
    _clients: list[socket.SocketType]

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> trio.SocketStream:
        """Open a TCP connection; it is closed at the end, if it is not before."""
        sock = socket.socket()
        self._clients.append(sock)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await sock.connect(("127.0.0.1", self.port))
        return trio.SocketStream(sock)

    async def open_websocket(
        self, early: bytes = b"", *, headers: str = "", receive_buffer_bytes: int | None = None
    ) -> "RawWebSocket":
        """Become a WebSocket; ``early`` goes out in one packet with the request."""
        peer = RawWebSocket(await self.connect(receive_buffer_bytes=receive_buffer_bytes))
        await peer.stream.send_all(upgrade_request(headers) + early)
        head = await peer.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer


@asynccontextmanager
async def serving(app: ASGIApp, **settings: float) -> AsyncIterator[Served]:
    """Serve on a port of 127.0.0.1 until the block ends, or until the test sets ``stop``."""
    config = ServeConfig(port=0, **settings)  # type: ignore[arg-type]  # each test passes numbers of the right kind
    draining, stop, ended = trio.Event(), trio.Event(), trio.Event()
    clients: list[socket.SocketType] = []

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(app, config, shutdown_trigger=stop.wait, draining=draining, task_status=task_status)
        ended.set()

    try:
        async with trio.open_nursery() as nursery:
            urls: list[str] = await nursery.start(run)
            yield Served(int(urls[0].rpartition(":")[2]), draining, stop, ended, clients)
            nursery.cancel_scope.cancel()
    finally:
        for client in clients:
            client.close()


def upgrade_request(headers: str = "", path: str = "/") -> bytes:
    """Make a request to become a WebSocket; ``headers`` are whole lines."""
    lines = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY.decode()}\r\n{headers}\r\n"
    )
    return lines.encode("latin-1")


def client_frame(opcode: int, payload: bytes, *, first: int | None = None) -> bytes:
    """Make a masked frame; ``first`` takes the place of its first byte."""
    length = len(payload)
    mask = os.urandom(4)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
    if first is not None:
        head = bytes((first,)) + head[1:]
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class RawWebSocket:
    """A client that writes what it likes and reads frame by frame."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unread = bytearray()

    async def read_head(self) -> bytes:
        """Read a response up to the end of its headers."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            await self._read_more()
        head = bytes(self._unread[: end + 4])
        del self._unread[: end + 4]
        return head

    async def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame."""
        await self.stream.send_all(client_frame(opcode, payload))

    async def send_text(self, text: str) -> None:
        """Send a message."""
        await self.send(TEXT, text.encode())

    async def read_frame(self) -> tuple[int, bytes]:
        """Read one frame of at most 64 KiB: opcode and payload."""
        await self._need(2)
        opcode, length, start = self._unread[0] & 0x0F, self._unread[1], 2
        if length == 126:
            start = 4
            await self._need(start)
            length = int.from_bytes(self._unread[2:4], "big")
        await self._need(start + length)
        payload = bytes(self._unread[start : start + length])
        del self._unread[: start + length]
        return opcode, payload

    async def read_exactly(self, size: int) -> bytes:
        """Read so many bytes of whatever is sent."""
        await self._need(size)
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    async def read_text(self) -> str:
        """Read a message."""
        opcode, payload = await self.read_frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    async def read_close(self) -> int:
        """Read up to the close and then to the end of the connection; give the close code."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == CLOSE:
                break
        await self.read_to_end()
        return int.from_bytes(payload[:2], "big")

    async def read_to_end(self) -> bytes:
        """Read until the server has closed."""
        rest = bytes(self._unread)
        while data := await self.stream.receive_some():
            rest += data
        return rest

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def _need(self, size: int) -> None:
        while len(self._unread) < size:
            await self._read_more()

    async def _read_more(self) -> None:
        data = await self.stream.receive_some()
        assert data, f"the server closed after {bytes(self._unread)!r}"
        self._unread += data
