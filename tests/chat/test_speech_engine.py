import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.fakes.sockets import Handshake, accept, serve
from tests.fakes.speech_engine_sdk import official_server
from voice_fsm.chat.base import ChatRequest, ReplyText
from voice_fsm.chat.speech_engine import SpeechEngineChat, SpeechEngineConfig, open_speech_engine_chat
from voice_fsm.errors import ClientError, ProviderError, ProviderFault
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.http import Deadlines
from voice_fsm.upstream.speech_engine_token import HEADER

KEY = "sk_test_key"
Json = dict[str, Any]


def question(text: str = "What time is it?", session_id: str = "conv_1", **fields: Any) -> ChatRequest:
    return ChatRequest(session_id=session_id, turn_id=1, text=text, **fields)


async def ask(chat: SpeechEngineChat, request: ChatRequest) -> str:
    async with chat.reply(request) as parts:
        return "".join([part.text async for part in parts])


# --- the official server ----------------------------------------------------------------------------


async def test_the_official_server_answers() -> None:
    """Key, first message, history and streamed reply are as its SDK has them; the end is told."""
    seen: list[Any] = []

    async def on_transcript(messages: list[Any], session: Any) -> None:
        seen.append([(message.role, message.content) for message in messages])

        async def words() -> AsyncIterator[str]:
            for word in ("It ", "is ", "noon."):
                yield word

        await session.send_response(words())

    async with (
        official_server(
            KEY,
            on_init=lambda conversation_id, _: seen.append(conversation_id),
            on_transcript=on_transcript,
            on_close=lambda _: seen.append("closed"),
            on_disconnect=lambda _: seen.append("disconnected"),
        ) as url,
        open_speech_engine_chat(SpeechEngineConfig(url=url, api_key=KEY)) as chat,
    ):
        past = (Exchange("Hello", "Hi there"), Exchange("", "Still here?"))
        assert await ask(chat, question(history=past)) == "It is noon."
        assert await ask(chat, question("And now?")) == "It is noon."
        chat.forget("conv_1")
        with trio.fail_after(10):
            while "closed" not in seen:
                await trio.sleep(0.01)
    said = [("user", "Hello"), ("agent", "Hi there"), ("agent", "Still here?"), ("user", "What time is it?")]
    assert seen == ["conv_1", said, [("user", "And now?")], "closed"]


async def test_a_newer_question_cancels_the_official_servers_answer() -> None:
    """What was under way is cancelled there, and nothing of it is heard here."""
    cancelled = []

    async def on_transcript(messages: list[Any], session: Any) -> None:
        async def words() -> AsyncIterator[str]:
            try:
                yield f"{messages[-1].content}: "
                await asyncio.sleep(0 if messages[-1].content == "two" else 30)
                yield "done"
            except asyncio.CancelledError:
                cancelled.append(messages[-1].content)
                raise

        await session.send_response(words())

    async with (
        official_server(KEY, on_transcript=on_transcript) as url,
        open_speech_engine_chat(SpeechEngineConfig(url=url, api_key=KEY)) as chat,
    ):
        async with chat.reply(question("one")) as parts:
            assert await anext(parts) == ReplyText("one: ")
        assert await ask(chat, question("two")) == "two: done"
    assert cancelled == ["one"]


async def test_the_official_server_refuses_a_wrong_key() -> None:
    """Which is told as what it is."""
    async with (
        official_server(KEY, on_transcript=lambda *_: None) as url,
        open_speech_engine_chat(SpeechEngineConfig(url=url, api_key="sk_other")) as chat,
    ):
        with pytest.raises(ProviderError) as caught:
            await ask(chat, question())
    assert caught.value.code == "chat_auth_failed"


# --- a server that does as the test says ------------------------------------------------------------


@attrs.define
class FakeServer:
    """Hands each transcript to ``answer``, and remembers all that came."""

    answer: Callable[["FakeServer", WebSocketConnection, Json], Any]
    handshakes: list[Handshake] = attrs.field(factory=list)
    received: list[Json] = attrs.field(factory=list)
    deaf: bool = False
    """Do not answer pings."""

    async def handle(self, stream: trio.abc.Stream) -> None:
        async with accept(stream) as (handshake, websocket):
            self.handshakes.append(handshake)
            try:
                while True:
                    message = json.loads(await websocket.get_message())
                    self.received.append(message)
                    if message["type"] == "ping" and not self.deaf:
                        await websocket.send_message('{"type":"pong"}')
                    if message["type"] == "user_transcript":
                        await self.answer(self, websocket, message)
            except ConnectionClosed:
                return

    def of(self, kind: str) -> list[Json]:
        return [message for message in self.received if message["type"] == kind]


def response(event_id: object, content: str = "", *, final: bool = False) -> str:
    return json.dumps({"type": "agent_response", "content": content, "event_id": event_id, "is_final": final})


