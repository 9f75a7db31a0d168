"""What a chat upstream can do to us, for each adapter: the code a client sees, and by when."""

import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
import structlog
import trio
from trio.testing import MockClock

from tests.fakes.chat_backend import ChatBackend
from tests.fakes.http_server import (
    Fault,
    Pause,
    Step,
    chunk,
    chunked_head,
    fail_name_lookups,
    failing_tls_port,
    json_response,
    refusing_port,
    serve_http,
)
from tests.fakes.openai_chat import OpenAiHost, said
from voice_fsm.chat.backend import BackendChat, BackendConfig
from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyText
from voice_fsm.chat.openai import OpenAiChat, OpenAiConfig
from voice_fsm.errors import ProviderError
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.http import Deadlines
from voice_fsm.upstream.retry import RetryPolicy

SECRETS = ("s3cr3t-backend", "s3cr3t-provider", "s3cr3t-header", "s3cr3t-session")
DEADLINES = Deadlines(connect_s=2, first_byte_s=5, stall_s=3, total_s=20)
RETRY = RetryPolicy(max_retries=2, first_delay_s=0.5, longest_delay_s=2, budget_s=4)

Make = Callable[[httpx.AsyncClient, str], ChatProvider]


def backend(client: httpx.AsyncClient, url: str) -> ChatProvider:
    defaults = BackendOptions(provider="acme", api_key=SECRETS[1])
    return BackendChat(
        client,
        BackendConfig(
            base_url=url,
            api_key=SECRETS[0],
            defaults=defaults,
            headers={"X-Key": SECRETS[2]},
            deadlines=DEADLINES,
            retry=RETRY,
        ),
    )


def openai(client: httpx.AsyncClient, url: str) -> ChatProvider:
    return OpenAiChat(
        client,
        OpenAiConfig(
            base_url=f"{url}/v1",
            api_key=SECRETS[0],
            model="m",
            headers={"X-Key": SECRETS[2]},
            deadlines=DEADLINES,
            retry=RETRY,
        ),
    )


@asynccontextmanager
async def serving(make: Make, steps: list[Step]) -> AsyncIterator[str]:
    """Play the steps to every question; a registration is given as usual."""
    handler: Any = ChatBackend(chatting=steps) if make is backend else OpenAiHost(steps)
    async with serve_http(handler) as server:
        yield server.url


@asynccontextmanager
async def refusing(make: Make, steps: list[Step]) -> AsyncIterator[str]:
    async with refusing_port() as port:
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def nameless(make: Make, steps: list[Step]) -> AsyncIterator[str]:
    fail_name_lookups()
    yield "http://chat.invalid"


@asynccontextmanager
async def without_tls(make: Make, steps: list[Step]) -> AsyncIterator[str]:
    async with failing_tls_port() as port:
        yield f"https://127.0.0.1:{port}"


HEAD = chunked_head()
WORD = chunk(said("word "))
ECHO = {"error": {"message": f"no: {' '.join(SECRETS)}", "code": SECRETS[0]}}
ERROR_EVENT = b'event: error\ndata: {"message": "s3cr3t-backend"}\n\n'
PINGS: list[Step] = [chunk(b": ping\n\n"), Pause(2.5)]
WORDS: list[Step] = [WORD, Pause(2.5)]
SHORT, LONG = {"Retry_After": "1"}, {"Retry_After": "30"}


@attrs.frozen
class Row:
    """One way to fail."""

    code: str
    within_s: tuple[float, float]
    """When the error comes, at the earliest and at the latest."""
    steps: list[Step] = attrs.field(factory=list)
    place: Any = serving
    words: int = 0
    """How much of the reply comes before."""


# Two retries take 0.5 s and 1 s, less up to a quarter.
RETRIED = (1.1, 1.6)
AT_ONCE = (0.0, 0.1)

