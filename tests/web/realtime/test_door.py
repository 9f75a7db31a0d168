"""The door for OpenAI's Realtime protocol, event by event, with scripted upstreams on Trio's clock."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts, play_script
from tests.web.realtime.conftest import FREE, Client, Rig, make_rig
from voice_fsm.chat.base import ChatRequest, ReplyPart
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm import effects as fx
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import PCM_24K, SessionOptions, SttOptions
from voice_fsm.fsm.turn import Turn
from voice_fsm.runtime.agents import Agent
from voice_fsm.runtime.outgoing import Answer, AudioChunk, SpeechTiming, TextDelta
from voice_fsm.runtime.outgoing import Item as Told
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.tts.base import Alignment
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.realtime.items import Items
from voice_fsm.web.realtime.narration import UNTOLD, Adopted, Narration
from voice_fsm.wire.realtime_session import INITIAL, merged

STORY = "Once upon a time there was a queen, and she had three ships."
SECOND = bytes(48000)
LINKED_S = 0.01
"""Until there is a link with new options."""
ITEM = ["conversation.item.added", "conversation.item.done"]
BEGUN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
ENDED = [
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
SPOKEN = ["response.output_audio.done", "response.output_audio_transcript.done"]


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    """Types in order, runs of deltas as one."""
    found: list[str] = []
    for event in events:
        if not (found and found[-1] == event["type"] and event["type"].endswith("delta")):
            found.append(event["type"])
    return found


async def error_of(client: Client, kind: str, **fields: Any) -> dict[str, Any]:
    client.send(kind, event_id="mine", **fields)
    error: dict[str, Any] = (await client.next("error"))["error"]
    assert error.pop("event_id") == "mine"
    return error


async def speaking(client: Client, text: str = STORY) -> str:
    """Have the assistant speak; the id of its item."""
    client.say("Go on.")
    client.ask()
    await client.until("response.output_audio.delta")
    item_id: str = client.of("response.output_audio.delta")[-1]["item_id"]
    return item_id


async def test_a_text_turn_has_its_events_in_order(
    client: Client, tts: ScriptedTts, autojump_clock: MockClock
) -> None:
    """Nothing is spoken; the items follow each other."""
    client.update(output_modalities=["text"])
    client.say("Say hello!", id="mine")
    client.ask(metadata={"a": "b"})
    events = await client.until("response.done")
    assert kinds(events) == [
        "session.updated",
        *ITEM,
        *BEGUN,
        "response.output_text.delta",
        "response.output_text.done",
        *ENDED,
    ]
    done = events[-1]["response"]
    assert (done["status"], done["metadata"], done["output_modalities"]) == (
        "completed",
        {"a": "b"},
        ["text"],
    )
    assert done["output"][0]["content"] == [{"type": "output_text", "text": "Hi there!"}]
    assert [event["previous_item_id"] for event in events if event["type"] in ITEM] == [
        None,
        None,
        "mine",
        "mine",
    ]
    assert not tts.spoken
    client.ask()
    assert (await client.next("response.done"))["response"]["metadata"] is None


async def test_a_voice_turn_has_its_events_in_order(
    client: Client, stt: ScriptedStt, tts: ScriptedTts, autojump_clock: MockClock
) -> None:
    """Committed, transcribed, answered aloud; done before it has been played."""
    tts.per_chunk_s = 0.01
    client.detect({"type": "semantic_vad"}, transcription={"model": "m"})
    await trio.sleep(LINKED_S)
    stt.say(CommittedTranscript("How are you?"))
    events = await client.until("response.done")
    assert kinds(events)[1:] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        *ITEM,
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        *BEGUN,
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        *SPOKEN,
        *ENDED,
    ]
    audio = b"".join(base64.b64decode(event["delta"]) for event in events if "audio.delta" in event["type"])
    assert len(audio) == len("Hi there!") * 100 * 48
    assert trio.current_time() < 0.9
    assert events[-1]["response"]["output"][0]["content"] == [
        {"type": "output_audio", "transcript": "Hi there!"}
    ]


async def test_an_utterance_without_words_gets_no_response(
    client: Client, stt: ScriptedStt, autojump_clock: MockClock
) -> None:
    """Nor an item, if nobody was told that somebody spoke."""
    await trio.sleep(LINKED_S)
    stt.say(CommittedTranscript(""), CommittedTranscript("Hello."))
    await client.until("response.done")
    assert len(client.of("input_audio_buffer.committed")) == len(client.of("response.done")) == 1


async def test_settings_are_merged_and_shown(
    client: Client, stt: ScriptedStt, autojump_clock: MockClock
) -> None:
    """Only what is named changes; a bad value changes nothing."""
    client.update(
        instructions="Be brief.",
        max_output_tokens=100,
        audio={
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
            }
        },
    )
    await client.until("session.updated")
    client.update(audio={"input": {"turn_detection": {"threshold": 0.6}}, "output": {"speed": 1.2}})
    shown = (await client.next("session.updated"))["session"]
    heard = shown["audio"]["input"]
    assert heard["turn_detection"]["threshold"] == 0.6
    assert heard["turn_detection"]["silence_duration_ms"] == 300
    assert heard["format"] == {"type": "audio/pcmu"}
    assert (shown["instructions"], shown["max_output_tokens"], shown["model"]) == ("Be brief.", 100, "free")
    assert shown["audio"]["output"]["speed"] == 1.2
    for session in ({"audio": {"input": {"turn_detection": 3}}}, {"type": "transcription"}):
        error = await error_of(client, "session.update", session=session)
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
        assert error["param"].startswith("session.")
    client.update(audio={"input": {"turn_detection": None}})
    shown = (await client.next("session.updated"))["session"]
    assert shown["audio"]["input"]["turn_detection"] is None
    assert shown["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert [str(asked.audio_format) for asked in stt.asked][-1] == "ulaw_8000"
    assert [asked.commit_strategy for asked in stt.asked][-1] == "manual"


async def test_instructions_need_permission(
    services: Services, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """Without it the agent's own hold, and the client is shown that its own do not."""
    rig = make_rig(services, agents=(FREE, Agent(id="default", prompt="You are Max.")))
    for model, shown, prompt in (("free", "Be Tim.", "Be Tim."), ("gpt-realtime", "", "You are Max.")):
        async with rig.connect(f"model={model}") as client:
            client.update(instructions="Be Tim.")
            assert (await client.next("session.updated"))["session"]["instructions"] == shown
            client.ask(instructions="Be Tom.")
            await client.until("response.done")
            assert chat.requests[-1].backend.system_prompt == ("Be Tom." if model == "free" else prompt)
            client.say("And now?")
            await trio.sleep(5)
            client.ask()
            await client.until("response.done")
            assert chat.requests[-1].backend.system_prompt == prompt


