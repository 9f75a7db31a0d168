"""One HTTP/1.1 connection to an upstream: h11's protocol on a Trio stream, with the exceptions of httpx."""

import ssl
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack, suppress
from typing import Final, Self, TypeVar

import attrs
import h11
import httpx
import trio

from voice_fsm.upstream.eager import EagerStream
from voice_fsm.upstream.websocket import dial_tcp

T = TypeVar("T")

_READ_BYTES: Final = 64 * 1024
_ONE_WRITE_BYTES: Final = 64 * 1024
"""A body up to here goes out with its head; copying a longer one costs more than a second write."""
_MAX_HEAD_BYTES: Final = 100 * 1024
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
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._timeouts: Timeouts = {}

    async def send(self, request: httpx.Request, timeouts: Timeouts) -> h11.Response:
        """Send a request and wait for the head of its answer.

        Raises:
            httpx.TransportError: there is none, or the request cannot be written as HTTP.
        """
        self._timeouts = timeouts
        head, body = self._written(request, await request.aread())
        await self._send(*((head + body,) if len(body) <= _ONE_WRITE_BYTES else (head, body)))
        while not isinstance(event := self._next_event(), h11.Response):
            if event is h11.NEED_DATA:
                await self._receive()
        return event

    async def more(self) -> bytes:
        """Wait for the next piece of the answer's body; nothing is its end, and the last to be asked for.

        Raises:
            httpx.TransportError: it ends too early, or cannot be understood.
        """
        while (event := self._next_event()) is h11.NEED_DATA:
            await self._receive()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def make_ready(self) -> bool:
        """Prepare for another request; false if none can follow: this one is unfinished, or was the last."""
        with suppress(httpx.RemoteProtocolError):
            while self._http.their_state is h11.SEND_BODY and self._next_event() is not h11.NEED_DATA:
                pass
        unasked, _ = self._http.trailing_data
        if {self._http.our_state, self._http.their_state} != {h11.DONE} or unasked:
            return False
        self._http.start_next_cycle()
        self.ready_since_s = trio.current_time()
        return True

    def is_alive(self) -> bool:
        """Whether an idle connection is still there: what could be read from it is but its end."""
        return not self._socket.is_readable()

    def close(self) -> None:
        """Cut it off, without a word of TLS; twice does no harm."""
        self._socket.close()

    def _written(self, request: httpx.Request, content: bytes) -> tuple[bytes, bytes]:
        send = self._http.send
        try:
            head = send(
                h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            )
            body = (send(h11.Data(content)) or b"") + (send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        return head or b"", body

    async def _send(self, *pieces: bytes) -> None:
        """Send; a peer that takes no more may have answered all the same (RFC 9112, section 9.5)."""
        try:
            for piece in pieces:
                await within(self._timeouts.get("write"), self._stream.send_all(piece), httpx.WriteTimeout)
        except trio.BrokenResourceError:
            return
        except trio.ClosedResourceError as error:
            raise httpx.WriteError("the client was closed") from error

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    async def _receive(self) -> None:
        try:
            data = await within(
                self._timeouts.get("read"), self._stream.receive_some(_READ_BYTES), httpx.ReadTimeout
            )
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(str(error)) from error
        if not data and self._http.their_state is h11.SEND_RESPONSE:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        self._http.receive_data(bytes(data))


async def open_connection(origin: Origin, tls: ssl.SSLContext) -> HttpConnection:
    """Connect, and agree on TLS where the origin asks for it.

    Raises:
        httpx.ConnectError: nobody answers there, or nobody whom the context trusts.
    """
    with ExitStack() as failing:
        try:
            tcp = await dial_tcp(origin.host, origin.port)
            failing.callback(tcp.socket.close)
            stream = await _start_tls(tcp, origin.host, tls) if origin.scheme == "https" else tcp
        except (OSError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(str(error)) from error
        failing.pop_all()
        return HttpConnection(origin, stream, tcp.socket)


async def _start_tls(tcp: EagerStream, host: str, tls: ssl.SSLContext) -> trio.abc.Stream:
    stream = trio.SSLStream(tcp, tls, server_hostname=host, https_compatible=True)
    await stream.do_handshake()
    return stream
