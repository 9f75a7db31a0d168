"""A voice server on a real socket, and clients for it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from trio_websocket import ConnectionClosed

from voice_fsm.errors import Upstream
from voice_fsm.runtime.session import Services
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.websocket import open_websocket
from voice_fsm.web.auth import Gate
from voice_fsm.web.serve import serve
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.voice import DoorPolicy, VoiceEndpoint


@attrs.define
class VoiceServer:
    """One that is running."""

    url: str
    endpoint: VoiceEndpoint
    stop: trio.Event

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("ws://").partition("/")[0].rpartition(":")
        return host, int(port)

    def connect(self, **kwargs: Any) -> AbstractAsyncContextManager["Client"]:
        return _connect(self.url, **kwargs)


@attrs.define
class Client:
    """A client that checks ``seq`` as it reads."""

    websocket: UpstreamSocket
    seq: int = 0

    async def send(self, kind: str, **fields: object) -> None:
        await self.websocket.send_message(json.dumps({"type": kind, **fields}))

    async def send_raw(self, frame: str | bytes) -> None:
        await self.websocket.send_message(frame)

    async def receive(self) -> Any:
        """The next event, or binary frame."""
        with trio.fail_after(10):
            frame = await self.websocket.get_message()
        if isinstance(frame, bytes):
            return frame
        event = json.loads(frame)
        self.seq += 1
        assert event["seq"] == self.seq
        return event

    async def until(self, kind: str) -> list[Any]:
        """Everything up to the next event of this type."""
        events = [await self.receive()]
        while isinstance(events[-1], bytes) or events[-1]["type"] != kind:
            events.append(await self.receive())
        return events

    async def configure(self, **fields: object) -> None:
        await self.send("session.configure", **fields)
        await self.until("stt.session_started")

    async def close_code(self) -> int:
        """Read to the end, and tell how the server closed."""
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012  # any of the reads may be the last
            while True:
                await self.receive()
        assert closed.value.reason is not None
        return int(closed.value.reason.code)


@asynccontextmanager
async def _connect(url: str, **kwargs: Any) -> AsyncIterator[Client]:
    async with open_websocket(url, upstream=Upstream.CHAT, **kwargs) as websocket:
        yield Client(websocket)


RunServer = Callable[..., AbstractAsyncContextManager[VoiceServer]]


@asynccontextmanager
async def run_voice_server(
    services: Services,
    policy: DoorPolicy | None = None,
    config: ServeConfig | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[VoiceServer]:
    """Serve the voice door alone, and stop it in bounded time."""
    endpoint = VoiceEndpoint(services, policy or DoorPolicy(), gate)
    app = Starlette(routes=[WebSocketRoute("/v1/voice/ws", endpoint.__call__)])
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            partial(
                serve,
                app,
                config or ServeConfig(port=0, drain_s=3),
                shutdown_trigger=stop.wait,
                draining=services.draining,
            )
        )
        try:
            yield VoiceServer(address.replace("http", "ws", 1) + "/v1/voice/ws", endpoint, stop)
        finally:
            stop.set()


@pytest.fixture
def voice_server() -> RunServer:
    return run_voice_server
