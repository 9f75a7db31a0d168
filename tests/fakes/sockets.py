"""What fake WebSocket services stand on: loopback sockets or memory streams, and ways to misbehave.

A fake is a handler of one byte stream. `serve` puts it on a real socket; `in_memory` connects it without
sockets, exact under ``autojump_clock``. Both fail when a socket outlives them.

    async def handler(stream):
        async with accept(stream) as (handshake, websocket):
            await websocket.send_message(...)
"""

import base64
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import attrs
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream

from voice_fsm.upstream.websocket import Dial, background_nursery

_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Handler = Callable[[trio.abc.Stream], Awaitable[None]]
"""Serves one client; its stream is closed when it returns."""


@attrs.frozen
class Handshake:
    """What a client asked for."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""


@asynccontextmanager
async def serve(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve on a loopback socket; gives the base address, such as ``ws://127.0.0.1:41234``."""
    before = open_sockets()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def handle(tcp: trio.SocketStream) -> None:
        stream = tcp if tls is None else trio.SSLStream(tcp, tls, server_side=True, https_compatible=True)
        await _handle(handler, stream)

    async with background_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}"
    assert open_sockets() <= before, "a socket was left open"


@asynccontextmanager
async def in_memory(handler: Handler) -> AsyncIterator[Dial]:
    """Serve without sockets; gives what `open_websocket` dials with, whatever the host."""
    before = open_sockets()
    async with background_nursery() as nursery:

        async def dial(host: str, port: int) -> trio.abc.HalfCloseableStream:
            await trio.lowlevel.checkpoint()
            client, server = trio.testing.memory_stream_pair()
            nursery.start_soon(_handle, handler, server, name=f"fake {host}:{port}")
            return client

        yield dial
    assert open_sockets() <= before, "a socket was left open"


async def _handle(handler: Handler, stream: trio.abc.Stream) -> None:
    """Run a handler; that its client has gone is no failure of it."""
    try:
        await handler(stream)
    except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def propose(stream: trio.abc.Stream) -> AsyncIterator[tuple[Handshake, WebSocketRequest]]:
    """Wait for the client's handshake, which the body accepts or rejects."""
    async with background_nursery() as nursery:
        request = await wrap_server_stream(nursery, stream)
        parts = urlsplit(request.path)
        headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        yield Handshake(parts.path, parse_qs(parts.query, keep_blank_values=True), headers), request


@asynccontextmanager
async def accept(stream: trio.abc.Stream) -> AsyncIterator[tuple[Handshake, WebSocketConnection]]:
    """Accept the client's handshake; the body talks, and its end closes the connection with 1000."""
    async with propose(stream) as (handshake, request):
        connection = await request.accept()
        yield handshake, connection
        with trio.move_on_after(1):
            await connection.aclose()


async def reject(
    stream: trio.abc.Stream, status: int, *, headers: dict[str, str] | None = None, body: bytes = b""
) -> None:
    """Answer the client's handshake with an HTTP status that is a refusal."""
    async with propose(stream) as (_, request):
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await request.reject(status, extra_headers=fields, body=body)


async def reset(stream: trio.abc.Stream) -> None:
    """Break the connection off as a crashed host does: RST on a socket, a plain end in memory."""
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


async def drip(stream: trio.abc.Stream, data: bytes, *, pause_s: float) -> None:
    """Send bytes one at a time."""
    for i in range(len(data)):
        await stream.send_all(data[i : i + 1])
        await trio.sleep(pause_s)


async def read_head(stream: trio.abc.Stream) -> bytes:
    """Read the client's upgrade request, unanswered: what follows is up to the caller."""
    head = bytearray()
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            raise trio.BrokenResourceError
        head += data
    return bytes(head)


def agreement(head: bytes) -> bytes:
    """Write the answer that accepts an upgrade request, for servers that then go their own way."""
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = hashlib.sha1(key.partition(b":")[2].strip() + _ACCEPT_GUID).digest()  # noqa: S324  # RFC 6455
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def open_sockets() -> frozenset[str]:
    """Name the sockets that this process holds open (Linux: by inode)."""
    return frozenset(target for target in map(_link, Path("/proc/self/fd").iterdir()) if "socket:" in target)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  # Path.readlink would take "socket:[1]" for a file's name
    except FileNotFoundError:
        return ""  # the directory's own descriptor, gone by now
