import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from trio_websocket import ConnectionClosed

from tests.fakes.asgi import serving
from tests.fakes.scripted import ScriptedChat
from voice_fsm.chat.base import ChatRequest
from voice_fsm.chat.speech_engine import SpeechEngineConfig, open_speech_engine_chat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.history import Exchange
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.speech_engine_token import HEADER, sign_token
from voice_fsm.upstream.websocket import open_websocket
from voice_fsm.web.seats import Seats
from voice_fsm.web.speech_engine import (
    MAX_CHARS,
    SpeechEngineEndpoint,
    SpeechEnginePolicy,
    clean,
    conversation,
)
from voice_fsm.wire.speech_engine import Said

KEY = "sk_test_key"
Json = dict[str, Any]


@attrs.frozen
class Host:
    """ElevenLabs' side of one connection."""

    websocket: UpstreamSocket

    async def send(self, kind: str, **fields: object) -> None:
        await self.websocket.send_message(json.dumps({"type": kind, **fields}))

    async def ask(self, event_id: int | None, *said: tuple[str, str]) -> None:
        entries = [{"role": role, "content": content} for role, content in said]
        number = {} if event_id is None else {"event_id": event_id}
        await self.send("user_transcript", user_transcript=entries, **number)

    async def receive(self) -> Json:
        with trio.fail_after(10):
            message: Json = json.loads(await self.websocket.get_message())
        return message

    async def answer(self) -> list[Json]:
        """All up to a final response."""
        answers = [await self.receive()]
        while not answers[-1].get("is_final"):
            answers.append(await self.receive())
        return answers

    async def close_code(self) -> int:
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012  # any of the reads may be the last
            while True:
                await self.receive()
        assert closed.value.reason is not None
        return int(closed.value.reason.code)


@attrs.frozen
class Running:
    url: str
    chat: ScriptedChat
    seats: Seats
    draining: trio.Event

    @asynccontextmanager
    async def connect(self, token: str | None = None, *, init: bool = True) -> AsyncIterator[Host]:
        token = sign_token(KEY, now_s=time.time()) if token is None else token
        headers = [(HEADER, token)] if token else []
        async with open_websocket(self.url, upstream=Upstream.CHAT, headers=headers) as websocket:
            host = Host(websocket)
            if init:
                await host.send("init", conversation_id="conv_1")
            yield host


@asynccontextmanager
async def running(*script: Any, seats: int = 10, **policy: Any) -> AsyncIterator[Running]:
    """The door on a socket, before a chat that goes by ``script``, the same for every question."""
    chat = ScriptedChat(lambda _: script or ("It is ", "noon."))
    draining = trio.Event()
    places = Seats(seats)
    endpoint = SpeechEngineEndpoint(chat, SpeechEnginePolicy(**{"api_key": KEY, **policy}), places, draining)
    app = Starlette(routes=[WebSocketRoute("/v1/speech-engine/ws", endpoint.__call__)])
    async with serving(app) as served:
        url = f"ws://127.0.0.1:{served.port}/v1/speech-engine/ws"
        yield Running(url, chat, places, draining)


