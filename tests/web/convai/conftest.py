"""The Agents door on a real socket, and clients for it."""

import base64
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

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts, play_script
from voice_fsm.chat.base import ChatRequest, ReplyPart
from voice_fsm.errors import Upstream
from voice_fsm.runtime.agents import Agent, Agents, HostedAgent
from voice_fsm.runtime.conversations import ConversationKeeper
from voice_fsm.runtime.session import Services
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.websocket import open_websocket
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.convai.endpoint import ConvaiEndpoint
from voice_fsm.web.seats import Seats
from voice_fsm.web.serve import serve
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.voice import DoorPolicy


@attrs.define
class Client:
    """A client that holds every conversation to the protocol's rules as it reads."""

    websocket: UpstreamSocket
    interrupted: int = 0
    frames: list[dict[str, Any]] = attrs.field(factory=list)

    async def send(self, kind: str, **fields: object) -> None:
        await self.websocket.send_message(json.dumps({"type": kind, **fields}))

    async def send_raw(self, frame: str | bytes) -> None:
        await self.websocket.send_message(frame)

    async def send_audio(self, pcm: bytes) -> None:
        await self.send_raw(json.dumps({"user_audio_chunk": base64.b64encode(pcm).decode()}))

    async def initiate(self, **override: object) -> dict[str, Any]:
        """Send the first message; the metadata."""
        await self.send("conversation_initiation_client_data", conversation_config_override=override)
        return await self.receive()

    async def receive(self) -> dict[str, Any]:
        """The next event: its body, with its type beside it; pings are answered and passed over."""
        with trio.fail_after(10):
            frame = await self.websocket.get_message()
        assert isinstance(frame, str)
        message: dict[str, Any] = json.loads(frame)
        kind = message.pop("type")
        (body,) = message.values()
        if kind == "ping":
            await self.send("pong", event_id=body["event_id"])
            return await self.receive()
        if kind == "interruption":
            self.interrupted = body["event_id"]
        if kind in {"audio", "agent_response"}:
            assert body["event_id"] > self.interrupted, "stale"
        self.frames.append({**body, "kind": kind})
        return self.frames[-1]

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Everything up to the next event of this kind."""
        events = [await self.receive()]
        while events[-1]["kind"] != kind:
            events.append(await self.receive())
        return events

    async def closed(self) -> tuple[int, str | None]:
        """Read to the end, and tell how the server closed."""
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012  # any of the reads may be the last
            while True:
                await self.receive()
        assert closed.value.reason is not None
        return closed.value.reason.code, closed.value.reason.reason


class ToolChat(ScriptedChat):
    """Says what a tool gave."""

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        assert request.tools is not None
        (tool,) = request.tools.offered
        result = await request.tools.call(tool.name, {"city": "Rome"})
        self.requests.append(request)
        async with play_script([f"{'Error' if result.is_error else 'It'}: {result.text}"]) as parts:
            yield parts


@attrs.define
class AgentServer:
    """One that is running."""

    url: str
    seats: Seats
    access: AgentAccess
    stop: trio.Event

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("ws://").partition("/")[0].rpartition(":")
        return host, int(port)

    @asynccontextmanager
    async def connect(
        self, agent_id: str = "default", query: str = "", **kwargs: Any
    ) -> AsyncIterator[Client]:
        url = f"{self.url}?agent_id={agent_id}{query}"
        async with open_websocket(url, upstream=Upstream.CHAT, **kwargs) as websocket:
            yield Client(websocket)


ServeAgents = Callable[..., AbstractAsyncContextManager[AgentServer]]


@asynccontextmanager
async def serve_agents(
    services: Services,
    *agents: Agent,
    policy: DoorPolicy | None = None,
    gate: Gate | None = None,
    keeper: ConversationKeeper | None = None,
) -> AsyncIterator[AgentServer]:
    """Serve the Agents door alone, and stop it in bounded time."""
    hosted = {agent.id: HostedAgent(agent, services) for agent in agents or (Agent(id="default"),)}
    access = AgentAccess(gate or Gate(), TokenMint("secret", 900.0))
    seats = Seats((policy or DoorPolicy()).max_sessions)
    endpoint = ConvaiEndpoint(Agents(hosted), access, policy or DoorPolicy(), seats, keeper)
    app = Starlette(routes=[WebSocketRoute("/v1/convai/conversation", endpoint.__call__)])
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            partial(
                serve,
                app,
                ServeConfig(port=0, drain_s=3),
                shutdown_trigger=stop.wait,
                draining=services.draining,
            )
        )
        url = address.replace("http", "ws", 1) + "/v1/convai/conversation"
        try:
            yield AgentServer(url, seats, access, stop)
        finally:
            stop.set()


@pytest.fixture
def agent_server() -> ServeAgents:
    return serve_agents


@pytest.fixture
def stt() -> ScriptedStt:
    return ScriptedStt()


@pytest.fixture
def chat() -> ScriptedChat:
    return ScriptedChat(lambda _: ["Hi ", "there!"])


@pytest.fixture
def tts() -> ScriptedTts:
    return ScriptedTts(ms_per_char=10)


@pytest.fixture
def services(stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts) -> Services:
    return Services(stt=stt, chat=chat, tts=tts)
