from collections.abc import Callable
from typing import Any

import attrs
import httpx
import openai
import pytest
import trio

from tests.fakes.http_server import json_response, response, serve_http, streamed
from tests.fakes.openai_chat import (
    USAGE,
    OpenAiHost,
    completion_chunk,
    groq_stream,
    lm_studio_stream,
    ollama_stream,
    openai_stream,
    vllm_stream,
)
from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.openai import OpenAiChat, OpenAiConfig
from voice_fsm.errors import ClientError, ProviderError, ProviderFault
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import BackendOptions

HOSTS = [openai_stream, groq_stream, vllm_stream, ollama_stream, lm_studio_stream]


def config(url: str, **changes: Any) -> OpenAiConfig:
    return OpenAiConfig(base_url=f"{url}/v1", **{"api_key": "ours", "model": "small", **changes})


def question(text: str = "Hi", **changes: Any) -> ChatRequest:
    return ChatRequest(session_id="s1", turn_id=3, text=text, **changes)


async def ask(
    client: httpx.AsyncClient, settings: OpenAiConfig, request: ChatRequest | None = None
) -> list[ReplyPart]:
    chat: ChatProvider = OpenAiChat(client, settings)
    async with chat.reply(request or question()) as parts:
        return [part async for part in parts]


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


@pytest.mark.parametrize("write", HOSTS)
async def test_each_hosts_reply_is_spoken(
    client: httpx.AsyncClient, write: Callable[..., list[bytes]]
) -> None:
    """What is told is the text and nothing but the text, whichever host it is from."""
    host = OpenAiHost(streamed(*write("Hel", "lo."), content_type="text/event-stream; charset=utf-8"))
    async with serve_http(host) as server:
        parts = await ask(client, config(server.url))
    assert text_of(parts) == "Hello."
    assert isinstance(parts[-1], ReplyMetadata)
    assert parts[-1].data["finish_reason"] == "stop"


async def test_the_request(client: httpx.AsyncClient) -> None:
    """The question goes out as the reference describes it, and nothing is sent that was not set."""
    host = OpenAiHost()
    async with serve_http(host) as server:
        await ask(client, config(server.url))
    (call,) = host.calls
    assert call.method == "POST"
    assert call.headers["authorization"] == "Bearer ours"
    assert call.headers["content-type"] == "application/json"
    assert call.json() == {
        "model": "small",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_the_settings_reach_the_host(client: httpx.AsyncClient) -> None:
    """Each setting has its place in the request."""
    host = OpenAiHost()
    history = (Exchange("Tell me", "Once upon ", interrupted=True),)
    async with serve_http(host) as server:
        settings = config(
            server.url,
            api_key="",
            system_prompt="Be brief.",
            temperature=0.0,
            max_tokens=300,
            max_tokens_field="max_completion_tokens",
            include_usage=False,
            extra_body={"reasoning_effort": "low"},
            headers={"OpenAI-Organization": "org"},
        )
        await ask(client, settings, question("Stop", history=history))
    (call,) = host.calls
    assert "authorization" not in call.headers
    assert call.headers["openai-organization"] == "org"
    assert call.json() == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Tell me"},
            {"role": "assistant", "content": "Once upon \u2014"},
            {"role": "user", "content": "Stop"},
        ],
        "stream": True,
        "temperature": 0.0,
        "max_completion_tokens": 300,
        "reasoning_effort": "low",
    }


async def test_a_sessions_choice_is_honoured(client: httpx.AsyncClient) -> None:
    """Model, prompt, key and address of the session stand in for the server's."""
    elsewhere, host = OpenAiHost(), OpenAiHost()
    async with serve_http(elsewhere) as other, serve_http(host) as server:
        chosen = BackendOptions(
            provider="any", model="big", system_prompt="", api_key="theirs", base_url=f"{other.url}/v1/"
        )
        settings = config(server.url, system_prompt="Be brief.", allowed_base_urls=(other.url,))
        await ask(client, settings, question(backend=chosen))
    assert host.calls == []
    (call,) = elsewhere.calls
    assert call.headers["authorization"] == "Bearer theirs"
    assert call.json()["model"] == "big"
    assert [message["role"] for message in call.json()["messages"]] == ["user"]


async def test_our_key_stays_with_our_host(client: httpx.AsyncClient) -> None:
    """An address of the session's choice does not get the server's key."""
    elsewhere = OpenAiHost()
    async with serve_http(elsewhere) as other:
        settings = config("http://127.0.0.1:1", allowed_base_urls=(other.url,))
        await ask(client, settings, question(backend=BackendOptions(base_url=f"{other.url}/v1")))
    assert "authorization" not in elsewhere.calls[0].headers


