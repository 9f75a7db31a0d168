import base64
from typing import Any

import attrs
import pytest
import trio

from tests.fakes import recordings
from tests.fakes.asgi import RawWebSocket, upgrade_request
from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.web.convai.conftest import ServeAgents, ToolChat
from voice_fsm.audio import AudioFormat
from voice_fsm.chat.base import ChatRequest
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.runtime.agents import Agent, AgentTool
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.web.auth import Gate
from voice_fsm.web.convai import opening
from voice_fsm.web.voice import DoorPolicy
from voice_fsm.wire.convai import AUDIO_FORMATS
from voice_fsm.wire.voice import SttPatch, TtsPatch

LONG = "It was the best of times, it was the worst of times. " * 4


def kinds(events: list[dict[str, object]]) -> list[str]:
    names = [str(event["kind"]) for event in events]
    return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]


async def test_a_spoken_turn_comes_in_the_protocols_order(
    services: Services, stt: ScriptedStt, agent_server: ServeAgents
) -> None:
    """Metadata first; then transcript, reply and audio of one turn carry its number."""
    async with agent_server(services) as server, server.connect() as client:
        metadata = await client.initiate()
        assert metadata["kind"] == "conversation_initiation_metadata"
        assert metadata["conversation_id"].startswith("conv_")
        assert metadata["agent_output_audio_format"] == metadata["user_input_audio_format"] == "pcm_16000"
        await client.send_audio(b"\1\0" * 1600)
        with trio.fail_after(5):
            while not stt.links or len(stt.links[0].audio) < 3200:
                await trio.sleep(0.01)
        assert bytes(stt.links[0].audio) == b"\1\0" * 1600
        stt.say(PartialTranscript("hello wor"), CommittedTranscript("hello world"))
        events = await client.until("agent_response")
        audio = b""
        while len(audio) < 16 * 2 * 90:
            event = await client.receive()
            assert (event["kind"], event["event_id"]) == ("audio", 1)
            assert "alignment" not in event
            audio += base64.b64decode(event["audio_base_64"])
        assert audio == b"\7" * 16 * 2 * 90
    by_kind = {event["kind"]: event for event in events}
    assert by_kind["tentative_user_transcript"]["user_transcript"] == "hello wor"
    assert by_kind["user_transcript"]["user_transcript"] == "hello world"
    assert by_kind["agent_response"]["agent_response"] == "Hi there!"
    assert {event["event_id"] for event in events} == {1}


@pytest.mark.parametrize("name", AUDIO_FORMATS)
async def test_an_agent_speaks_and_hears_any_format_of_the_protocol(
    services: Services, stt: ScriptedStt, agent_server: ServeAgents, name: str
) -> None:
    """The metadata names it, audio comes in it, and the microphone's is taken for it."""
    audio_format = AudioFormat.parse(name)
    agent = Agent(id="a", stt=SttPatch(audio_format=audio_format), tts=TtsPatch(output_format=audio_format))
    async with agent_server(services, agent) as server, server.connect("a") as client:
        metadata = await client.initiate()
        assert metadata["agent_output_audio_format"] == metadata["user_input_audio_format"] == name
        await client.send_audio(b"\1\2" * 80)
        await client.send("user_message", text="hello")
        size = 0
        while size < audio_format.size_bytes(90):
            event = await client.receive()
            size += len(base64.b64decode(event.get("audio_base_64", "")))
        assert size == audio_format.size_bytes(90)
        with trio.fail_after(5):
            while len(stt.links[0].audio) < 160:
                await trio.sleep(0.01)
    assert stt.links[0].config == {"format": name}