async def say_fine(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    await websocket.send_message(response(message["event_id"], "Fine."))
    await websocket.send_message(response(message["event_id"], final=True))


@asynccontextmanager
async def talking_to(fake: FakeServer, **settings: Any) -> AsyncIterator[SpeechEngineChat]:
    async with serve(fake.handle) as address:
        deadlines = Deadlines(first_byte_s=2, stall_s=1)
        config = SpeechEngineConfig(url=f"{address}/engine?tenant=7", deadlines=deadlines, **settings)
        async with open_speech_engine_chat(config) as chat:
            yield chat


async def test_one_connection_serves_a_conversation(autojump_clock: MockClock) -> None:
    """Numbers of transcripts rise; path, query, token and further headers are as configured."""
    fake = FakeServer(say_fine)
    async with talking_to(fake, api_key=KEY, headers={"X-Tenant": "seven"}) as chat:
        for _ in range(3):
            assert await ask(chat, question()) == "Fine."
        assert await ask(chat, question(session_id="conv_2")) == "Fine."
    assert [message["conversation_id"] for message in fake.of("init")] == ["conv_1", "conv_2"]
    assert [message["event_id"] for message in fake.of("user_transcript")] == [1, 2, 3, 1]
    handshake = fake.handshakes[0]
    assert (handshake.path, handshake.query) == ("/engine", {"tenant": ["7"]})
    assert handshake.headers["x-tenant"] == "seven"
    assert HEADER.lower() in handshake.headers


async def test_what_does_not_belong_to_the_question_is_dropped(autojump_clock: MockClock) -> None:
    """Late deltas of another reply, numbers that are none, and messages from the future."""

    async def answer(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
        for stray in (0, None, 99):
            await websocket.send_message(response(stray, "stray"))
        await websocket.send_message('{"type": "new_in_2030"}')
        await websocket.send_message(response(message["event_id"], "Mine. "))
        await websocket.send_message(response(0, "stray", final=True))
        await websocket.send_message(response(message["event_id"], "All mine.", final=True))

    async with talking_to(FakeServer(answer)) as chat:
        assert await ask(chat, question()) == "Mine. All mine."


async def test_a_connection_that_died_unseen_is_replaced(autojump_clock: MockClock) -> None:
    """The question that finds out is asked again on a new one."""

    async def answer(fake: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
        if len(fake.of("user_transcript")) == 2:
            await websocket.aclose(1012)
        else:
            await say_fine(fake, websocket, message)

    fake = FakeServer(answer)
    async with talking_to(fake) as chat:
        assert await ask(chat, question()) == "Fine."
        assert await ask(chat, question()) == "Fine."
    assert len(fake.of("init")) == 2


async def test_two_sessions_of_one_name_do_not_mix(autojump_clock: MockClock) -> None:
    """Each gets the answer to its own question, at the same time."""

    async def answer(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
        await trio.sleep(0.5)
        await websocket.send_message(response(message["event_id"], message["user_transcript"][0]["content"]))
        await websocket.send_message(response(message["event_id"], final=True))

    answers: list[str] = []
    async with talking_to(FakeServer(answer)) as chat, trio.open_nursery() as nursery:
        for text in ("one", "two"):

            async def one(text: str = text) -> None:
                answers.append(await ask(chat, question(text)))

            nursery.start_soon(one)
    assert sorted(answers) == ["one", "two"]


async def hang(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    """Say nothing."""


async def stall(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    await websocket.send_message(response(message["event_id"], "Well"))


async def hang_up(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    await websocket.aclose(1011)


async def break_off(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    await websocket.send_message(response(message["event_id"], "Well"))
    await websocket.aclose(1000)


async def babble(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    await websocket.send_message("not JSON")


async def say_nothing(_: FakeServer, websocket: WebSocketConnection, message: Json) -> None:
    await websocket.send_message(response(message["event_id"], final=True))


@pytest.mark.parametrize(
    ("trouble", "fault", "within_s"),
    [
        (hang, ProviderFault.TIMEOUT, 2),
        (stall, ProviderFault.STALLED, 1),
        (hang_up, ProviderFault.SERVER_ERROR, 0),
        (break_off, ProviderFault.LOST, 0),
        (babble, ProviderFault.BAD_RESPONSE, 0),
        (say_nothing, ProviderFault.BAD_RESPONSE, 0),
    ],
)
async def test_every_trouble_ends_the_reply_in_time(
    trouble: Callable[..., Any], fault: ProviderFault, within_s: float, autojump_clock: MockClock
) -> None:
    """With the fault that it is, and the next question is answered."""
    fake = FakeServer(trouble)
    async with talking_to(fake) as chat:
        began_s = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            await ask(chat, question())
        assert caught.value.fault is fault
        assert trio.current_time() - began_s == pytest.approx(within_s, abs=0.2)
        fake.answer = say_fine
        assert await ask(chat, question()) == "Fine."


async def test_nobody_there_is_told(autojump_clock: MockClock) -> None:
    """As for any upstream."""
    async with open_speech_engine_chat(SpeechEngineConfig(url="ws://127.0.0.1:9/ws")) as chat:
        with pytest.raises(ProviderError) as caught:
            await ask(chat, question())
    assert caught.value.code == "chat_unreachable"


async def test_a_server_that_answers_no_ping_is_given_up(autojump_clock: MockClock) -> None:
    """The next question opens a new connection without waiting for the old one."""
    fake = FakeServer(say_fine, deaf=True)
    async with talking_to(fake) as chat:
        await ask(chat, question())
        await trio.sleep(25)
        assert len(fake.of("ping")) == 1
        await ask(chat, question())
    assert len(fake.of("init")) == 2


async def test_an_idle_conversation_is_ended(autojump_clock: MockClock) -> None:
    """After a while without a question the server is told goodbye."""
    fake = FakeServer(say_fine)
    async with talking_to(fake, idle_s=60) as chat:
        await ask(chat, question())
        await trio.sleep(50)
        assert not fake.of("close")
        await trio.sleep(30)
        assert fake.of("close")


def test_a_backend_of_the_clients_own_is_refused() -> None:
    """There is nothing that it could choose."""
    chat = SpeechEngineChat(SpeechEngineConfig(url="ws://127.0.0.1/"), None)  # type: ignore[arg-type]  # unused here
    chat.check(BackendOptions())
    with pytest.raises(ClientError) as caught:
        chat.check(BackendOptions(model="gpt"))
    assert caught.value.field == "backend"