async def test_other_choices_keep_our_key(client: httpx.AsyncClient) -> None:
    """A provider's name means nothing here, and our own address is ours."""
    host = OpenAiHost()
    async with serve_http(host) as server:
        chosen = BackendOptions(provider="any", base_url=f"{server.url}/v1")
        await ask(client, config(server.url), question(backend=chosen))
    assert host.calls[0].headers["authorization"] == "Bearer ours"


async def test_an_address_that_is_not_allowed_is_not_called(client: httpx.AsyncClient) -> None:
    """The session is told, early by `check` and at the latest when it asks."""
    elsewhere = OpenAiHost()
    async with serve_http(elsewhere) as other:
        chosen = BackendOptions(base_url=f"{other.url}/v1")
        settings = config("http://127.0.0.1:1")
        with pytest.raises(ClientError):
            OpenAiChat(client, settings).check(chosen)
        with pytest.raises(ClientError) as caught:
            await ask(client, settings, question(backend=chosen))
    assert caught.value.field == "backend.base_url"
    assert elsewhere.calls == []


def test_what_is_allowed_passes_the_check() -> None:
    """No address, the server's own and an allowed one pass."""
    chat = OpenAiChat(httpx.AsyncClient(), config("http://127.0.0.1:1", allowed_base_urls=("http://h",)))
    for base_url in (None, "http://127.0.0.1:1/v1", "http://h/v2"):
        chat.check(BackendOptions(base_url=base_url))


async def test_without_a_model_nothing_is_asked(client: httpx.AsyncClient) -> None:
    """A missing setting is told as such."""
    with pytest.raises(ProviderError) as caught:
        await ask(client, config("http://127.0.0.1:1", model=""))
    assert caught.value.fault is ProviderFault.UNAVAILABLE
    assert "model" in caught.value.message


async def test_a_wrong_path_is_named(client: httpx.AsyncClient) -> None:
    """The usual mistake, a base address without its version, can be seen from the error."""
    async with serve_http(OpenAiHost()) as server:
        with pytest.raises(ProviderError) as caught:
            await ask(client, attrs.evolve(config(server.url), base_url=f"{server.url}/api"))
    error = caught.value
    assert (error.fault, error.status) == (ProviderFault.REJECTED, 404)
    assert "/api/chat/completions" in error.message


@pytest.mark.parametrize(
    "answer",
    [
        json_response({"error": "Unexpected endpoint or method. Returning 200 anyway"}),
        response(200, b"<html>", content_type="text/html"),
        response(200, content_type=""),
    ],
)
async def test_a_success_that_is_no_stream_is_none(client: httpx.AsyncClient, answer: bytes) -> None:
    """LM Studio answers 200 to everything: only an event stream is a reply."""
    async with serve_http(OpenAiHost([answer])) as server:
        with pytest.raises(ProviderError) as caught:
            await ask(client, config(server.url))
    assert caught.value.fault is ProviderFault.BAD_RESPONSE


async def test_a_failure_of_the_callers_own_is_left_alone(client: httpx.AsyncClient) -> None:
    """What goes wrong in the body of the context is not taken for the host's."""
    async with serve_http(OpenAiHost()) as server:
        with pytest.raises(ZeroDivisionError):
            async with OpenAiChat(client, config(server.url)).reply(question()):
                raise ZeroDivisionError


@pytest.mark.parametrize("write", HOSTS)
async def test_the_official_client_reads_our_fakes(write: Callable[..., list[bytes]]) -> None:
    """Our fakes' streams are what the official client expects of a host: they are no straw men."""

    def ask_officially(url: str) -> tuple[str, Any]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as official:
            stream = official.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            chunks = list(stream)
        texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
        return "".join(texts), usages

    async with serve_http(OpenAiHost(streamed(*write("Hel", "lo.")))) as server:
        text, usages = await trio.to_thread.run_sync(ask_officially, server.url)
    assert text.endswith("Hello.")
    assert [usage.total_tokens for usage in usages] in ([], [USAGE["total_tokens"]])


async def test_the_official_client_sees_our_fakes_errors() -> None:
    """An error in the stream is one to the official client too."""

    def ask_officially(url: str) -> str:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as official:
            stream = official.chat.completions.create(
                model="small", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            with pytest.raises(openai.APIError) as caught:
                list(stream)
        return caught.value.message

    failing = streamed(completion_chunk({"content": "Hi"}), b'data: {"error": {"message": "broke"}}\n\n')
    async with serve_http(OpenAiHost(failing)) as server:
        assert await trio.to_thread.run_sync(ask_officially, server.url) == "broke"
