from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.elevenlabs_agents import FakeAgentsApi
from tests.fakes.http_server import Fault, Handler, json_response, response, serve_http
from voice_fsm.upstream.elevenlabs_agents import AgentsApi, AgentsApiError
from voice_fsm.upstream.http import open_client


@asynccontextmanager
async def api_of(handler: Handler, key: str = "sk_test_key") -> AsyncIterator[AgentsApi]:
    async with serve_http(handler) as server, open_client() as client:
        yield AgentsApi(client, base_url=server.url, api_key=key)


async def test_engines_are_managed() -> None:
    """Made, listed over all pages, changed and deleted; an id is no path."""
    fake = FakeAgentsApi()
    async with api_of(fake.answer) as api:
        for number in range(5):
            await api.create_engine({"name": str(number), "speech_engine": {"ws_url": "wss://e.com/ws"}})
        assert [engine["name"] for engine in await api.engines()] == ["0", "1", "2", "3", "4"]
        await api.update_engine("seng_1", {"name": "new"})
        await api.delete_engine("seng_2")
        assert fake.engines["seng_1"]["name"] == "new"
        assert "seng_2" not in fake.engines
        with pytest.raises(AgentsApiError, match=r"There is no \.\./convai"):
            await api.delete_engine("../convai")


async def test_a_token_is_fetched() -> None:
    """For the agent that was named."""
    async with api_of(FakeAgentsApi().answer) as api:
        assert await api.conversation_token("seng 7&x") == "jwt-for-seng 7&x"


async def test_a_refusal_is_told_in_the_words_of_elevenlabs() -> None:
    """Of its two shapes of errors, and of none."""
    async with api_of(FakeAgentsApi().answer, key="wrong") as api:
        with pytest.raises(AgentsApiError, match=r"HTTP 401\): Invalid API key") as caught:
            await api.engines()
        assert caught.value.status == 401
    async with api_of(FakeAgentsApi().answer) as api:
        with pytest.raises(AgentsApiError, match=r"HTTP 422\): body\.speech_engine\.ws_url: Field required"):
            await api.create_engine({})
    async with api_of(lambda _: [response(500, b"<html>")]) as api:
        with pytest.raises(AgentsApiError, match=r"HTTP 500\): Internal Server Error"):
            await api.engines()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (lambda _: [Fault.RESET], "cannot be reached"),
        (lambda _: [response(200, b"<html>")], "not JSON"),
        (lambda _: [json_response({"token": ""})], "without a token"),
        (lambda _: [json_response([])], "without a token"),
    ],
)
async def test_what_is_no_answer_is_told(handler: Handler, words: str) -> None:
    """Every trouble is one kind of error."""
    async with api_of(handler) as api:
        with pytest.raises(AgentsApiError, match=words):
            await api.conversation_token("seng_1")
