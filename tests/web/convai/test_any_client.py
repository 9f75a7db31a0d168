"""Whatever a client sends, whenever: it is told what is wrong, and the conversation keeps its promises."""

import json
import math
from collections.abc import Sequence
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocket
from trio.testing import MockClock

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.web.convai.conftest import ToolChat
from voice_fsm.runtime.agents import Agent, Agents, AgentTool, HostedAgent
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.convai.endpoint import ConvaiEndpoint
from voice_fsm.web.seats import Seats
from voice_fsm.web.voice import DoorPolicy

LAST_WORDS = "Are you still there?"
SETTLE_S = 200.0
"""Longer than any turn of the script takes."""

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
well_formed: list[dict[str, Any]] = [
    {"type": "conversation_initiation_client_data"},
    {"type": "conversation_initiation_client_data", "conversation_config_override": {"text_only": True}},
    {"type": "user_message", "text": "And then?"},
    {"type": "user_message"},
    {"type": "user_activity"},
    {"type": "contextual_update", "text": "On page 2.", "context_id": "page"},
    {"type": "client_tool_result", "tool_call_id": "t", "result": {"a": 1}},
    {"type": "feedback", "score": "like", "event_id": 1},
    {"type": "multimodal_message", "text": {"type": "user_message", "text": "Look."}},
    {"type": "pong", "event_id": 1},
    {"user_audio_chunk": "AAAAAA=="},
]
messages = st.sampled_from(well_formed)
twisted = st.builds(
    lambda message, key, value: {**message, key: value},
    messages,
    st.sampled_from(sorted({key for message in well_formed for key in message})),
    values,
)
frames = st.one_of(
    messages.map(json.dumps),
    messages.map(json.dumps),
    twisted.map(json.dumps),
    values.map(json.dumps),
    st.text(max_size=40),
    st.binary(max_size=40),
)
happenings = st.sampled_from(["partial", "commit"]).map(lambda what: ("stt", what)) | frames.map(
    lambda frame: ("frame", frame)
)
moves = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.05, 0.4, 4.0]), happenings), max_size=20)


@attrs.define
class Wire:
    """The client's side of an ASGI WebSocket."""

    sent: list[dict[str, Any]] = attrs.field(factory=list)
    closed_with: int | None = None
    _feed: trio.MemorySendChannel[dict[str, Any]] = attrs.field(init=False)
    _frames: trio.MemoryReceiveChannel[dict[str, Any]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._feed, self._frames = trio.open_memory_channel(math.inf)
        self._feed.send_nowait({"type": "websocket.connect"})

    def websocket(self) -> WebSocket:
        scope = {
            "type": "websocket",
            "path": "/",
            "query_string": b"agent_id=a",
            "headers": [],
            "subprotocols": ["convai"],
        }
        return WebSocket(scope, self._frames.receive, self._send)

    def say(self, frame: str | bytes) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        self._feed.send_nowait({"type": "websocket.receive", key: frame})

    def leave(self) -> None:
        self._feed.send_nowait({"type": "websocket.disconnect", "code": 1000})

    async def _send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "websocket.close":
            self.closed_with = message["code"]
            self.leave()
        elif message["type"] == "websocket.send":
            self.sent.append(json.loads(message["text"]))


@attrs.frozen
class Outcome:
    wire: Wire
    leftovers: tuple[int, ...]


async def play(steps: Sequence[tuple[float, tuple[str, Any]]], *, tools: bool) -> Outcome:
    """Let one client do all of it, ask whether the agent is still there, and leave."""
    stt, tts = ScriptedStt(), ScriptedTts(ms_per_char=20)
    chat = ToolChat() if tools else ScriptedChat(lambda _: ["Well, let me see. ", 0.1, "Here it comes. "])
    agent = Agent(
        id="a", first_message="Hello there.", tools=(AgentTool(name="t", timeout_s=1.0),) if tools else ()
    )
    hosted = HostedAgent(agent, Services(stt=stt, chat=chat, tts=tts))
    seats = Seats(1)
    access = AgentAccess(Gate(), TokenMint("secret", 900.0))
    endpoint = ConvaiEndpoint(Agents({"a": hosted}), access, DoorPolicy(), seats)
    wire = Wire()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.__call__, wire.websocket())
        for wait_s, (kind, what) in steps:
            await trio.sleep(wait_s)
            if kind == "frame":
                wire.say(what)
            else:
                stt.say(PartialTranscript("stop") if what == "partial" else CommittedTranscript("stop it"))
        await trio.sleep(SETTLE_S)
        wire.say(json.dumps({"type": "user_message", "text": LAST_WORDS}))
        await trio.sleep(SETTLE_S)
        wire.leave()
    living = trio.lowlevel.current_statistics().tasks_living - tasks
    return Outcome(wire, (living, seats.taken, stt.open_links, chat.open_calls, tts.open_streams))


def check(outcome: Outcome) -> None:
    """Metadata first, errors whole, numbers that rise, nothing stale, and an answer at the end."""
    sent = outcome.wire.sent
    assert outcome.leftovers == (0,) * 5
    refused = sent[0]["type"] == "error"
    assert refused == (outcome.wire.closed_with == 1008)
    assert refused or sent[0]["type"] == "conversation_initiation_metadata"
    assert [message["type"] for message in sent].count("conversation_initiation_metadata") == (not refused)
    interrupted = newest = 0
    last = ""
    for message in sent:
        kind = message.pop("type")
        (body,) = message.values()
        match kind:
            case "error":
                assert body["code"] in {1002, 1008}, body
                assert body["message"].endswith((".", "…")), body
                assert body["reason"] != "internal_error"
            case "interruption":
                assert body["event_id"] > interrupted
                interrupted = body["event_id"]
            case "audio" | "agent_response" | "agent_chat_response_part":
                assert body["event_id"] > interrupted or body.get("type") == "stop", "stale"
                assert body["event_id"] >= newest
                newest = body["event_id"]
            case "conversation_initiation_metadata" | "ping":
                continue
        last = kind
    assert refused or last in {"agent_response", "audio"}
    event("refused" if refused else "served")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves, st.booleans(), st.booleans())
def test_whatever_a_client_does(steps: list[tuple[float, tuple[str, Any]]], opens: bool, tools: bool) -> None:
    """No crash, no leak, no stuck conversation."""
    if opens:
        steps = [(0.0, ("frame", json.dumps(well_formed[0]))), *steps]

    async def run() -> Outcome:
        return await play(steps, tools=tools)

    check(trio.run(run, clock=MockClock(autojump_threshold=0)))