async def test_who_speaks_over_the_agent_is_told_what_was_heard(
    services: Services, stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts, agent_server: ServeAgents
) -> None:
    """Interruption, correction, then the new turn with a higher number; of the old one nothing more."""
    chat.script = lambda request: [LONG] if request.turn_id == 1 else ["Very well."]
    tts.ms_per_char = 50
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send("user_message", text="Tell me.")
        await client.until("audio")
        await trio.sleep(0.4)
        stt.say(PartialTranscript("stop"))
        events = await client.until("interruption")
        assert events[-1]["event_id"] == 1
        (correction,) = await client.until("agent_response_correction")
        assert correction["event_id"] == 1
        assert correction["original_agent_response"] == LONG
        heard = correction["corrected_agent_response"]
        assert LONG.startswith(heard)
        assert len(heard) < len(LONG) / 2
        stt.say(CommittedTranscript("stop it"))
        events = await client.until("audio")
        assert kinds(events)[-3:] == ["user_transcript", "agent_response", "audio"]
        assert {event["event_id"] for event in events} == {2}
        assert chat.requests[1].history[0].assistant == heard


async def test_a_reply_that_is_cut_short_while_it_is_written_is_told_before_it_is_corrected(
    services: Services, chat: ScriptedChat, tts: ScriptedTts, agent_server: ServeAgents
) -> None:
    """A client can only correct what it has been told."""
    chat.script = lambda _: [LONG, 60.0]
    tts.ms_per_char = 20
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send("user_message", text="Tell me.")
        await client.until("audio")
        await trio.sleep(0.5)
        await client.send("user_message", text="No.")
        events = await client.until("agent_response_correction")
        assert kinds(events)[-3:] == ["agent_response", "interruption", "agent_response_correction"]
        assert events[-3]["agent_response"] == LONG


async def test_a_message_while_the_agent_thinks_is_answered_together_with_the_one_before(
    services: Services, chat: ScriptedChat, agent_server: ServeAgents
) -> None:
    """Nothing was heard yet: one turn answers both, and its number is the next one."""
    chat.script = lambda request: [60.0] if request.turn_id == 1 else ["Both."]
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send("user_message", text="One.")
        with trio.fail_after(5):
            while not chat.requests:
                await trio.sleep(0.01)
        await client.send("user_message", text="Two.")
        response = (await client.until("agent_response"))[-1]
        assert (response["agent_response"], response["event_id"]) == ("Both.", 2)
        assert chat.requests[1].text == "One. Two."


async def test_a_written_conversation_has_no_sound_and_asks_no_engine(
    services: Services, stt: ScriptedStt, tts: ScriptedTts, agent_server: ServeAgents
) -> None:
    """Text-only: the reply's parts as they are written, then the whole; in both clients' spellings."""
    for override in ({"text_only": True}, {"conversation": {"text_only": True}, "agent": {}, "tts": {}}):
        async with agent_server(services) as server, server.connect() as client:
            await client.initiate(**override)
            await client.send("user_message", text="Hello?")
            events = await client.until("agent_response")
            assert [(event["kind"], event.get("type"), event.get("text")) for event in events] == [
                ("agent_chat_response_part", "start", ""),
                ("agent_chat_response_part", "delta", "Hi "),
                ("agent_chat_response_part", "delta", "there!"),
                ("agent_chat_response_part", "stop", ""),
                ("agent_response", None, None),
            ]
            assert events[-1]["agent_response"] == "Hi there!"
            await client.send("user_message", text="And now?")
            assert (await client.until("agent_response"))[-1]["event_id"] == 2
        services = Services(
            stt=services.stt, chat=services.chat, tts=services.tts
        )  # the first server has drained
    assert (stt.links, tts.spoken) == ([], [])


async def test_the_first_message_is_the_agents_or_the_clients(
    services: Services, chat: ScriptedChat, agent_server: ServeAgents
) -> None:
    """Spoken as turn 1, with variables filled in; an empty one leaves the first word to the user."""
    agent = Agent(id="a", first_message="Hello {{ name }}!", dynamic_variables={"name": "you"})
    async with agent_server(services, agent) as server:
        async with server.connect("a") as client:
            await client.initiate()
            events = await client.until("audio")
            assert events[0]["agent_response"] == "Hello you!"
            assert {event["event_id"] for event in events} == {1}
        async with server.connect("a") as client:
            await client.send("conversation_initiation_client_data", dynamic_variables={"name": "Ada"})
            assert (await client.until("agent_response"))[-1]["agent_response"] == "Hello Ada!"
        async with server.connect("a") as client:
            await client.initiate(agent={"first_message": "Good day."})
            assert (await client.until("agent_response"))[-1]["agent_response"] == "Good day."
        async with server.connect("a") as client:
            await client.initiate(agent={"first_message": ""})
            await client.send("user_message", text="hello")
            assert (await client.until("agent_response"))[-1]["agent_response"] == "Hi there!"
    assert [request.cause for request in chat.requests] == ["user"]


