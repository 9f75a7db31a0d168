"""Serving an ASGI app with Hypercorn on Trio, so that no client hurts another and the end is a clean one.

The order to stop takes these steps, each with a deadline of `ServeConfig`:

1. ``draining`` is set: the app tells its sessions to end.
2. The listeners close, and so do connections that idle between two requests.
3. When the last connection has ended, or after ``drain_s``, what is left is cut off.
4. The app's lifespan ends.

A second signal leads to step 3 at once and cancels the lifespan.

TLS and HTTP/2 are left to a proxy in front.
"""

import logging
import signal
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Final, cast

import attrs
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState
from starlette.types import ASGIApp

from voice_fsm.web.connection import Connection, OpenConnections
from voice_fsm.web.listeners import bind, listen, urls
from voice_fsm.web.pings import Pings
from voice_fsm.web.serve_config import ServeConfig

__all__ = ["STOP_SIGNALS", "AppFactory", "ServeConfig", "Stopping", "serve", "serve_until_signal"]

AppFactory = Callable[[trio.Event], ASGIApp]
"""Makes the app of one process; the event is set when its sessions have to end."""

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_log: Final = logging.getLogger("hypercorn.error")


@attrs.frozen
class Stopping:
    """The orders to stop: to drain, then perhaps to stop at once."""

    everything: trio.CancelScope
    asked: trio.Event = attrs.field(factory=trio.Event)
    """Set by either."""

    def drain(self) -> None:
        """Let conversations end; the same order again says nothing new."""
        self.asked.set()

    def at_once(self) -> None:
        """Wait for nobody."""
        _log.warning("stopping at once")
        self.asked.set()
        self.everything.cancel(reason="an order to stop at once")


async def serve(
    app: ASGIApp,
    config: ServeConfig,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    draining: trio.Event | None = None,
    shared: bool = False,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``shutdown_trigger`` returns, then end as told above; when cancelled, end at once.

    Args:
        app: An ASGI app; it has to speak the lifespan protocol.
        config: Addresses, limits, patience.
        shutdown_trigger: Returns when it is time to stop.
        draining: Set when it is; hand it to the app.
        shared: Other processes serve the same port.
        task_status: Told the URLs, once the app has started and clients can connect.

    Raises:
        OSError: the address cannot be had.
        ExceptionGroup: the app's lifespan failed.
    """
    server = _Server(app, config)
    with ExitStack() as sockets_closed:
        sockets = await bind(config, shared=shared)
        for sock in sockets:
            sockets_closed.callback(sock.close)
        async with server.lifespan(), trio.open_nursery() as handlers:
            handlers.start_soon(server.pings.run)
            try:
                async with trio.open_nursery() as accepting:
                    accept = partial(
                        trio.serve_listeners,
                        server.handle,
                        listen(sockets, config),
                        handler_nursery=handlers,
                    )
                    accepting.start_soon(accept)
                    task_status.started(urls(sockets))
                    await shutdown_trigger()
                    if draining is not None:
                        draining.set()
                    accepting.cancel_scope.cancel(reason="the server stops")
                await server.drain()
            finally:
                server.connections.abort()
                handlers.cancel_scope.cancel(reason="the server stops")


async def serve_until_signal(
    create_app: AppFactory,
    config: ServeConfig,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve in this process until SIGINT or SIGTERM; a second one ends it at once.

    Raises:
        OSError: the address cannot be had.
        ExceptionGroup: the app's lifespan failed.
    """
    draining = trio.Event()
    app = create_app(draining)
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            stopping = Stopping(nursery.cancel_scope)
            nursery.start_soon(_obey, signals, stopping)
            await serve(
                app,
                config,
                shutdown_trigger=stopping.asked.wait,
                draining=draining,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel(reason="the server has ended")


async def _obey(signals: AsyncIterable[int], stopping: Stopping) -> None:
    async for _ in signals:
        if stopping.asked.is_set():
            stopping.at_once()
        else:
            stopping.drain()


class _Server:
    """What all connections of one `serve` share."""

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._config = config
        self._http_config = _hypercorn_config(config)
        self._context = WorkerContext(max_requests=None)
        self._state: LifespanState = {}
        self.connections = OpenConnections()
        self.pings = Pings(config.ws_ping_interval_s)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Start the app, and end it."""
        lifespan = Lifespan(ASGIWrapper(cast(ASGIFramework, self._app)), self._http_config, self._state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            if lifespan.supported and lifespan.shutdown.is_set():
                await trio.sleep_forever()  # the start has failed, and is about to cancel us
            yield
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel(reason="the lifespan has ended")

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        connection = Connection(
            self._app,
            stream,
            config=self._http_config,
            settings=self._config,
            pings=self.pings,
            context=self._context,
            lifespan_state=self._state,
        )
        await self.connections.serve(connection)

    async def drain(self) -> None:
        """Close idle connections, and give the others time to end."""
        await self._context.terminated.set()
        with trio.move_on_after(self._config.drain_s):
            await self.connections.wait_until_none()
        if self.connections:
            _log.warning("%d connections did not end in time and are cut off", len(self.connections))


def _hypercorn_config(config: ServeConfig) -> Config:
    http = Config()
    http.accesslog = None
    http.errorlog = _log
    http.include_server_header = False
    http.keep_alive_timeout = config.keep_alive_s
    http.read_timeout = config.read_timeout_s
    http.startup_timeout = config.startup_s
    http.shutdown_timeout = config.shutdown_s
    return http
