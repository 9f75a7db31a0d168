"""Keys and tokens: who is let in."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from voice_fsm.errors import AccessDenied
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.tokens import token_routes

KEYS = ("first-key", "second-key")


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def connection(
    headers: Mapping[str, str] | None = None, query: str = "", method: str | None = None
) -> HTTPConnection:
    """A WebSocket's request, or with a method an HTTP one."""
    scope = {
        "type": "http" if method else "websocket",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    return HTTPConnection(scope | ({"method": method} if method else {}))


@pytest.mark.parametrize(
    "headers",
    [
        {"xi-api-key": "first-key"},
        {"xi-api-key": "second-key"},
        {"authorization": "Bearer second-key"},
        {"authorization": "bearer first-key "},
    ],
)
def test_any_of_the_keys_lets_in(headers: dict[str, str]) -> None:
    """In the header of either family of clients."""
    Gate(KEYS).check(connection(headers), "voice")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"xi-api-key": ""},
        {"xi-api-key": "first-key2"},
        {"xi-api-key": "first-ke"},
        {"xi-api-key": "clé"},
        {"authorization": "first-key"},
        {"authorization": "Basic first-key"},
        {"authorization": "Bearer"},
    ],
)
def test_nothing_else_does(headers: dict[str, str]) -> None:
    """Neither a part of a key, nor another scheme."""
    with pytest.raises(AccessDenied) as denied:
        Gate(KEYS).check(connection(headers), "voice")
    assert "first-key" not in denied.value.message


def test_without_keys_the_gate_is_open() -> None:
    """Whatever is shown."""
    Gate().check(connection({"xi-api-key": "any"}, "token=any"), "voice")


def test_a_token_lets_in_once() -> None:
    """By either name in the query; the second use is refused."""
    gate = Gate(KEYS, TokenMint("secret", 60))
    for name in ("token", "single_use_token"):
        query = f"{name}={gate.mint.issue()}"
        gate.check(connection(query=query), "voice")
        with pytest.raises(AccessDenied):
            gate.check(connection(query=query), "voice")


def test_the_ranges_of_one_sound_are_one_use() -> None:
    """A player asks for the beginning, and for more of the same address when its user seeks."""
    gate = Gate(KEYS, TokenMint("secret", 60))
    query = f"text=Hi&token={gate.mint.issue()}"
    part = {"range": "bytes=0-1"}
    for _ in range(3):
        gate.check(connection(part, query, "GET"), "tts")
    for others in (connection({}, query, "GET"), connection(part, f"{query}&text=Ho", "GET")):
        with pytest.raises(AccessDenied):
            gate.check(others, "tts")
    whole_first = f"text=Hi&token={gate.mint.issue()}"
    gate.check(connection({}, whole_first, "GET"), "tts")
    with pytest.raises(AccessDenied):
        gate.check(connection(part, whole_first, "GET"), "tts")


def test_a_token_is_for_what_it_was_bought_for() -> None:
    """A refusal for another use does not spend it."""
    mint = TokenMint("secret", 60)
    token = mint.issue("tts_websocket")
    assert not mint.redeem(token, "realtime_scribe")
    assert mint.redeem(token, "tts_websocket")


def test_a_token_expires_and_is_then_forgotten() -> None:
    """In the second it was told to; used ones are kept until then and no longer."""
    clock = Clock()
    mint = TokenMint("secret", 60, clock_s=clock)
    used, late = mint.issue(), mint.issue()
    assert mint.redeem(used, "voice")
    clock.now_s += 59
    assert not mint.redeem(used, "voice")
    clock.now_s += 1
    assert not mint.redeem(late, "voice")
    fresh = mint.issue()
    assert mint.redeem(fresh, "voice")
    assert len(mint._spent) == 1


def test_workers_know_each_others_tokens_by_their_common_secret() -> None:
    """Another secret's tokens, and ones that were changed, are unknown."""
    token = TokenMint("secret", 60).issue()
    assert TokenMint("secret", 60).redeem(token, "voice")
    assert not TokenMint("other", 60).redeem(token, "voice")
    assert not TokenMint("secret", 60).redeem("x" + token, "voice")
    assert not TokenMint("secret", 60).redeem("", "voice")


def test_a_token_is_for_those_who_can_send_no_header() -> None:
    """GET requests too, for an <audio> element; but it posts nothing, and buys no other token."""
    gate = Gate(KEYS, TokenMint("secret", 60))
    query = f"token={gate.mint.issue()}"
    with pytest.raises(AccessDenied):
        gate.check(connection(query=query, method="POST"), "voice")
    gate.check(connection(query=query, method="GET"), "voice")


def test_no_secret_is_shown_by_a_gate() -> None:
    """It may turn up in a log."""
    assert "key" not in repr(Gate(("first-key",), TokenMint("secret", 60)))


@asynccontextmanager
async def shop(gate: Gate) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the routes that sell tokens."""
    transport = httpx.ASGITransport(Starlette(routes=list(token_routes(gate))))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "use"), [("/v1/tokens", "voice"), ("/v1/single-use-token/tts_websocket", "tts_websocket")]
)
async def test_a_key_buys_a_token(path: str, use: str) -> None:
    """Which no cache keeps."""
    gate = Gate(KEYS, TokenMint("secret", 60))
    async with shop(gate) as client:
        answer = await client.post(path, headers={"xi-api-key": "first-key"})
    assert answer.json()["expires_in_s"] == 60
    assert answer.headers["cache-control"] == "no-store"
    assert gate.mint.redeem(answer.json()["token"], use)


async def test_no_key_buys_none() -> None:
    """Nor does a token; the refusal has ElevenLabs' shape."""
    gate = Gate(KEYS, TokenMint("secret", 60))
    async with shop(gate) as client:
        answer = await client.post("/v1/tokens", params={"token": gate.mint.issue()})
        unknown = await client.post("/v1/single-use-token/any", headers={"xi-api-key": "first-key"})
        listed = await client.post("/v1/single-use-token/x", headers={"xi-api-key": "first-key"})
    assert answer.status_code == 401
    assert answer.json()["detail"]["status"] == "invalid_api_key"
    assert unknown.status_code == 200
    assert listed.status_code == 404