async def test_overrides_reach_the_services_where_the_agent_allows_them(
    services: Services, chat: ScriptedChat, agent_server: ServeAgents
) -> None:
    """Prompt and model as the client says; without a word of its own, as the agent says."""
    agent = Agent(
        id="a", prompt="You are {{role}}.", allowed_overrides=("prompt", "llm", "voice", "language")
    )
    async with agent_server(services, agent) as server:
        async with server.connect("a") as client:
            await client.send(
                "conversation_initiation_client_data",
                conversation_config_override={
                    "agent": {"prompt": {"prompt": "Be {{role}}.", "llm": "big"}, "language": "de"},
                    "tts": {"voice_id": "v", "speed": 1.2},
                },
                dynamic_variables={"role": 7},
            )
            await client.receive()
            await client.send("user_message", text="hello")
            await client.until("agent_response")
        backend = chat.requests[-1].backend
        assert (backend.system_prompt, backend.model) == ("Be 7.", "big")


@pytest.mark.parametrize(
    ("initiation", "error_type", "reason", "field"),
    [
        (
            {"conversation_config_override": {"agent": {"prompt": {"prompt": "Obey."}}}},
            "override_error",
            "override_not_allowed",
            "conversation_config_override.agent.prompt.prompt",
        ),
        (
            {"custom_llm_extra_body": {"a": 1}},
            "override_error",
            "override_not_allowed",
            "custom_llm_extra_body",
        ),
        (
            {"conversation_config_override": {"tts": {"speed": 99}}},
            "value_error",
            "invalid_field",
            "conversation_config_override.tts.speed",
        ),
        ({}, "missing_dynamic_variable", "missing_variable", "dynamic_variables.name"),
    ],
)
async def test_what_cannot_be_had_is_told_and_closed(
    services: Services,
    agent_server: ServeAgents,
    initiation: dict[str, object],
    error_type: str,
    reason: str,
    field: str,
) -> None:
    """An error event with the field's path, then 1008 with the same sentence."""
    agent = Agent(id="a", first_message="Hello {{name}}.")
    async with agent_server(services, agent) as server, server.connect("a") as client:
        await client.send("conversation_initiation_client_data", **initiation)
        error = await client.receive()
        assert (error["code"], error["error_type"], error["reason"]) == (1008, error_type, reason)
        assert error["details"]["field"] == field
        assert await client.closed() == (1008, error["message"])


async def test_an_agent_that_is_not_there(services: Services, agent_server: ServeAgents) -> None:
    """The client is told before it says anything."""
    async with agent_server(services) as server, server.connect("nobody") as client:
        assert (await client.receive())["reason"] == "unknown_agent"
        assert (await client.closed())[0] == 1008


async def test_a_private_agent_takes_a_signed_url_once_or_a_key(
    services: Services, agent_server: ServeAgents
) -> None:
    """No signature, a wrong one, another agent's and a used one are refused."""
    secret, other = Agent(id="secret", private=True), Agent(id="other", private=True)
    async with agent_server(services, secret, other, gate=Gate(("key",))) as server:
        good = f"&conversation_signature={server.access.sign(secret)}"
        async with server.connect("secret", good) as client:
            assert (await client.initiate())["kind"] == "conversation_initiation_metadata"
        async with server.connect("secret", headers=[("xi-api-key", "key")]) as client:
            assert (await client.initiate())["kind"] == "conversation_initiation_metadata"
        foreign = f"&conversation_signature={server.access.sign(other)}"
        for query in ("", "&conversation_signature=x", foreign, good):
            async with server.connect("secret", query) as client:
                assert (await client.receive())["reason"] == "unauthorized"
                assert (await client.closed())[0] == 1008


