from typing import Any

import attrs
import httpx
import pytest
import trio

from tests.fakes.chat_backend import ChatBackend, chat_backend
from tests.fakes.http_server import Fault, Step, json_response, response, streamed
from tests.fakes.openai_chat import openai_stream
from voice_fsm.chat.backend import BackendChat, BackendConfig, BackendFields
from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.errors import ClientError, ProviderError, ProviderFault
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.retry import RetryPolicy

INPUTS = BackendOptions(
    provider="acme",
    api_key="provider-key",
    model="m",
    base_url="http://model.example/v1",
    system_prompt="Be brief.",
)


def config(backend: ChatBackend, **changes: Any) -> BackendConfig:
    quick = RetryPolicy(first_delay_s=0.01)
    return BackendConfig(**{"base_url": backend.url, "api_key": "backend-key", "retry": quick, **changes})


def question(text: str = "Hi", **changes: Any) -> ChatRequest:
    return ChatRequest(session_id="s1", turn_id=3, text=text, **changes)


async def ask(chat: ChatProvider, request: ChatRequest | None = None) -> list[ReplyPart]:
    async with chat.reply(request or question()) as parts:
        return [part async for part in parts]


async def failure_of(chat: ChatProvider, request: ChatRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(chat, request)
    return caught.value


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


async def test_registered_once_then_asked(client: httpx.AsyncClient) -> None:
    """The backend is registered with before the first turn, and each turn is one call."""
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend, defaults=INPUTS, headers={"X-Team": "voice"}))
        assert await ask(chat) == [ReplyText("You said: Hi")]
        await ask(chat, question("Bye"))
    (registration,), (first, second) = backend.registrations, backend.chats
    assert registration.method == first.method == "POST"
    assert registration.json() == attrs.asdict(INPUTS, filter=attrs.filters.exclude("registration_id"))
    assert first.json() == {
        "registration_id": "reg-1",
        "session_id": "s1",
        "message": "Hi",
        "metadata": {"turn_id": 3, "history": []},
    }
    assert second.json()["message"] == "Bye"
    for request in (registration, first):
        assert request.headers["authorization"] == "Bearer backend-key"
        assert request.headers["x-team"] == "voice"


async def test_what_is_not_set_is_not_sent(client: httpx.AsyncClient) -> None:
    """Without a key there is no header, and a registration names only what is known."""
    async with chat_backend() as backend:
        await ask(BackendChat(client, config(backend, api_key="", defaults=BackendOptions(model="m"))))
    assert backend.registrations[0].json() == {"model": "m"}
    assert "authorization" not in backend.registrations[0].headers


async def test_an_interruption_is_told(client: httpx.AsyncClient) -> None:
    """The backend learns how much of its last reply was heard, so that it can mend its memory."""
    cut = Exchange("Tell me", "Once upon ", interrupted=True)
    whole = Exchange("Hi", "Hello.")
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend, send_history=False))
        await ask(chat, question(history=(whole, cut)))
        await ask(chat, question(history=(cut, whole)))
    told, nothing = (chat.json()["metadata"] for chat in backend.chats)
    assert told == {"turn_id": 3, "interrupted": True, "heard": "Once upon "}
    assert nothing == {"turn_id": 3}


async def test_a_silence_is_told_as_such(client: httpx.AsyncClient) -> None:
    """The message is ours then, and the backend can tell."""
    async with chat_backend() as backend:
        await ask(BackendChat(client, config(backend)), question("[Nothing.]", cause="silence"))
    assert backend.chats[0].json()["metadata"]["cause"] == "silence"


async def test_context_of_the_front_end_is_told_as_data(client: httpx.AsyncClient) -> None:
    """It stands in the metadata, apart from what the user said."""
    async with chat_backend() as backend:
        await ask(BackendChat(client, config(backend)), question(context=("On page 2.",)))
    body = backend.chats[0].json()
    assert body["metadata"]["context"] == ["On page 2."]
    assert "page" not in body["message"]