async def test_a_transcript_is_answered_in_deltas_and_a_last_word() -> None:
    """Every piece bears the transcript's number; the last is empty and says that it is the last."""
    async with running("It is noon. ", "What else can I do for you?") as server, server.connect() as host:
        await host.ask(7, ("agent", "Hello!"), ("user", "What time is it?"))
        answers = await host.answer()
    assert {answer["type"] for answer in answers} == {"agent_response"}
    assert {answer["event_id"] for answer in answers} == {7}
    assert [answer["is_final"] for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert answers[-1]["content"] == ""
    text = "".join(answer["content"] for answer in answers)
    assert text == "It is noon. What else can I do for you?"
    (request,) = server.chat.requests
    assert (request.session_id, request.text) == ("conv_1", "What time is it?")
    assert request.history == (Exchange("", "Hello!"),)
    assert server.chat.forgotten == ["conv_1"]


async def test_text_is_made_fit_to_be_spoken() -> None:
    """The host speaks what it gets, to the letter."""
    async with (
        running("**Sure!** See [our page](https://example.com/x).") as server,
        server.connect() as host,
    ):
        await host.ask(1, ("user", "Where?"))
        text = "".join(answer["content"] for answer in await host.answer())
    assert text == "Sure! See our page."


async def test_without_a_number_the_answer_has_none() -> None:
    """And such transcripts are never taken for repetitions."""
    async with running() as server, server.connect() as host:
        for _ in range(2):
            await host.ask(None, ("user", "What time is it?"))
            assert all("event_id" not in answer for answer in await host.answer())


async def test_a_newer_transcript_ends_the_reply_to_the_older() -> None:
    """Nothing of the old one comes any more, not even its end; its chat call is closed first."""
    async with running("Well, let me tell you. ", 30.0, "Late.") as server, server.connect() as host:
        await host.ask(1, ("user", "Tell me a story"))
        first = await host.receive()
        assert first["event_id"] == 1
        server.chat.script = lambda _: ("Fine.",)
        heard = first["content"][:4]
        await host.ask(2, ("user", "Tell me a story"), ("agent", heard), ("user", "No, wait"))
        answers = await host.answer()
        assert {answer["event_id"] for answer in answers} == {2}
        assert server.chat.requests[1].history == (Exchange("Tell me a story", heard, interrupted=True),)
        assert server.chat.most_open == 1


async def test_a_reply_that_was_heard_out_is_not_called_interrupted() -> None:
    """However the host sets its spaces."""
    async with running("It is  noon.") as server, server.connect() as host:
        await host.ask(1, ("user", "Time?"))
        await host.answer()
        await host.ask(2, ("user", "Time?"), ("agent", "It is noon."), ("user", "Thanks"))
        await host.answer()
        assert server.chat.requests[1].history == (Exchange("Time?", "It is noon."),)


@pytest.mark.parametrize("again", [3, 2])
async def test_what_is_no_news_is_not_answered(again: int) -> None:
    """The same transcript once more, or an older one, neither stops nor doubles the reply."""
    async with running("Once ", 0.2, "there was a king.") as server, server.connect() as host:
        await host.ask(3, ("user", "Tell me"))
        await host.ask(again, ("user", "Tell me"))
        assert {answer["event_id"] for answer in await host.answer()} == {3}
        await host.ask(again, ("user", "Tell me"))
        await host.send("ping")
        assert await host.receive() == {"type": "pong"}
        assert len(server.chat.requests) == 1


async def test_a_ping_is_answered_while_a_reply_is_under_way() -> None:
    """At once, and the reply goes on."""
    async with running("Once ", 0.3, "there was.") as server, server.connect() as host:
        await host.ask(1, ("user", "Tell me"))
        await host.send("ping")
        assert await host.receive() == {"type": "pong"}
        assert "".join(answer["content"] for answer in await host.answer()) == "Once there was."


async def test_a_chat_that_fails_ends_its_reply() -> None:
    """The host is not left waiting, the conversation lives, and the next transcript is answered."""
    failure = ProviderError(Upstream.CHAT, ProviderFault.SERVER_ERROR, "The chat backend failed.")
    async with running("Well. ", failure) as server, server.connect() as host:
        await host.ask(1, ("user", "Tell me"))
        assert (await host.answer())[-1]["is_final"]
        server.chat.script = lambda _: ("Fine.",)
        await host.ask(2, ("user", "Tell me"))
        assert (await host.answer())[0]["content"] == "Fine."


@pytest.mark.parametrize(
    "frame",
    [
        "not JSON",
        "[]",
        "{}",
        '{"type": "user_transcript"}',
        '{"type": "user_transcript", "user_transcript": [{"role": "user"}], "event_id": 1}',
        '{"type": "user_transcript", "user_transcript": [], "event_id": 1}',
        '{"type": "user_transcript", "user_transcript": [{"role": "user", "content": " \\u0007 "}]}',
        '{"type": "init", "conversation_id": "conv_2"}',
        '{"type": "error", "message": "no"}',
        '{"type": "new_in_2030"}',
        b"\xff",
    ],
)
async def test_what_cannot_be_understood_changes_nothing(frame: str | bytes) -> None:
    """The conversation goes on as the one it was."""
    async with running() as server, server.connect() as host:
        await host.websocket.send_message(frame)
        await host.ask(1, ("user", "Time?"))
        await host.answer()
        assert server.chat.requests[0].session_id == "conv_1"


async def test_binary_frames_of_json_are_read() -> None:
    """As the official servers do."""
    async with running() as server, server.connect() as host:
        await host.websocket.send_message(b'{"type":"ping"}')
        assert await host.receive() == {"type": "pong"}


async def test_nothing_is_answered_before_the_conversation_has_a_name() -> None:
    """`init` comes first."""
    async with running() as server, server.connect(init=False) as host:
        await host.ask(1, ("user", "Time?"))
        await host.send("ping")
        assert await host.receive() == {"type": "pong"}
        assert not server.chat.requests


@pytest.mark.parametrize(
    ("token", "body"),
    [("", "missing authorization header"), ("a.b.c", "authorization failed")],
)
async def test_a_caller_without_the_key_is_refused(token: str, body: str) -> None:
    """With 401 before the upgrade, and no word on what was wrong."""
    async with running() as server:
        with pytest.raises(RefusedError) as caught:
            async with server.connect(token):
                pytest.fail("was let in")
    assert caught.value.status == 401
    assert caught.value.mentions(body)


async def test_without_a_key_nobody_is_let_in() -> None:
    """An endpoint that is not set up is closed."""
    async with running(api_key=None) as server:
        with pytest.raises(RefusedError) as caught:
            async with server.connect():
                pytest.fail("was let in")
    assert caught.value.status == 401


async def test_too_many_conversations_are_turned_away() -> None:
    """With 1013, which asks to try later."""
    async with running(seats=1) as server, server.connect() as first:
        await first.ask(1, ("user", "Time?"))
        await first.answer()
        async with server.connect(init=False) as second:
            assert await second.close_code() == 1013


async def test_close_ends_the_conversation() -> None:
    """The running reply is cancelled, and the socket closed with 1000."""
    async with running("Once ", 30.0) as server, server.connect() as host:
        await host.ask(1, ("user", "Tell me"))
        await host.send("close")
        assert await host.close_code() == 1000
        assert server.chat.open_calls == 0


async def test_a_lost_connection_ends_the_reply() -> None:
    """Nothing runs on for a host that has gone."""
    async with running("Once there was a king. ", 30.0) as server:
        async with server.connect() as host:
            await host.ask(1, ("user", "Tell me"))
            await host.receive()
        with trio.fail_after(5):
            while server.seats.taken:
                await trio.sleep(0.01)
        assert server.chat.open_calls == 0


async def test_a_server_that_drains_says_so() -> None:
    """With 1012."""
    async with running() as server, server.connect() as host:
        await host.send("ping")
        await host.receive()
        server.draining.set()
        assert await host.close_code() == 1012


async def test_our_own_caller_and_our_own_door_understand_each_other() -> None:
    """A session of ours can have another server of ours as its chat."""
    async with running("It is noon.") as server:
        config = SpeechEngineConfig(url=server.url, api_key=KEY)
        async with open_speech_engine_chat(config) as chat:
            past = (Exchange("Hi", "Hello"),)
            request = ChatRequest(session_id="s1", turn_id=1, text="Time?", history=past)
            async with chat.reply(request) as parts:
                assert "".join([part.text async for part in parts]) == "It is noon."
        assert server.chat.requests[0].history == past


@pytest.mark.parametrize(
    ("said", "exchanges"),
    [
        ("", [Exchange("", "")]),
        ("u:a", [Exchange("a", "")]),
        ("g:hi u:a", [Exchange("", "hi"), Exchange("a", "")]),
        ("u:a g:b u:c", [Exchange("a", "b"), Exchange("c", "")]),
        ("u:a u:b g:c g:d u:e u:f", [Exchange("a b", "c d"), Exchange("e f", "")]),
        ("u:a g:b", [Exchange("a", "b"), Exchange("", "")]),
    ],
)
def test_a_transcript_becomes_exchanges(said: str, exchanges: list[Exchange]) -> None:
    """Neighbours of one role are joined; the last exchange is the question."""
    entries = [Said(role="user" if entry[0] == "u" else "agent", content=entry[2:]) for entry in said.split()]
    assert conversation(entries) == exchanges


@given(st.text(max_size=50))
def test_what_was_said_is_printable(text: str) -> None:
    """Neither control characters nor lines get through."""
    assert clean(text).isprintable()


def test_the_newest_part_of_a_long_speech_is_kept() -> None:
    """Bounded, whatever the host sends."""
    assert clean("x" * MAX_CHARS + "end") == "x" * (MAX_CHARS - 3) + "end"


frames = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["init", "user_transcript", "ping", "error", "pong"])},
        optional={
            "event_id": st.integers(-5, 5) | st.none() | st.text(max_size=3),
            "user_transcript": st.lists(
                st.fixed_dictionaries(
                    {"role": st.sampled_from(["user", "agent", "tool"]), "content": st.text(max_size=5)}
                ),
                max_size=3,
            ),
            "conversation_id": st.text(max_size=5),
            "message": st.text(max_size=5),
        },
    ).map(json.dumps),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(frames, max_size=30), min_size=1, max_size=3))
def test_no_frames_in_any_order_harm_the_door(conversations: list[list[str | bytes]]) -> None:
    """Whatever a host sends, a later transcript of its own is answered, and nothing is left running."""

    async def converse() -> None:
        async with running() as server:
            for sent in conversations:
                async with server.connect() as host:
                    for frame in sent:
                        await host.websocket.send_message(frame)
                    await host.ask(1000, ("user", "Still there?"))
                    answers = [await host.receive()]
                    while answers[-1].get("event_id") != 1000 or not answers[-1].get("is_final"):
                        answers.append(await host.receive())
            with trio.fail_after(5):
                while server.seats.taken:
                    await trio.sleep(0.01)
            assert server.chat.open_calls == 0

    trio.run(converse)