async def test_the_subprotocol_is_selected_where_it_is_offered(
    services: Services, agent_server: ServeAgents
) -> None:
    """The JavaScript client insists on it, and offers a bearer beside it that is never selected."""
    async with agent_server(services) as server:
        for offered, selected in (("bearer.x, convai", b"convai"), ("bearer.x", None), (None, None)):
            stream = await trio.open_tcp_stream(*server.address)
            async with stream:
                header = f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else ""
                await stream.send_all(upgrade_request(header, "/v1/convai/conversation?agent_id=default"))
                head = await RawWebSocket(stream).read_head()
            assert head.startswith(b"HTTP/1.1 101 ")
            found = [
                line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-protocol")
            ]
            assert [line.partition(b": ")[2] for line in found] == ([selected] if selected else [])


async def test_what_comes_early_is_not_lost(
    services: Services, stt: ScriptedStt, agent_server: ServeAgents
) -> None:
    """Audio before the first message is heard after it."""
    async with agent_server(services) as server, server.connect() as client:
        await client.send("enclave_setup_config", anything={"at": "all"})
        await client.send_audio(b"\5\0" * 100)
        await client.initiate()
        with trio.fail_after(5):
            while not stt.links or len(stt.links[0].audio) < 200:
                await trio.sleep(0.01)