async def test_push_to_talk(
    client: Client, stt: ScriptedStt, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """Told at once, answered on request, when the words are known; a sample may come in two pieces."""
    client.detect(None)
    client.append(b"123")
    client.append(b"4567")
    client.send("input_audio_buffer.commit")
    client.ask()
    events = await client.until("input_audio_buffer.committed")
    await trio.sleep(1)
    assert not client.of("response.created")
    assert bytes(stt.links[-1].audio) == b"123456"
    stt.say(CommittedTranscript("Good day."))
    events = await client.until("response.done")
    assert chat.requests[-1].text == "Good day."
    assert not [event for event in events if "transcription" in event["type"]]


async def test_a_request_is_withdrawn_before_its_response_begins(
    client: Client, stt: ScriptedStt, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """Then there is none to be cancelled, and none begins."""
    client.detect(None)
    client.append(SECOND)
    client.send("input_audio_buffer.commit")
    client.ask(output_modalities=["text"])
    assert (await error_of(client, "response.cancel"))["code"] == "response_cancel_not_active"
    stt.say(CommittedTranscript("Good day."))
    await trio.sleep(10)
    assert not client.of("response.created")
    client.ask()
    done = (await client.next("response.done"))["response"]
    assert (done["output_modalities"], chat.requests[-1].text) == (["audio"], "Good day.")


def test_speech_that_began_before_the_reply_is_told_again_when_it_interrupts() -> None:
    """A client that stopped its player at the first telling has begun to play again."""
    narration = Narration(Items(), lambda: 1000.0)
    config = merged(INITIAL, {})
    told: list[Any] = []
    for item in (
        Answer(Adopted("session.created", config, SttOptions(), {})),
        fx.TurnStarted(1, "Hello.", "user"),
        fx.SpeechBegan(),
        fx.AudioStarted(1, PCM_24K),
        AudioChunk(1, PCM_24K, SECOND),
        fx.AudioEnded(1, PCM_24K, whole=False),
        fx.TurnInterrupted(1, "speech", "", 0.0),
        fx.TurnEnded(1, "interrupted"),
        TextDelta(1, "late"),
        AudioChunk(2, PCM_24K, SECOND),
        fx.SpeechEnded(),
    ):
        told += narration.tell(item)
    begun = [event.fields["item_id"] for event in told if event.type.endswith("speech_started")]
    assert len(begun) == 2
    assert len(set(begun)) == 1
    assert [event.type for event in told][-2:] == ["response.done", "input_audio_buffer.speech_stopped"]


def test_what_is_kept_from_the_narration_would_have_changed_nothing() -> None:
    """No event is made of what the session does not bring."""
    untold: tuple[Told, ...] = (
        fx.Configured("s", SessionOptions()),
        fx.SttStarted("s", {}),
        fx.StateChanged(source="thinking", target="speaking", input="first_audio", at_ms=1.0),
        fx.PartialHeard("We"),
        fx.ReplyTold(1, "Well.", {}),
        fx.TurnPaused(1, 1.0),
        fx.TurnResumed(1, 1.0),
        Turn(turn_id=1, user_text="", output_format=PCM_24K, started_s=0.0).timed(1.0),
        SpeechTiming(1, Alignment((), (), ())),
    )
    assert {type(item) for item in untold} == UNTOLD
    narration = Narration(Items(), lambda: 1000.0)
    for item in (fx.TurnStarted(1, "Hello.", "user"), fx.AudioStarted(1, PCM_24K), fx.AudioEnded(1, PCM_24K)):
        assert [event for other in untold for event in narration.tell(other)] == []
        list(narration.tell(item))


async def test_what_is_cleared_was_not_said(
    client: Client, stt: ScriptedStt, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """Whatever the recogniser still makes of it; the next utterance has its own words."""
    client.detect(None, transcription={"model": "m"})
    client.append(SECOND)
    client.send("input_audio_buffer.clear")
    await trio.sleep(LINKED_S)
    stt.say(PartialTranscript("nev"))
    client.append(SECOND)
    client.send("input_audio_buffer.commit")
    item_id = (await client.next("input_audio_buffer.committed"))["item_id"]
    stt.say(CommittedTranscript("Never mind."), CommittedTranscript("Good day."))
    completed = await client.next("conversation.item.input_audio_transcription.completed")
    assert (completed["item_id"], completed["transcript"]) == (item_id, "Good day.")
    assert (await error_of(client, "input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"
    client.ask()
    await client.until("response.done")
    assert chat.requests[-1].text == "Good day."


async def test_a_recogniser_that_is_gone_is_told(
    client: Client, stt: ScriptedStt, autojump_clock: MockClock
) -> None:
    """Also of utterances that it had not answered; typing works on."""
    client.detect(None)
    client.append(SECOND)
    client.send("input_audio_buffer.commit")
    await client.until("input_audio_buffer.committed")
    stt.say(ProviderError(Upstream.STT, ProviderFault.AUTH_FAILED, "No."))
    assert (await client.next("error"))["error"]["type"] == "server_error"
    await client.until("conversation.item.input_audio_transcription.failed")
    client.append(SECOND)
    client.send("input_audio_buffer.commit")
    await client.until("conversation.item.input_audio_transcription.failed")
    client.say("Hello.")
    client.ask()
    assert (await client.next("response.done"))["response"]["status"] == "completed"


@pytest.mark.parametrize("create", [True, False])
async def test_create_response(
    client: Client, stt: ScriptedStt, chat: ScriptedChat, create: bool, autojump_clock: MockClock
) -> None:
    """Speech is answered unasked, with what was typed before, or kept until it is asked for."""
    client.detect({"type": "semantic_vad", "create_response": create})
    client.say("I am Ann.")
    await trio.sleep(LINKED_S)
    stt.say(CommittedTranscript("Who are you?"))
    await client.until("input_audio_buffer.committed")
    await trio.sleep(5)
    assert len(client.of("response.done")) == create
    if not create:
        client.ask()
    await client.until("response.done")
    assert chat.requests[-1].text == "I am Ann. Who are you?"


async def test_words_interrupt(
    client: Client, stt: ScriptedStt, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """Speech is told, then the end of the response; the client may tell what of it was heard."""
    chat.script = lambda _: [STORY]
    client.detect({"type": "semantic_vad"})
    item_id = await speaking(client)
    await trio.sleep(0.2)
    stt.say(PartialTranscript("no wait"))
    events = await client.until("response.done")
    assert kinds(events)[-7:] == ["input_audio_buffer.speech_started", *SPOKEN, *ENDED]
    done = events[-1]["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=500)
    await client.until("conversation.item.truncated")
    stt.say(CommittedTranscript("No, wait."))
    await client.until("response.done")
    assert chat.requests[-1].history[-1] == Exchange("Go on.", "Once", interrupted=True)


async def test_nothing_interrupts_where_it_is_not_wanted(
    client: Client, stt: ScriptedStt, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """``interrupt_response`` false."""
    chat.script = lambda _: [STORY]
    client.detect({"type": "semantic_vad", "interrupt_response": False})
    await speaking(client)
    stt.say(PartialTranscript("no wait"), CommittedTranscript("No, wait."))
    assert (await client.next("response.done"))["response"]["status"] == "completed"


async def test_a_response_under_way_is_cancelled(
    client: Client, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """By its id or without; a second one is refused meanwhile."""
    chat.script = lambda _: [STORY]
    await speaking(client)
    running = client.of("response.created")[-1]["response"]["id"]
    assert (await error_of(client, "response.create"))["code"] == "conversation_already_has_active_response"
    error = await error_of(client, "response.cancel", response_id="resp_other")
    assert error["code"] == "response_cancel_not_active"
    client.send("response.cancel", response_id=running)
    done = (await client.next("response.done"))["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert (await error_of(client, "response.cancel"))["code"] == "response_cancel_not_active"


async def test_what_is_still_playing_can_be_truncated(
    client: Client, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """The response is done; the next knows how much of it was heard."""
    item_id = await speaking(client)
    await client.until("response.done")
    for fields in (
        {"item_id": item_id, "audio_end_ms": 99999},
        {"item_id": item_id, "audio_end_ms": 10, "content_index": 1},
        {"item_id": client.of("conversation.item.added")[0]["item"]["id"], "audio_end_ms": 1},
    ):
        error = await error_of(client, "conversation.item.truncate", **{"content_index": 0, **fields})
        assert error["code"] == "invalid_value"
    client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=500)
    await client.until("conversation.item.truncated")
    client.send("conversation.item.retrieve", item_id=item_id)
    item = (await client.next("conversation.item.retrieved"))["item"]
    assert item["content"] == [{"type": "output_audio"}]
    client.ask()
    await client.until("response.done")
    assert chat.requests[-1].history == (Exchange("Go on.", "Hi", interrupted=True),)


async def test_a_new_response_may_begin_while_one_is_playing(
    client: Client, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """What was sent counts as heard."""
    await speaking(client)
    await client.until("response.done")
    client.say("And then?")
    client.ask(output_modalities=["text"])
    events = await client.until("response.done")
    assert "response.output_text.done" in kinds(events)
    assert chat.requests[-1].history == (Exchange("Go on.", "Hi there!"),)


async def test_a_conversation_is_put_in(
    client: Client, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """Earlier messages of both sides, and what the system says, which is data."""
    client.say("Who are you?")
    client.say("I am Max.", "assistant")
    client.say("The user is on page 2.", "system")
    client.say("And I?")
    client.ask()
    await client.until("response.done")
    request = chat.requests[-1]
    assert request.history == (Exchange("Who are you?", "I am Max."),)
    assert (request.context, request.text) == (("The user is on page 2.",), "And I?")


async def test_items_have_their_places(client: Client, autojump_clock: MockClock) -> None:
    """After another or first; ids are unique; none can be deleted."""
    for item_id, place in (
        ("a", {}),
        ("b", {}),
        ("c", {"previous_item_id": "a"}),
        ("d", {"previous_item_id": "root"}),
    ):
        item = {"id": item_id, "type": "message", "role": "user", "content": []}
        client.send("conversation.item.create", item=item, **place)
        await client.until("conversation.item.done")
    places = {event["item"]["id"]: event["previous_item_id"] for event in client.of("conversation.item.done")}
    assert places == {"a": None, "b": "a", "c": "a", "d": None}
    for kind, fields, code in (
        ("conversation.item.create", {"item": item}, "invalid_value"),
        ("conversation.item.create", {"item": {**item, "id": "e"}, "previous_item_id": "x"}, "invalid_value"),
        ("conversation.item.retrieve", {"item_id": "e"}, "item_retrieve_invalid_item_id"),
        ("conversation.item.delete", {"item_id": "e"}, "item_delete_invalid_item_id"),
        ("conversation.item.delete", {"item_id": "a"}, "item_delete_not_supported"),
        ("output_audio_buffer.clear", {}, "invalid_event"),
    ):
        assert (await error_of(client, kind, **fields))["code"] == code


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "message", "content": []}, "item.role"),
        ({"type": "message", "role": "user", "content": [{"type": "input_image"}]}, "item.content.0.type"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio"}]},
            "item.content.0.transcript",
        ),
        ({"type": "message", "role": "system", "content": [{"type": "input_text"}]}, "item.content.0.text"),
        ({"type": "function_call_output", "output": "x"}, "item.call_id"),
        ({"type": "function_call", "name": "x", "call_id": "c"}, "item.arguments"),
        ({"type": "mcp_call"}, "item.type"),
    ],
)
async def test_items_that_cannot_be_read_are_refused(
    client: Client, item: dict[str, Any], param: str, autojump_clock: MockClock
) -> None:
    """With the path of what is wrong."""
    error = await error_of(client, "conversation.item.create", item=item)
    assert (error["code"], error["param"]) == ("invalid_value", param)


@pytest.mark.parametrize("frame", [b"{}", "{", "[]", "{}", '{"type": 5}', '{"type": "response.done"}'])
async def test_frames_that_are_no_events_are_refused(
    client: Client, frame: str | bytes, autojump_clock: MockClock
) -> None:
    """And the session goes on."""
    client.send_raw(frame)
    assert (await client.next("error"))["error"]["code"] == "invalid_event"
    client.ask()
    assert (await client.next("response.done"))["response"]["status"] == "completed"


async def test_a_response_that_fails_says_why(
    client: Client, chat: ScriptedChat, autojump_clock: MockClock
) -> None:
    """In its last event, and in no other."""
    chat.script = lambda _: ["Well, ", ProviderError(Upstream.CHAT, ProviderFault.SERVER_ERROR, "It broke.")]
    client.ask()
    done = (await client.next("response.done"))["response"]
    assert done["status_details"]["error"] == {
        "type": "server_error",
        "code": "chat_server_error",
        "message": "It broke.",
    }
    assert not client.of("error")


async def test_a_silence_is_broken(client: Client, autojump_clock: MockClock) -> None:
    """``idle_timeout_ms``."""
    client.detect({"type": "server_vad", "idle_timeout_ms": 5000})
    events = await client.until("response.done")
    assert kinds(events)[1:3] == ["input_audio_buffer.timeout_triggered", "input_audio_buffer.committed"]
    assert trio.current_time() > 5


async def test_the_session_ends_when_it_is_long_enough(services: Services, autojump_clock: MockClock) -> None:
    """Told, then closed."""
    limits = attrs.evolve(services.limits, session_s=50, idle_s=1000)
    async with make_rig(attrs.evolve(services, limits=limits)).connect() as client:
        assert (await client.next("error"))["error"]["code"] == "session_expired"
        await trio.sleep(1)
        assert client.closed_with == 1000


async def test_a_transcription_session_makes_no_responses(
    rig: Rig, stt: ScriptedStt, autojump_clock: MockClock
) -> None:
    """It only tells what was said."""
    async with rig.connect("intent=transcription") as client:
        session = (await client.next("session.created"))["session"]
        assert (session["type"], "output_modalities" in session) == ("transcription", False)
        await trio.sleep(LINKED_S)
        stt.say(CommittedTranscript("Good day."))
        await client.until("conversation.item.input_audio_transcription.completed")
        await trio.sleep(5)
        assert not client.of("response.created")
        assert (await error_of(client, "response.create"))["code"] == "invalid_event"


# --- functions --------------------------------------------------------------------------------------


class AskingChat(ScriptedChat):
    """Wants the weather before it says anything."""

    name = "openai"

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        self.requests.append(request)
        assert request.tools is not None
        (tool,) = request.tools.offered
        result = await request.tools.call(tool.name, {"city": "Rome"})
        async with play_script([f"It {result.text}."]) as parts:
            yield parts


TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}]


async def test_a_function_is_called(services: Services, autojump_clock: MockClock) -> None:
    """One response ends with the call; with its output the model goes on in another."""
    async with make_rig(attrs.evolve(services, chat=AskingChat())).connect() as client:
        client.update(tools=TOOLS, output_modalities=["text"])
        client.ask()
        events = await client.until("response.done")
        (call,) = events[-1]["response"]["output"]
        assert (call["type"], call["name"], json.loads(call["arguments"])) == (
            "function_call",
            "weather",
            {"city": "Rome"},
        )
        assert kinds(events)[2:] == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            *ENDED[1:],
        ]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rains"}
        client.send("conversation.item.create", item=output)
        await trio.sleep(5)
        assert len(client.of("response.created")) == 1
        client.ask()
        done = (await client.next("response.done"))["response"]
        assert done["output"][0]["content"][0]["text"] == "It rains."
        client.send("conversation.item.create", item={**output, "call_id": "call_of_old"})
        client.update(tool_choice="none")
        await client.until("session.updated")


async def test_an_output_for_a_turn_that_was_stopped_is_for_the_next(
    services: Services, autojump_clock: MockClock
) -> None:
    """The response that the client asks for begins all the same."""
    chat = AskingChat()
    async with make_rig(attrs.evolve(services, chat=chat)).connect() as client:
        client.update(tools=TOOLS)
        client.ask()
        (call,) = (await client.next("response.done"))["response"]["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rains"}
        client.send("conversation.item.create", item=output)
        client.send("response.cancel")
        await trio.sleep(1)
        client.ask()
        await client.until("response.done")
        assert chat.requests[-1].context == ("rains",)


async def test_an_output_that_does_not_come_is_not_waited_for_for_ever(
    services: Services, autojump_clock: MockClock
) -> None:
    """The model is told, and says so."""
    async with make_rig(attrs.evolve(services, chat=AskingChat())).connect() as client:
        client.update(tools=TOOLS, output_modalities=["text"])
        client.ask()
        await client.until("response.done")
        assert (
            "in time" in (await client.next("response.done"))["response"]["output"][0]["content"][0]["text"]
        )


async def test_functions_need_a_chat_that_can_call_them(client: Client, autojump_clock: MockClock) -> None:
    """Refused whole."""
    error = await error_of(client, "session.update", session={"tools": TOOLS})
    assert error["code"] == "tools_not_supported"


# --- getting in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "key", "offers", "status"),
    [
        ("", None, (), 401),
        ("", "wrong", (), 401),
        ("", None, ("realtime", "openai-insecure-api-key.wrong"), 401),
        ("", "key", (), None),
        ("", None, ("realtime", "openai-insecure-api-key.key"), None),
        ("model=private", "key", (), None),
        ("call_id=rtc_1", "key", (), 400),
    ],
)
async def test_keys(
    services: Services,
    autojump_clock: MockClock,
    query: str,
    key: str | None,
    offers: tuple[str, ...],
    status: int | None,
) -> None:
    """Without one there is no upgrade."""
    rig = make_rig(services, gate=Gate(("key",)), agents=(Agent(id="private", private=True),))
    async with rig.connect(query, key=key, offers=offers) as client:
        await trio.sleep(1)
        assert client.status == status
        assert len(client.events) == (status is None)
        assert client.subprotocol == ("realtime" if offers and not status else None)
    if status == 401:
        assert client.refusal["error"]["code"] == "invalid_api_key"


async def test_a_token_opens_once(services: Services, autojump_clock: MockClock) -> None:
    """As a browser shows it."""
    mint = TokenMint("secret", 60)
    rig, token = make_rig(services, gate=Gate(("key",), mint)), mint.issue("realtime")
    for status in (None, 401):
        async with rig.connect(offers=("realtime", f"openai-insecure-api-key.ek_{token}")) as client:
            await trio.sleep(1)
            assert client.status == status


async def test_private_agents_and_full_houses(services: Services, autojump_clock: MockClock) -> None:
    """Where nobody is asked for a key a private agent is for nobody; a last seat is the last."""
    rig = make_rig(services, agents=(Agent(id="private", private=True),), limit=1)
    async with rig.connect("model=private") as client:
        await trio.sleep(1)
        assert client.status == 401
    async with rig.connect("model=any") as first:
        await first.until("session.created")
        async with rig.connect("model=any") as second:
            await trio.sleep(1)
        assert (second.status, second.refusal["error"]["code"]) == (503, "overloaded")
