"""The Realtime door without a socket, on Trio's clock, and clients for it."""

import base64
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from starlette.websockets import WebSocket

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.runtime.agents import Agent, Agents, HostedAgent
from voice_fsm.runtime.session import Services
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.realtime.endpoint import RealtimeEndpoint
from voice_fsm.web.seats import Seats
from voice_fsm.web.voice import DoorPolicy

FREE = Agent(id="free", allowed_overrides=("prompt", "voice", "language"))


@attrs.define
class Client:
    """A client that holds every session to the protocol's rules as it reads."""

    scope: dict[str, Any]
    events: list[dict[str, Any]] = attrs.field(factory=list)
    closed_with: int | None = None
    status: int | None = None
    refusal: Any = None
    subprotocol: str | None = None
    _read: int = 0
    _open: dict[str, list[str]] = attrs.field(factory=dict)
    """Responses under way, and the items that each has open."""
    _done: set[str] = attrs.field(factory=set)
    _feed: trio.MemorySendChannel[dict[str, Any]] = attrs.field(init=False)
    _frames: trio.MemoryReceiveChannel[dict[str, Any]] = attrs.field(init=False)
    _told: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._feed, self._frames = trio.open_memory_channel(math.inf)
        self._feed.send_nowait({"type": "websocket.connect"})

    def websocket(self) -> WebSocket:
        return WebSocket(self.scope, self._frames.receive, self._take)

    def send(self, kind: str, **fields: Any) -> None:
        self.send_raw(json.dumps({"type": kind, **fields}))

    def send_raw(self, frame: str | bytes) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        self._feed.send_nowait({"type": "websocket.receive", key: frame})

    def update(self, **session: Any) -> None:
        self.send("session.update", session={"type": "realtime", **session})

    def detect(self, detection: dict[str, Any] | None, **heard: Any) -> None:
        self.update(audio={"input": {"turn_detection": detection, **heard}})

    def append(self, audio: bytes) -> None:
        self.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    def say(self, text: str, role: str = "user", **fields: Any) -> None:
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **fields}
        self.send("conversation.item.create", item=item)

    def ask(self, **response: Any) -> None:
        self.send("response.create", **({"response": response} if response else {}))

    def leave(self) -> None:
        self._feed.send_nowait({"type": "websocket.disconnect", "code": 1000})

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """What came since the last call, up to the next event of this type."""
        start = self._read
        with trio.fail_after(100):
            while not any(event["type"] == kind for event in self.events[self._read :]):
                self._told = trio.Event()
                await self._told.wait()
        while self.events[self._read]["type"] != kind:
            self._read += 1
        self._read += 1
        return self.events[start : self._read]

    async def next(self, kind: str) -> dict[str, Any]:
        return (await self.until(kind))[-1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def check_over(self) -> None:
        assert not self._open, "each response that was created is done"

    async def _take(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "websocket.accept":
                self.subprotocol = message.get("subprotocol")
            case "websocket.close":
                self.closed_with = message["code"]
                self.leave()
            case "websocket.http.response.start":
                self.status = message["status"]
            case "websocket.http.response.body":
                self.refusal = json.loads(message["body"])
            case "websocket.send":
                self._note(json.loads(message["text"]))

    def _note(self, event: dict[str, Any]) -> None:
        kind, response_id = event["type"], event.get("response_id")
        assert self.events or kind == "session.created", "session.created is the first event"
        assert all(event["event_id"] != other["event_id"] for other in self.events[-3:])
        if kind == "response.created":
            assert not self._open, "one response at a time"
            self._open[event["response"]["id"]] = []
        elif kind == "response.done":
            assert self._open.pop(event["response"]["id"]) == [], "an item is left open"
            self._done.add(event["response"]["id"])
        elif response_id is not None:
            assert response_id in self._open, f"{kind} of a response that is not under way"
            items = self._open[response_id]
            if kind == "response.output_item.added":
                items.append(event["item"]["id"])
            elif kind == "response.output_item.done":
                items.remove(event["item"]["id"])
            else:
                assert event["item_id"] in items
        self.events.append(event)
        self._told.set()


@attrs.define
class Rig:
    """The door, scripted upstreams behind it."""

    endpoint: RealtimeEndpoint
    seats: Seats
    services: Services

    @asynccontextmanager
    async def connect(
        self, query: str = "model=free", *, key: str | None = None, offers: tuple[str, ...] = ()
    ) -> AsyncIterator[Client]:
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        scope = {
            "type": "websocket",
            "path": "/v1/realtime",
            "query_string": query.encode(),
            "headers": headers,
            "subprotocols": list(offers),
            "extensions": {"websocket.http.response": {}},
        }
        client = Client(scope)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.endpoint.__call__, client.websocket())
            yield client
            client.leave()


MakeRig = Callable[..., Rig]


def make_rig(
    services: Services, *, gate: Gate | None = None, limit: int = 2, agents: tuple[Agent, ...] = (FREE,)
) -> Rig:
    """The door in front of these services."""
    gate, seats = gate or Gate(), Seats(limit)
    hosted = Agents({agent.id: HostedAgent(agent, services) for agent in agents})
    access = AgentAccess(gate, TokenMint("secret", 900.0))
    endpoint = RealtimeEndpoint(
        services,
        hosted,
        default_agent_id="default",
        gate=gate,
        access=access,
        policy=DoorPolicy(),
        seats=seats,
    )
    return Rig(endpoint, seats, services)


@pytest.fixture
def stt() -> ScriptedStt:
    return ScriptedStt()


@pytest.fixture
def chat() -> ScriptedChat:
    return ScriptedChat(lambda _: ["Hi ", "there!"])


@pytest.fixture
def tts() -> ScriptedTts:
    return ScriptedTts(ms_per_char=100, per_chunk_s=0.01)


@pytest.fixture
def services(stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts) -> Services:
    return Services(stt=stt, chat=chat, tts=tts)


@pytest.fixture
def rig(services: Services) -> Rig:
    return make_rig(services)


Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[Client]:
    """One that has read `session.created`."""
    async with rig.connect() as connected:
        await connected.until("session.created")
        yield connected
    connected.check_over()
    assert rig.seats.taken == 0