async def test_a_client_that_says_nothing_gets_the_agent_as_it_is(
    services: Services, agent_server: ServeAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the metadata comes by itself; a first message that is late changes nothing."""
    monkeypatch.setattr(opening, "INITIATION_S", 0.1)
    async with agent_server(services) as server, server.connect() as client:
        assert (await client.receive())["kind"] == "conversation_initiation_metadata"
        await client.send("conversation_initiation_client_data")
        assert (await client.receive())["reason"] == "out_of_order"
        await client.send("user_message", text="hello")
        await client.until("agent_response")


@pytest.mark.parametrize(
    ("frame", "error_type", "field"),
    [
        ("not json", "invalid_message", None),
        ("[]", "invalid_message", None),
        ("{}", "invalid_message", None),
        ('{"user_audio_chunk": 5}', "value_error", "user_audio_chunk"),
        ('{"user_audio_chunk": "%%%"}', "value_error", "user_audio_chunk"),
        ('{"user_audio_chunk": "AA=="}', "value_error", None),
        ('{"type": "pong"}', "value_error", "event_id"),
        ('{"type": "user_message", "text": 1}', "value_error", "text"),
        (f'{{"type": "user_message", "text": "{"x" * 9000}"}}', "value_error", "text"),
        ('{"type": "contextual_update"}', "value_error", "text"),
        ('{"type": "multimodal_message", "files": [{"file_id": "f"}]}', "value_error", "files"),
        (b"\0\0", "invalid_message", None),
    ],
)
async def test_a_violation_is_told_and_the_conversation_lives(
    services: Services, agent_server: ServeAgents, frame: str | bytes, error_type: str, field: str | None
) -> None:
    """Each wrong frame gets an error with its kind and field; the next right one is served."""
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send_raw(frame)
        error = await client.receive()
        assert (error["kind"], error["error_type"], error["details"]["field"]) == ("error", error_type, field)
        await client.send("user_message", text="Still there?")
        await client.until("agent_response")


async def test_what_means_nothing_here_is_passed_over(
    services: Services, chat: ScriptedChat, agent_server: ServeAgents
) -> None:
    """Blank messages, activity, feedback and types of the future are no errors."""
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send("user_message")
        await client.send("user_message", text=" ")
        await client.send("user_activity")
        await client.send("feedback", score="like", event_id=1)
        await client.send("feedback", score=None)
        await client.send("client_tool_result", tool_call_id="t", result={"any": "thing"})
        await client.send("mcp_tool_approval_result", tool_call_id="m", is_approved=True)
        await client.send("multimodal_message", text={"type": "user_message", "text": "Look."})
        (response,) = await client.until("agent_response")
        assert response["event_id"] == 1
        assert [request.text for request in chat.requests] == ["Look."]


async def test_context_reaches_the_chat_as_data(
    services: Services, chat: ScriptedChat, agent_server: ServeAgents
) -> None:
    """Updates go with the next question; one with the id of another replaces it."""

    def context(request: ChatRequest) -> tuple[str, ...]:
        return request.context

    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send("contextual_update", text="On page 1.", context_id="page")
        await client.send("contextual_update", text="Cart is empty.")
        await client.send("contextual_update", text="On page 2.", context_id="page")
        await client.send("user_message", text="hello")
        await client.until("agent_response")
    assert context(chat.requests[0]) == ("Cart is empty.", "On page 2.")


def tool_agent(**fields: Any) -> Agent:
    return Agent(id="t", tools=(AgentTool(name="weather", **fields),))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"result": "It rains.", "is_error": False}, "It: It rains."),
        ({"result": {"rain": [True, 1.5]}}, 'It: {"rain": [true, 1.5]}'),
        ({"result": "No network.", "is_error": True}, "Error: No network."),
    ],
)
async def test_a_tool_of_the_front_end_is_called(
    services: Services, agent_server: ServeAgents, answer: dict[str, object], said: str
) -> None:
    """The call carries the turn's number; the result goes back to the chat, whatever JSON it is."""
    services = attrs.evolve(services, chat=ToolChat())
    async with agent_server(services, tool_agent()) as server, server.connect("t") as client:
        await client.initiate()
        await client.send("user_message", text="How is the weather?")
        (call,) = await client.until("client_tool_call")
        assert (call["tool_name"], call["parameters"], call["event_id"]) == ("weather", {"city": "Rome"}, 1)
        assert call["expects_response"] is True
        await client.send("client_tool_result", tool_call_id="another", result="wrong")
        await client.send("client_tool_result", tool_call_id=call["tool_call_id"], **answer)
        await client.send("client_tool_result", tool_call_id=call["tool_call_id"], result="too late")
        assert (await client.until("agent_response"))[-1]["agent_response"] == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timeout_s": 0.1}, "Error: The tool did not answer in time."),
        ({"expects_response": False}, "It: The tool has been called."),
    ],
)
async def test_a_tool_that_gives_no_answer(
    services: Services, agent_server: ServeAgents, fields: dict[str, Any], said: str
) -> None:
    """One that is slow, and one that nobody waits for."""
    services = attrs.evolve(services, chat=ToolChat())
    async with agent_server(services, tool_agent(**fields)) as server, server.connect("t") as client:
        await client.initiate()
        await client.send("user_message", text="How is the weather?")
        assert (await client.until("agent_response"))[-1]["agent_response"] == said


async def test_a_call_of_a_turn_that_is_over_is_not_waited_for(
    services: Services, agent_server: ServeAgents
) -> None:
    """The user goes on: the next turn calls anew, and the first call's answer is nobody's."""
    chat = ToolChat()
    services = attrs.evolve(services, chat=chat)
    async with agent_server(services, tool_agent()) as server, server.connect("t") as client:
        await client.initiate()
        await client.send("user_message", text="How is")
        (first,) = await client.until("client_tool_call")
        await client.send("user_message", text="the weather?")
        second = (await client.until("client_tool_call"))[-1]
        assert second["event_id"] == 2
        await client.send("client_tool_result", tool_call_id=first["tool_call_id"], result="old")
        await client.send("client_tool_result", tool_call_id=second["tool_call_id"], result="new")
        assert (await client.until("agent_response"))[-1]["agent_response"] == "It: new"
        assert [request.turn_id for request in chat.requests] == [2]


