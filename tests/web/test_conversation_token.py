from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from tests.fakes.asgi import serving
from tests.fakes.elevenlabs_agents import FakeAgentsApi
from tests.fakes.http_server import serve_http
from voice_fsm.upstream.elevenlabs_agents import AgentsApi
from voice_fsm.web.auth import Gate
from voice_fsm.web.conversation_token import ConversationTokens


async def get_token(
    agent_id: str | None = "seng_1",
    *,
    gate: Gate | None = None,
    origins: frozenset[str] = frozenset(),
    upstream_key: str = "sk_test_key",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async with serve_http(FakeAgentsApi().answer) as elevenlabs, httpx.AsyncClient() as client:
        api = AgentsApi(client, base_url=elevenlabs.url, api_key=upstream_key)
        tokens = ConversationTokens(api, agent_id, gate or Gate(), origins)
        async with serving(Starlette(routes=[Route("/api/token", tokens.__call__)])) as served:
            return await client.get(f"http://127.0.0.1:{served.port}/api/token", headers=headers)


async def test_a_browser_gets_a_token_and_nothing_else() -> None:
    """Neither the key nor the engine's id leaves the server."""
    answer = await get_token()
    assert answer.json() == {"token": "jwt-for-seng_1"}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"agent_id": None}, 404, "not_configured"),
        ({"upstream_key": "other"}, 502, "elevenlabs_api_error"),
        ({"origins": frozenset({"https://app.example.com"})}, 403, "origin_refused"),
        ({"gate": Gate(keys=("k1",))}, 401, "unauthorized"),
    ],
)
async def test_who_gets_none_is_told_why(wrong: dict[str, Any], status: int, code: str) -> None:
    """In a code, a sentence and a status, without a word of ElevenLabs'."""
    answer = await get_token(**wrong)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert "Invalid" not in error["message"]


async def test_a_page_and_a_key_that_are_known_are_let_in() -> None:
    """Both have to be right where both are asked for."""
    answer = await get_token(
        gate=Gate(keys=("k1",)),
        origins=frozenset({"https://app.example.com"}),
        headers={"Origin": "https://app.example.com", "xi-api-key": "k1"},
    )
    assert answer.status_code == 200
