"""Whatever a client sends, whenever: it is told what is wrong, and the session keeps its promises."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.web.realtime.conftest import Client, make_rig
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript

SETTLE_S = 200.0
"""Longer than any turn of the script takes."""
LAST_WORDS = "Are you still there?"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
SPOKEN_ITEM = "an item of the assistant's"
sessions: list[dict[str, Any]] = [
    {"output_modalities": ["text"]},
    {"output_modalities": ["audio"]},
    {"audio": {"input": {"turn_detection": None}}},
    {"audio": {"input": {"turn_detection": {"type": "server_vad"}, "transcription": {"model": "m"}}}},
    {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "create_response": False}}}},
    {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "interrupt_response": False}}}},
]
well_formed: list[dict[str, Any]] = [
    *({"type": "session.update", "session": {"type": "realtime", **session}} for session in sessions),
    {"type": "input_audio_buffer.append", "audio": "AAAAAA=="},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    *(
        {
            "type": "conversation.item.create",
            "item": {
                "type": "message",
                "role": role,
                "content": [{"type": f"{way}_text", "text": "And then?"}],
            },
        }
        for role, way in (("user", "input"), ("assistant", "output"), ("system", "input"))
    ),
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call_output", "call_id": "c", "output": ""},
    },
    {"type": "conversation.item.truncate", "item_id": SPOKEN_ITEM, "content_index": 0, "audio_end_ms": 100},
    {"type": "conversation.item.retrieve", "item_id": SPOKEN_ITEM},
    {"type": "conversation.item.delete", "item_id": SPOKEN_ITEM},
    {"type": "response.create"},
    {"type": "response.create", "response": {"output_modalities": ["text"]}},
    {"type": "response.cancel"},
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
    messages.map(json.dumps),
    twisted.map(json.dumps),
    values.map(json.dumps),
    st.text(max_size=40),
    st.binary(max_size=40),
)
happenings = st.sampled_from(["partial", "commit"]).map(lambda what: ("stt", what)) | frames.map(
    lambda frame: ("frame", frame)
)
moves = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.05, 0.4, 4.0]), happenings), max_size=25)


@attrs.frozen
class Outcome:
    client: Client
    leftovers: tuple[int, ...]


async def play(steps: Sequence[tuple[float, tuple[str, Any]]]) -> Outcome:
    """Let one client do all of it, ask whether the assistant is still there, and leave."""
    stt, tts = ScriptedStt(), ScriptedTts(ms_per_char=20, per_chunk_s=0.01)
    chat = ScriptedChat(lambda _: ["Well, let me see. ", 0.1, "Here it comes. "])
    rig = make_rig(Services(stt=stt, chat=chat, tts=tts))
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with rig.connect() as client:
        for wait_s, (kind, what) in steps:
            await trio.sleep(wait_s)
            if kind == "frame":
                said = client.of("response.output_item.added")
                item_id = said[-1]["item"]["id"] if said else SPOKEN_ITEM
                client.send_raw(what.replace(SPOKEN_ITEM, item_id) if isinstance(what, str) else what)
            else:
                stt.say(PartialTranscript("stop") if what == "partial" else CommittedTranscript("stop it"))
        await trio.sleep(SETTLE_S)
        client.say(LAST_WORDS)
        client.ask()
        await trio.sleep(SETTLE_S)
    living = trio.lowlevel.current_statistics().tasks_living - tasks
    return Outcome(client, (living, rig.seats.taken, stt.open_links, chat.open_calls, tts.open_streams))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves)
def test_any_client_is_served_to_the_end(steps: list[tuple[float, tuple[str, Any]]]) -> None:
    """No crash, no stuck session, nothing left; the client itself checks the order."""
    outcome = trio.run(play, steps, clock=MockClock(autojump_threshold=0))
    client = outcome.client
    assert outcome.leftovers == (0, 0, 0, 0, 0)
    client.check_over()
    assert client.closed_with in {None, 1000}
    for error in client.of("error"):
        assert error["error"]["message"]
        assert error["error"]["code"] != "internal_error", error
        event(f"error {error['error']['code']}")
    for done in client.of("response.done"):
        event(f"response {done['response']['status']}")
    if client.closed_with is None:
        assert client.events[-1]["response"]["status"] == "completed"