async def test_only_the_events_that_were_asked_for_come(
    services: Services, agent_server: ServeAgents
) -> None:
    """A choice replaces the usual ones; names of events that this server does not have are no error."""
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate(
            conversation={
                "client_events": ["agent_response", "internal_tentative_agent_response", "dtmf_request"]
            }
        )
        assert client.frames[0]["kind"] == "conversation_initiation_metadata"
        await client.send("user_message", text="hello")
        events = await client.until("agent_response")
        assert kinds(events) == ["internal_tentative_agent_response", "agent_response"]
        assert events[0]["tentative_agent_response"] == "Hi there!"


async def test_a_voice_is_detected_for_those_who_ask(services: Services, agent_server: ServeAgents) -> None:
    """How probable speech is, ten times for every second of sound; whoever does not ask is told nothing."""
    speech = recordings.to_pcm(recordings.load("beckett")[: 2 * 16000]) + bytes(2 * 16000)
    async with agent_server(services) as server:
        async with server.connect() as client:
            await client.initiate(conversation={"client_events": ["vad_score"]})
            for start in range(0, len(speech), 640):  # 20 ms
                await client.send_audio(speech[start : start + 640])
            events = [await client.receive() for _ in range(30)]
            assert set(kinds(events)) == {"vad_score"}
            scores = [event["vad_score"] for event in events]
            assert max(scores[:20]) > 0.9
            assert all(0.0 <= score <= 1.0 for score in scores)
            assert scores[-5:] == [0.0] * 5
        async with server.connect() as client:
            await client.initiate()
            await client.send_audio(speech)
            await client.send("user_message", text="hello")
            assert kinds(await client.until("agent_response")) == ["agent_response"]


async def test_a_failing_upstream_is_told_and_the_next_turn_is_served(
    services: Services, chat: ScriptedChat, agent_server: ServeAgents
) -> None:
    """The error keeps our stable code beside the protocol's own kind."""
    chat.script = lambda request: (
        [ProviderError(Upstream.CHAT, ProviderFault.UNREACHABLE, "Nobody there.")]
        if request.turn_id == 1
        else ["Hi."]
    )
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        await client.send("user_message", text="hello")
        error = await client.receive()
        assert (error["code"], error["error_type"], error["reason"]) == (
            1002,
            "custom_llm_error",
            "chat_unreachable",
        )
        await client.send("user_message", text="hello")
        assert (await client.until("agent_response"))[-1]["event_id"] == 2


@pytest.mark.parametrize(
    ("limits", "error_type", "code"),
    [
        (Limits(idle_s=0.1), "transport_receive_timeout", 1002),
        (Limits(session_s=0.1), "max_duration_exceeded", 1000),
    ],
)
async def test_why_a_conversation_ends(
    stt: ScriptedStt,
    chat: ScriptedChat,
    tts: ScriptedTts,
    agent_server: ServeAgents,
    limits: Limits,
    error_type: str,
    code: int,
) -> None:
    """An error event, then the protocol's own close code."""
    services = Services(stt=stt, chat=chat, tts=tts, limits=limits)
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        assert (await client.until("error"))[-1]["error_type"] == error_type
        assert (await client.closed())[0] == code


async def test_a_stopping_server_says_so(services: Services, agent_server: ServeAgents) -> None:
    """A conversation under way is ended with 1012, and its seat is free again."""
    async with agent_server(services) as server, server.connect() as client:
        await client.initiate()
        assert server.seats.taken == 1
        server.stop.set()
        assert (await client.until("error"))[-1]["reason"] == "draining"
        assert (await client.closed())[0] == 1012
        with trio.fail_after(5):
            while server.seats.taken:
                await trio.sleep(0.01)


async def test_without_a_seat_the_client_is_told_to_come_back(
    services: Services, agent_server: ServeAgents
) -> None:
    """The limit of sessions holds for this door too."""
    policy = DoorPolicy(max_sessions=1)
    async with agent_server(services, policy=policy) as server, server.connect() as first:
        await first.initiate()
        async with server.connect() as second:
            error = await second.receive()
            assert (error["reason"], error["details"]["retryable"]) == ("overloaded", True)
            assert (await second.closed())[0] == 1013
