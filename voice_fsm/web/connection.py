"""One TCP connection: Hypercorn's HTTP/1.1 on it, WebSockets handed to `AsgiWebSocket`, faults kept inside.

What is changed of Hypercorn 0.18, by deriving from it, and why:

- One connection's exception ends the server (its issue 225 needs one byte for that). Here it ends the
  connection, with one line in the log.
- An app that ends while its queue is full waits for itself for ever, with the socket open. Here
  ``http.disconnect`` needs no place in the queue: it closes it.
- A client that left holds its socket here until the keep-alive timer ends. Here it does not.
- A connection is closed over what the client was still sending, and TCP takes the last response back. Here
  the rest is read first, for a while.
- HTTP/2 without TLS is not offered: nobody needs it here.
"""

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Final, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    LifespanState,
    Scope,
)
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp

from voice_fsm.web.pings import Pings
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.websocket import AsgiWebSocket

_log: Final = logging.getLogger("hypercorn.error")


class Connection(TCPServer):
    """Serves one client until it leaves, is too slow, or is cut off."""

    protocol: "_Http1"  # type: ignore[assignment]  # in place of the wrapper that would switch to HTTP/2
    stream: trio.SocketStream  # type: ignore[assignment]  # TLS ends in front of this server

    def __init__(
        self,
        app: ASGIApp,
        stream: trio.SocketStream,
        *,
        config: Config,
        settings: ServeConfig,
        pings: Pings,
        context: WorkerContext,
        lifespan_state: LifespanState,
    ) -> None:
        wrapped = ASGIWrapper(cast(ASGIFramework, app))
        super().__init__(wrapped, config, context, lifespan_state, stream)  # type: ignore[arg-type]  # as above
        self._asgi_app = app
        self._settings = settings
        self._pings = pings

    async def run(self) -> None:
        """Serve the client; whatever goes wrong with it stays here."""
        await self._confine(self._serve)
        await self._confine(self._close)

    async def _confine(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has left
        except* Exception as group:  # noqa: BLE001  # whatever it is, it must not reach the other connections
            _log.warning("connection given up: %s", ", ".join(_describe(error) for error in _leaves(group)))

    def abort(self) -> None:
        """Close the socket under whatever is being done with it, a shielded send too."""
        self.stream.socket.close()

    async def _serve(self) -> None:
        websocket = await self._serve_http()
        if websocket is not None:
            await websocket.run(self._asgi_app)

    async def _serve_http(self) -> AsgiWebSocket | None:
        """Serve requests up to the first that asks for a WebSocket; None: the client has left before."""
        socket = self.stream.socket
        client = parse_socket_addr(socket.family, socket.getpeername())
        server = parse_socket_addr(socket.family, socket.getsockname())
        async with _AppTasks() as self._task_group:
            self.protocol = _Http1(
                self.app,
                self.config,
                self.context,
                self._task_group,
                ConnectionState(self.state.copy()),
                ssl=False,
                client=client,
                server=server,
                send=self.protocol_send,
            )
            await self.idle_task.restart(self._task_group, self._idle_timeout)
            request = await self._read_requests()
        # Its other type is the one that Hypercorn's own WebSockets use.
        http = cast(h11.Connection, self.protocol.connection)
        del self.protocol, self._task_group  # a WebSocket stays for long, and does without them
        if request is None:
            return None
        return AsgiWebSocket(
            self.stream,
            http,
            request,
            config=self.config,
            settings=self._settings,
            pings=self._pings,
            client=client,
            server=server,
            app_state=self.state.copy(),
        )

    async def _read_requests(self) -> h11.Request | None:
        try:
            await self._read_data()
        except _WebSocketRequested as requested:
            return requested.request
        except trio.BusyResourceError:
            pass  # the answer came before all of the request, and `_close` reads the rest already
        await self.idle_task.stop()
        return None

    async def _close(self) -> None:
        """Let the client read our last words: closed over bytes not yet read, TCP would take them back."""
        with (
            trio.move_on_after(self._settings.close_timeout_s),
            suppress(trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError),
        ):
            await self.stream.send_eof()
            while await self.stream.receive_some():
                pass
        await self.stream.aclose()


class OpenConnections:
    """The connections being served, to be awaited and at last cut off."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._one_left = trio.Event()

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, connection: Connection) -> None:
        """Run a connection to its end."""
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
            self._one_left.set()

    async def wait_until_none(self) -> None:
        """Wait until all have ended."""
        while self._open:
            self._one_left = trio.Event()
            await self._one_left.wait()

    def abort(self) -> None:
        """Cut all off; their tasks have yet to be cancelled."""
        for connection in self._open:
            connection.abort()


class _WebSocketRequested(Exception):  # noqa: N818  # no error: it takes the way of Hypercorn's HTTP/2 upgrades
    def __init__(self, request: h11.Request) -> None:
        super().__init__("a request to become a WebSocket")
        self.request = request


class _Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        if _asks_for_websocket(event):
            raise _WebSocketRequested(event)


class _AppTasks(TaskGroup):
    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        to_app, from_client = trio.open_memory_channel[ASGIReceiveEvent](config.max_app_queue_size)

        async def put(event: ASGIReceiveEvent) -> None:
            if event["type"] == "http.disconnect":
                to_app.close()
            else:
                with suppress(trio.ClosedResourceError):  # the app has ended meanwhile
                    await to_app.send(event)

        async def next_event() -> ASGIReceiveEvent:
            try:
                return await from_client.receive()
            except trio.EndOfChannel:
                await trio.lowlevel.checkpoint()
                return {"type": "http.disconnect"}

        async def call(
            scope: Scope,
            receive: ASGIReceiveCallable,  # noqa: ARG001  # of Hypercorn's queue, in whose place ours is
            send: ASGISendCallable,
            sync_spawn: Callable[..., Any],
            call_soon: Callable[..., Any],
        ) -> None:
            await app(scope, next_event, send, sync_spawn, call_soon)

        await super().spawn_app(call, config, scope, send)
        return put


def _asks_for_websocket(request: h11.Request) -> bool:
    if request.method != b"GET":
        return False
    headers = dict(request.headers)  # names are in lower case
    tokens = headers.get(b"connection", b"").lower().split(b",")
    return b"upgrade" in (token.strip() for token in tokens) and (
        headers.get(b"upgrade", b"").lower() == b"websocket"
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _describe(error: BaseException) -> str:
    """Say what was raised and where; its text might quote the client."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name} ({place.filename}:{place.lineno})"
