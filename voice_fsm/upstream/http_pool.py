"""Connections to upstreams over HTTP, kept from one request to the next: a transport of httpx.

That of httpx itself serves every event loop, with a lock, a trace and an async generator at each of its
layers; a reply asked for through it takes more than twice the CPU.
"""

import ssl
from collections.abc import Callable
from typing import Final

import httpx
import trio

from voice_fsm.upstream.http_connection import HttpConnection, Origin, Timeouts, open_connection, within
from voice_fsm.upstream.http_message import AnswerReader

BODY: Final = "body"
"""An answer's extension: its body, to be iterated without the generators that httpx puts around it."""

_MAX_IDLE: Final = 100
_MAX_IDLE_S: Final = 30.0


class HttpPool(httpx.AsyncBaseTransport):
    """A bounded number of connections, of which those of finished requests wait for the next one."""

    def __init__(self, tls: ssl.SSLContext, *, max_connections: int) -> None:
        self._tls = tls
        self._places = trio.Semaphore(max_connections)
        """As many as there may be connections beside the busy ones."""
        self._idle: list[HttpConnection] = []
        """The last used is the last."""
        self.busy: set[HttpConnection] = set()
        """Those under way; empty when all calls are over."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, on a connection that is there or a new one; its answer's body holds the connection.

        Raises:
            httpx.TransportError: there is no answer.
        """
        timeouts: Timeouts = request.extensions.get("timeout", {})
        origin = Origin.of(request.url)
        await self._take_place(timeouts)
        connection = answer = None
        try:
            connection = self._take_idle(origin) or await self._open(origin, timeouts)
            self.busy.add(connection)
            answer = await connection.send(request, timeouts)
        finally:
            if answer is None:
                self._leave(connection)
        body = AnswerBody(connection, answer, self._leave)
        return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions={BODY: body})

    async def aclose(self) -> None:
        """Close all connections, those under way too."""
        for connection in (*self._idle, *self.busy):
            connection.close()
        self._idle.clear()

    async def _take_place(self, timeouts: Timeouts) -> None:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await within(timeouts.get("pool"), self._places.acquire(), httpx.PoolTimeout)

    def _take_idle(self, origin: Origin) -> HttpConnection | None:
        """Find the last used connection to an origin; those found to be dead or too old are gone for good."""
        oldest_s = trio.current_time() - _MAX_IDLE_S
        while self._idle and self._idle[0].ready_since_s < oldest_s:
            self._idle.pop(0).close()
        for connection in reversed(self._idle[:]):
            if connection.origin == origin:
                self._idle.remove(connection)
                if connection.is_alive():
                    return connection
                connection.close()
        return None

    async def _open(self, origin: Origin, timeouts: Timeouts) -> HttpConnection:
        self._keep_idle(self._places.value)
        return await within(timeouts.get("connect"), open_connection(origin, self._tls), httpx.ConnectTimeout)

    def _leave(self, connection: HttpConnection | None) -> None:
        """Let go of a place, and of the connection that was had there."""
        self._places.release()
        if connection is None:
            return
        self.busy.remove(connection)
        if connection.make_ready():
            self._idle.append(connection)
            self._keep_idle(_MAX_IDLE)
        else:
            connection.close()

    def _keep_idle(self, most: int) -> None:
        while len(self._idle) > most:
            self._idle.pop(0).close()


class AnswerBody(httpx.AsyncByteStream):
    """The body of an answer, as it comes. It lets its connection go at its end, and where it breaks off."""

    def __init__(
        self, connection: HttpConnection, answer: AnswerReader, leave: Callable[[HttpConnection], None]
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._leave = leave
        self._is_over = False

    def __aiter__(self) -> "AnswerBody":
        return self

    async def __anext__(self) -> bytes:
        piece = b""
        try:
            while (next_piece := self.take()) is None:
                await self._connection.receive(self._answer)
            piece = next_piece
        finally:
            if not piece:
                self.close()
        if not piece:
            raise StopAsyncIteration
        return piece

    def take(self) -> bytes | None:
        """Give the next piece: empty at the end, ``None`` where it has to be waited for.

        Raises:
            httpx.RemoteProtocolError: it ends too early, or cannot be understood.
        """
        piece = b"" if self._is_over else self._answer.take()
        if piece == b"":
            self.close()
        return piece

    def close(self) -> None:
        """Let the connection go; twice does no harm."""
        if not self._is_over:
            self._is_over = True
            self._leave(self._connection)

    async def aclose(self) -> None:
        self.close()