async def test_the_conversation_is_told_as_it_was_heard(client: httpx.AsyncClient) -> None:
    """A backend without a memory of its own gets the exchanges, the oldest first."""
    cut = Exchange("Tell me", "Once upon ", interrupted=True)
    async with chat_backend() as backend:
        await ask(BackendChat(client, config(backend)), question(history=(Exchange("Hi", "Hello."), cut)))
    assert backend.chats[0].json()["metadata"]["history"] == [
        {"user": "Hi", "assistant": "Hello.", "interrupted": False},
        {"user": "Tell me", "assistant": "Once upon ", "interrupted": True},
    ]


async def test_fields_and_paths_can_be_named(client: httpx.AsyncClient) -> None:
    """A backend that exists already keeps its own words."""
    fields = BackendFields(
        provider="vendor",
        registration_id="bot",
        session_id="conversation",
        message="query",
        metadata="context",
        reply="utterance",
    )
    async with chat_backend() as backend:
        backend.valid_ids.add("unused")
        settings = config(
            backend,
            base_url=f"{backend.url}/api/",
            register_path="bots",
            chat_path="/ask",
            fields=fields,
            defaults=BackendOptions(provider="acme"),
        )
        assert backend.server is not None
        backend.server.handler = lambda request: [
            json_response({"bot": 7} if request.path == "/api/bots" else {"text": "no", "utterance": "yes"})
        ]
        assert text_of(await ask(BackendChat(client, settings))) == "yes"
        registration, chat = backend.server.requests
    assert registration.json() == {"vendor": "acme"}
    assert (chat.path, chat.json()) == (
        "/api/ask",
        {"bot": "7", "conversation": "s1", "query": "Hi", "context": {"turn_id": 3, "history": []}},
    )


@pytest.mark.parametrize(
    "reply",
    [
        [json_response({"reply": "Hello.", "mood": "glad"})],
        streamed(b"data: Hel\n\n", b"data: lo.\n\n", b'event: metadata\ndata: {"mood": "glad"}\n\n'),
        streamed(*openai_stream("Hel", "lo.")),
        streamed(b'{"delta": "Hel"}\n{"del', b'ta": "lo."}\n', content_type="application/x-ndjson"),
        streamed(b"Hel", b"lo.", content_type="text/plain; charset=utf-8"),
        [b"HTTP/1.1 200 OK\r\n\r\nHello.", Fault.CLOSE],
        streamed(b"<think>Hm</think>", b"Hello.", content_type="text/plain"),
    ],
)
async def test_replies_in_all_forms(client: httpx.AsyncClient, reply: list[Step]) -> None:
    """However the backend answers, its text is spoken."""
    async with chat_backend() as backend:
        backend.chatting = reply
        parts = await ask(BackendChat(client, config(backend)))
    assert text_of(parts) == "Hello."


async def test_metadata_is_handed_on(client: httpx.AsyncClient) -> None:
    """What stands beside the text goes to the client, after it."""
    async with chat_backend() as backend:
        backend.chatting = [json_response({"reply": "Hello.", "mood": "glad"})]
        parts = await ask(BackendChat(client, config(backend)))
    assert parts == [ReplyText("Hello."), ReplyMetadata({"mood": "glad"})]


@pytest.mark.parametrize(
    "refusal",
    [
        json_response({"detail": "Not Found"}, 404),
        response(410),
        json_response({"error": "Unknown REGISTRATION_id"}, 400),
        json_response({"error": {"code": "registration_expired"}}, 401),
        response(422, b"no such registration", content_type="text/plain"),
    ],
)
async def test_a_lost_registration_is_made_anew(client: httpx.AsyncClient, refusal: bytes) -> None:
    """A backend that was restarted is registered with again, and the turn goes on."""
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend))
        await ask(chat)
        backend.forget()
        backend.unknown = [refusal]
        assert text_of(await ask(chat)) == "You said: Hi"
    assert [chat.json()["registration_id"] for chat in backend.chats] == ["reg-1", "reg-1", "reg-2"]


