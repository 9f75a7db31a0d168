"""One HTTP/1.1 connection to an upstream: a Trio stream, with the exceptions of httpx."""

import ssl
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack
from typing import Final, Self, TypeVar, cast

import attrs
import httpx
import trio

from voice_fsm.upstream.http_message import AnswerReader, written
from voice_fsm.upstream.tls import TlsStream
from voice_fsm.upstream.websocket import dial_tcp

T = TypeVar("T")

_READ_BYTES: Final = 64 * 1024
_ONE_WRITE_BYTES: Final = 64 * 1024
"""A body up to here goes out with its head; copying a longer one costs more than a second write."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@attrs.frozen
class Origin:
    """Whom a connection leads to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Self:
        """Read it off an address.

        Raises:
            httpx.UnsupportedProtocol: it is none of HTTP.
        """
        if url.scheme not in _DEFAULT_PORTS:
            raise httpx.UnsupportedProtocol("an address begins with http:// or https://")
        return cls(url.scheme, url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme])


Timeouts = Mapping[str, float | None]
"""How many seconds a step may take, by httpx's names: connect, read, write, pool; ``None`` is for ever."""


async def within(seconds: float | None, step: Awaitable[T], too_slow: type[httpx.TimeoutException]) -> T:
    """Wait for one step.

    Raises:
        httpx.TimeoutException: of the class ``too_slow``.
    """
    if seconds is None:
        return await step
    with trio.move_on_after(seconds):
        return await step
    raise too_slow(f"not done in {seconds} s")


class HttpConnection:
    """A connection, for one request at a time."""

    def __init__(self, origin: Origin, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self.origin = origin
        self.ready_since_s = trio.current_time()
        self._stream = stream
        self._socket = socket
        self._answer: AnswerReader | None = None
        self._timeouts: Timeouts = {}

    async def send(self, request: httpx.Request, timeouts: Timeouts) -> AnswerReader:
        """Send a request and wait for the head of its answer.

        Raises:
            httpx.TransportError: there is none, or the request cannot be written as HTTP.
        """
        self._timeouts = timeouts
        self._answer = answer = AnswerReader(request.method)
        stream = cast(httpx.AsyncByteStream, request.stream)
        head, body = written(request, b"".join([piece async for piece in stream]))
        await self._send(*((head + body,) if len(body) <= _ONE_WRITE_BYTES else (head, body)))
        while not answer.has_head:
            await self.receive(answer)
        return answer

    async def receive(self, answer: AnswerReader) -> None:
        """Wait for more of the answer.

        Raises:
            httpx.TransportError: the connection is broken, or what comes is no answer.
        """
        try:
            data = await within(
                self._timeouts.get("read"), self._stream.receive_some(_READ_BYTES), httpx.ReadTimeout
            )
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(str(error)) from error
        answer.feed(bytes(data))

    def make_ready(self) -> bool:
        """Prepare for another request; false if none can follow: this one is unfinished, or was the last."""
        if self._answer is None or not self._answer.can_be_followed or self._has_unread():
            return False
        self._answer = None
        self.ready_since_s = trio.current_time()
        return True

    def is_alive(self) -> bool:
        """Whether an idle connection is still there: what could be read from it is but its end."""
        return not self._socket.is_readable()

    def close(self) -> None:
        """Cut it off, without a word of TLS; twice does no harm."""
        self._socket.close()

    def _has_unread(self) -> bool:
        """Whether more than the answer has come, and waits within TLS: the socket does not show it."""
        return isinstance(self._stream, TlsStream) and self._stream.has_unread

    async def _send(self, *pieces: bytes) -> None:
        """Send; a peer that takes no more may have answered all the same (RFC 9112, section 9.5)."""
        try:
            for piece in pieces:
                await within(self._timeouts.get("write"), self._stream.send_all(piece), httpx.WriteTimeout)
        except trio.BrokenResourceError:
            return
        except trio.ClosedResourceError as error:
            raise httpx.WriteError("the client was closed") from error


async def open_connection(origin: Origin, tls: ssl.SSLContext) -> HttpConnection:
    """Connect, and agree on TLS where the origin asks for it.

    Raises:
        httpx.ConnectError: nobody answers there, or nobody whom the context trusts.
    """
    with ExitStack() as failing:
        try:
            tcp = await dial_tcp(origin.host, origin.port)
            failing.callback(tcp.socket.close)
            stream = await TlsStream.open(tcp, tls, origin.host) if origin.scheme == "https" else tcp
        except (OSError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(str(error)) from error
        failing.pop_all()
        return HttpConnection(origin, stream, tcp.socket)
