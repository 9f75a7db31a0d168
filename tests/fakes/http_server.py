"""An HTTP/1.1 server on a loopback socket that sends exactly the bytes it is told to, when it is told to."""

import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from functools import partial
from typing import Any

import attrs
import trio


@attrs.frozen
class Pause:
    """Send nothing for a while."""

    seconds: float


class Fault(Enum):
    """How a connection misbehaves."""

    HANG = auto()
    """Say nothing more until the client leaves."""
    RESET = auto()
    """Break the connection (RST)."""
    CLOSE = auto()
    """Close the connection in good order (FIN)."""


Step = bytes | Pause | Fault


@attrs.frozen
class Request:
    """What the client sent."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[[Request], Iterable[Step]]


def response(
    status: int = 200, body: bytes = b"", *, content_type: str = "application/json", **headers: str
) -> bytes:
    """Write a whole answer; ``headers`` are given with underscores."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_response(value: Any, status: int = 200, **headers: str) -> bytes:
    return response(status, json.dumps(value).encode(), content_type="application/json", **headers)


def chunked_head(content_type: str = "text/event-stream", **headers: str) -> bytes:
    """Write the head of an answer whose body comes as chunks."""
    lines = ["HTTP/1.1 200 Whatever", f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def streamed(*pieces: bytes, content_type: str = "text/event-stream", **headers: str) -> list[Step]:
    """Write a whole answer, one chunk a piece."""
    return [chunked_head(content_type, **headers), *map(chunk, pieces), LAST_CHUNK]


class HttpServer:
    """The running server: its address, and what it has seen."""

    def __init__(self, port: int, handler: Handler) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.handler = handler
        self.requests: list[Request] = []
        self.connections = 0
        """How many there have been."""
        self.live_connections = 0
        self._changed = trio.Event()

    async def wait_until(self, condition: Callable[["HttpServer"], bool]) -> None:
        """Wait until something is true of this server; it is looked at after each event."""
        while not condition(self):
            await self._changed.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.live_connections += 1
        self._announce()
        try:
            async with stream:
                await _Connection(self, stream).run()
        finally:
            self.live_connections -= 1
            self._announce()

    def take(self, request: Request) -> Iterable[Step]:
        self.requests.append(request)
        self._announce()
        return self.handler(request)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Connection:
    def __init__(self, server: HttpServer, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._unread = bytearray()

    async def run(self) -> None:
        while (request := await self._read_request()) is not None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._leave_with_client, scope)
                    finished = await self._play(self._server.take(request))
                    nursery.cancel_scope.cancel()
            if scope.cancelled_caught or not finished:
                return

    async def _play(self, steps: Iterable[Step]) -> bool:
        for step in steps:
            match step:
                case bytes():
                    if not await self._send(step):
                        return False
                case Pause(seconds):
                    await trio.sleep(seconds)
                case Fault.HANG:
                    await trio.sleep_forever()
                case Fault.RESET:
                    linger = struct.pack("ii", 1, 0)
                    self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return False
                case Fault.CLOSE:
                    return False
        return True

    async def _leave_with_client(self, scope: trio.CancelScope) -> None:
        while data := await self._receive():
            self._unread += data
        scope.cancel()

    async def _send(self, data: bytes) -> bool:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            return False
        return True

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(65536))
        except trio.BrokenResourceError:
            return b""

    async def _read_request(self) -> Request | None:
        while b"\r\n\r\n" not in self._unread:
            if not (data := await self._receive()):
                return None
            self._unread += data
        head, _, rest = bytes(self._unread).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        self._unread = bytearray(rest)
        while len(self._unread) < size:
            if not (data := await self._receive()):
                return None
            self._unread += data
        body = bytes(self._unread[:size])
        del self._unread[:size]
        method, path, _ = first.split(" ", 2)
        return Request(method, path, headers, body)


@asynccontextmanager
async def serve_http(handler: Handler) -> AsyncIterator[HttpServer]:
    """Serve on a free port of 127.0.0.1 until the context is left."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = HttpServer(listener.socket.getsockname()[1], handler)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, server.serve, [listener]))
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def refusing_port() -> AsyncIterator[int]:
    """Hold a port on which nobody listens."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def _fail_the_handshake(stream: trio.SSLStream[trio.SocketStream]) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.do_handshake()


@asynccontextmanager
async def failing_tls_port() -> AsyncIterator[int]:
    """Serve TLS that no client can agree with: there is no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = trio.SSLListener(plain, context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, _fail_the_handshake, [listener]))
        yield plain.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class _NoNames(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_args: Any, **_kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_args: Any, **_kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def fail_name_lookups() -> None:
    """Let no host name be found for the rest of this run of Trio; addresses still work."""
    trio.socket.set_custom_hostname_resolver(_NoNames())