async def test_a_lost_registration_is_made_anew_once(client: httpx.AsyncClient) -> None:
    """A backend that never knows its own registrations is not asked for ever."""
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend))
        backend.unknown = [response(410, X_Request_Id="r1")]
        backend.registering = [json_response({"registration_id": "never known"})]
        error = await failure_of(chat)
    assert (len(backend.registrations), len(backend.chats)) == (2, 2)
    assert (error.fault, error.status, error.request_id) == (ProviderFault.REJECTED, 410, "r1")
    assert "does not know its registration" in error.message


async def test_many_sessions_make_one_registration_anew(client: httpx.AsyncClient) -> None:
    """When the backend forgets, a hundred sessions do not register a hundred times."""
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend))
        await ask(chat)
        backend.forget()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask, chat)
    assert len(backend.registrations) == 2


@pytest.mark.parametrize(
    "refusal",
    [json_response({"error": "no"}, 422), json_response({"error": "too many registrations"}, 429)],
)
async def test_other_refusals_are_told(client: httpx.AsyncClient, refusal: bytes) -> None:
    """A refusal that is about something else registers nothing anew."""
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend, retry=RetryPolicy(max_retries=0)))
        backend.chatting = [refusal]
        error = await failure_of(chat)
    assert len(backend.registrations) == 1
    assert error.message.startswith("The chat backend")


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_backend_without_registration(client: httpx.AsyncClient, status: int) -> None:
    """Its operator is told what to set."""
    async with chat_backend() as backend:
        backend.registering = [response(status)]
        error = await failure_of(BackendChat(client, config(backend, retry=RetryPolicy(max_retries=0))))
    assert "no POST /v1/register" in error.message
    assert "BACKEND_REGISTRATION_ID" in error.message
    assert error.status == status
    assert backend.chats == []


async def test_a_refused_registration_is_told_as_such(client: httpx.AsyncClient) -> None:
    """Wrong credentials show at the registration."""
    async with chat_backend() as backend:
        backend.registering = [json_response({"error": "bad registration: backend-key"}, 401)]
        error = await failure_of(BackendChat(client, config(backend)))
    assert (error.fault, error.status) == (ProviderFault.AUTH_FAILED, 401)
    assert error.message == "The chat backend refused to register this server (HTTP 401)."


@pytest.mark.parametrize(
    "answer",
    [
        json_response({}),
        json_response({"registration_id": ""}),
        json_response({"registration_id": None}),
        json_response({"registration_id": ["odd"]}),
        json_response(["odd"]),
        response(200, b"<html>"),
        response(204),
    ],
)
async def test_a_registration_without_an_id(client: httpx.AsyncClient, answer: bytes) -> None:
    """An answer that gives no id is not understood."""
    async with chat_backend() as backend:
        backend.registering = [answer]
        error = await failure_of(BackendChat(client, config(backend)))
    assert error.fault is ProviderFault.BAD_RESPONSE


async def test_with_a_fixed_registration_there_is_none(client: httpx.AsyncClient) -> None:
    """An id from the settings is used as it is."""
    async with chat_backend() as backend:
        backend.valid_ids.add("fixed")
        chat = BackendChat(client, config(backend, defaults=BackendOptions(registration_id="fixed")))
        await ask(chat)
        backend.forget()
        error = await failure_of(chat)
    assert backend.registrations == []
    assert [chat.json()["registration_id"] for chat in backend.chats] == ["fixed", "fixed"]
    assert "POST /v1/chat" in error.message


async def test_a_sessions_registration_is_used(client: httpx.AsyncClient) -> None:
    """A session that brings an id needs no registration."""
    async with chat_backend() as backend:
        backend.valid_ids.add("theirs")
        chat = BackendChat(client, config(backend, defaults=INPUTS))
        await ask(chat, question(backend=BackendOptions(registration_id="theirs", model="ignored")))
    assert backend.registrations == []
    assert backend.chats[0].json()["registration_id"] == "theirs"