TABLE = {
    "refused": Row("chat_unreachable", RETRIED, place=refusing),
    "unknown name": Row("chat_unreachable", RETRIED, place=nameless),
    "failed TLS": Row("chat_unreachable", RETRIED, place=without_tls),
    "401": Row("chat_auth_failed", AT_ONCE, [json_response(ECHO, 401)]),
    "402": Row("chat_quota_exceeded", AT_ONCE, [json_response(ECHO, 402)]),
    "422": Row("chat_rejected", AT_ONCE, [json_response(ECHO, 422)]),
    "429, back in 1 s": Row("chat_rate_limited", (2.0, 2.1), [json_response(ECHO, 429, **SHORT)]),
    "429, back in 30 s": Row("chat_rate_limited", AT_ONCE, [json_response(ECHO, 429, **LONG)]),
    "429, quota": Row(
        "chat_quota_exceeded", AT_ONCE, [json_response({"error": {"code": "insufficient_quota"}}, 429)]
    ),
    "500": Row("chat_server_error", RETRIED, [json_response(ECHO, 500)]),
    "503": Row("chat_overloaded", RETRIED, [json_response(ECHO, 503)]),
    "hang before the head": Row("chat_timeout", (5.0, 5.1), [Fault.HANG]),
    "hang before the first byte": Row("chat_timeout", (5.0, 5.1), [HEAD, Fault.HANG]),
    "hang midway": Row("chat_stalled", (3.0, 3.1), [HEAD, WORD, Fault.HANG], words=1),
    "reset before the head": Row("chat_truncated", RETRIED, [Fault.RESET]),
    "reset midway": Row("chat_truncated", AT_ONCE, [HEAD, WORD, WORD, Pause(0.05), Fault.RESET], words=2),
    "cut in a chunk": Row("chat_truncated", AT_ONCE, [HEAD, WORD, b"99\r\ndata: ", Fault.CLOSE], words=1),
    "garbage for a head": Row("chat_bad_response", AT_ONCE, [b"\x15\x03\x01 s3cr3t-backend\r\n\r\n"]),
    "garbage for a chunk": Row("chat_bad_response", AT_ONCE, [HEAD, WORD, b"s3cr3t-backend\r\n"], words=1),
    "clean end at a bad moment": Row("chat_truncated", AT_ONCE, [HEAD, WORD, b"0\r\n\r\n"], words=1),
    "clean close without a length": Row(
        "chat_truncated",
        AT_ONCE,
        [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", said("word "), Fault.CLOSE],
        words=1,
    ),
    "error in the stream": Row("chat_server_error", AT_ONCE, [HEAD, WORD, chunk(ERROR_EVENT)], words=1),
    "nothing": Row("chat_bad_response", AT_ONCE, [HEAD, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"]),
    "slow drip": Row("chat_timeout", (20.0, 20.1), [HEAD, *PINGS * 20]),
    "slow drip of words": Row("chat_timeout", (20.0, 20.1), [HEAD, *WORDS * 20], words=8),
}  # fmt: skip


@pytest.mark.parametrize("make", [backend, openai])
@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_each_fault_has_its_code_and_its_time(
    client: httpx.AsyncClient, clock: MockClock, caplog: pytest.LogCaptureFixture, make: Make, row: Row
) -> None:
    """Whatever happens upstream, the turn ends in time with the right code, and no secret is told."""
    caplog.set_level(logging.INFO)  # below it, httpcore logs what it cannot parse
    said: list[str] = []
    async with row.place(make, row.steps) as url:
        chat = make(client, url)
        began_at = trio.current_time()
        with structlog.testing.capture_logs() as entries, pytest.raises(ProviderError) as caught:
            await listen(chat, said)
        took_s = trio.current_time() - began_at
    error = caught.value
    assert error.code == row.code
    assert row.within_s[0] <= took_s <= row.within_s[1]
    assert said == ["word "] * row.words
    assert error.message.startswith("The chat")
    told = [
        repr(error),
        str(error),
        *traceback.format_exception(error),
        caplog.text,
        repr(entries),
        repr(chat),
    ]
    assert not any(secret in text for secret in SECRETS for text in told)


async def listen(chat: ChatProvider, said: list[str]) -> None:
    request = ChatRequest(session_id="s", turn_id=1, text="Hi")
    async with chat.reply(request) as parts:
        async for part in parts:
            assert isinstance(part, ReplyText)
            said.append(part.text)


@pytest.mark.parametrize("make", [backend, openai])
@pytest.mark.parametrize("key", ["s3cr3t-session\u2026", "s3cr3t-session\nX: y"])
async def test_a_key_that_cannot_be_sent_is_not_told(client: httpx.AsyncClient, make: Make, key: str) -> None:
    """A session's key with odd characters fails as a key, without being quoted."""
    settings: Any = make(client, "http://127.0.0.1:1")
    chat = type(settings)(client, attrs.evolve(settings._config, api_key=key))
    with pytest.raises(ProviderError) as caught:
        await listen(chat, [])
    assert caught.value.code == "chat_auth_failed"
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("make", [backend, openai])
def test_settings_hide_their_secrets(make: Make) -> None:
    """Settings can be logged."""
    chat: Any = make(httpx.AsyncClient(), "http://127.0.0.1:1")
    assert "s3cr3t" not in repr(chat._config)