async def test_a_sessions_choice_is_registered_apart(client: httpx.AsyncClient) -> None:
    """What a session chooses stands in for the server's, and has its own registration."""
    async with chat_backend() as backend:
        fixed = attrs.evolve(INPUTS, registration_id="fixed")
        chat = BackendChat(client, config(backend, defaults=fixed))
        for _ in range(2):
            await ask(chat, question(backend=BackendOptions(model="big", system_prompt="")))
    (registration,) = backend.registrations
    assert registration.json() == {
        **attrs.asdict(INPUTS, filter=attrs.filters.exclude("registration_id")),
        "model": "big",
        "system_prompt": "",
    }


async def test_our_provider_key_goes_to_our_provider_only(client: httpx.AsyncClient) -> None:
    """A session that points the backend elsewhere brings its own key, or there is none."""
    async with chat_backend() as backend:
        chat = BackendChat(
            client, config(backend, defaults=INPUTS, allowed_base_urls=("http://other.example",))
        )
        await ask(chat, question(backend=BackendOptions(base_url="http://other.example/v1")))
        await ask(chat, question(backend=BackendOptions(provider="other", api_key="theirs")))
    elsewhere, other = (registration.json() for registration in backend.registrations)
    assert "api_key" not in elsewhere
    assert other["api_key"] == "theirs"


async def test_an_address_that_is_not_allowed_is_not_passed_on(client: httpx.AsyncClient) -> None:
    """The session is told, early by `check` and at the latest when it asks."""
    chosen = BackendOptions(base_url="http://169.254.169.254/")
    async with chat_backend() as backend:
        chat = BackendChat(client, config(backend, defaults=INPUTS))
        with pytest.raises(ClientError):
            chat.check(chosen)
        with pytest.raises(ClientError):
            await ask(chat, question(backend=chosen))
        chat.check(BackendOptions())
        chat.check(BackendOptions(base_url="http://model.example/v1"))
        with pytest.raises(ClientError):
            BackendChat(client, config(backend)).check(BackendOptions(base_url="http://model.example/v1"))
    assert backend.registrations == []


async def test_a_passing_failure_is_tried_again(client: httpx.AsyncClient) -> None:
    """A registration or turn that fails for a moment succeeds all the same."""
    async with chat_backend() as backend:
        assert backend.server is not None
        failures: list[list[Step]] = [[Fault.RESET], [response(503)]]
        backend.server.handler = lambda request: failures.pop() if failures else backend(request)
        assert text_of(await ask(BackendChat(client, config(backend)))) == "You said: Hi"
        assert [request.path for request in backend.server.requests] == [
            "/v1/register",
            "/v1/register",
            "/v1/register",
            "/v1/chat",
        ]


async def test_a_failure_after_the_first_word_is_not_tried_again(client: httpx.AsyncClient) -> None:
    """What was said cannot be said again."""
    async with chat_backend() as backend:
        backend.chatting = [*streamed(b"data: Hi\n\n")[:-1], Fault.RESET]
        error = await failure_of(BackendChat(client, config(backend)))
    assert error.fault is ProviderFault.TRUNCATED
    assert len(backend.chats) == 1


async def test_a_cancelled_turn_closes_its_call(client: httpx.AsyncClient) -> None:
    """A barge-in in the middle of a reply is seen by the backend at once."""
    async with chat_backend() as backend:
        backend.chatting = [*streamed(b"data: Hi\n\n")[:-1], Fault.HANG]
        chat = BackendChat(client, config(backend))
        async with trio.open_nursery() as nursery, chat.reply(question()) as parts:
            assert await anext(parts) == ReplyText("Hi")
            nursery.start_soon(anext, parts)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert backend.server is not None
        await backend.server.wait_until(lambda server: server.live_connections == 0)
