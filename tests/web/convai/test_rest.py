from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from voice_fsm.runtime.agents import Agent, Agents, HostedAgent
from voice_fsm.runtime.session import Services
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.convai.endpoint import ConvaiEndpoint
from voice_fsm.web.convai.rest import agent_routes
from voice_fsm.web.seats import Seats
from voice_fsm.web.voice import DoorPolicy

KEY = {"xi-api-key": "key"}
AGENT = Agent(id="a", name="Ada", first_message="Hello.", prompt="Be brief.", language="en")


@asynccontextmanager
async def agents_app(
    services: Services, base_url: str = "http://voice.example:8000"
) -> AsyncIterator[httpx.AsyncClient]:
    gate = Gate(("key",))
    access = AgentAccess(gate, TokenMint("secret", 900.0))
    app = Starlette(routes=agent_routes(gate))
    app.state.convai = ConvaiEndpoint(
        Agents({"a": HostedAgent(AGENT, services)}), access, DoorPolicy(), Seats(1)
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
        yield client


@pytest.mark.parametrize("spelling", ["get-signed-url", "get_signed_url"])
async def test_a_signed_url_leads_back_to_this_server(services: Services, spelling: str) -> None:
    """To the address by which the caller knows it, with or without TLS in front."""
    async with agents_app(services) as client:
        answer = await client.get(f"/v1/convai/conversation/{spelling}?agent_id=a", headers=KEY)
        url = httpx.URL(answer.json()["signed_url"])
        assert (url.scheme, url.host, url.port) == ("ws", "voice.example", 8000)
        assert (url.path, url.params["agent_id"]) == ("/v1/convai/conversation", "a")
        assert len(url.params["conversation_signature"]) > 40
        assert answer.headers["cache-control"] == "no-store"
        behind_tls = {**KEY, "x-forwarded-proto": "https"}
        answer = await client.get(f"/v1/convai/conversation/{spelling}?agent_id=a", headers=behind_tls)
        assert answer.json()["signed_url"].startswith("wss://voice.example:8000/")


async def test_an_agent_is_described(services: Services) -> None:
    """In ElevenLabs' shape, as far as there is something to say."""
    async with agents_app(services) as client:
        agent = (await client.get("/v1/convai/agents/a", headers=KEY)).json()
    assert (agent["agent_id"], agent["name"]) == ("a", "Ada")
    described = agent["conversation_config"]["agent"]
    assert (described["first_message"], described["prompt"]["prompt"], described["language"]) == (
        "Hello.",
        "Be brief.",
        "en",
    )


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("conversation/get-signed-url?agent_id=a", {}, 401, "invalid_api_key"),
        ("conversation/get-signed-url?agent_id=a", {"xi-api-key": "wrong"}, 401, "invalid_api_key"),
        ("conversation/get-signed-url?agent_id=b", KEY, 404, "unknown_agent"),
        ("conversation/token?agent_id=a", {}, 404, "webrtc_not_supported"),
        ("agents/b", KEY, 404, "unknown_agent"),
        ("agents/a", {}, 401, "invalid_api_key"),
    ],
)
async def test_what_cannot_be_had_is_told(
    services: Services, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """As ElevenLabs tells it: a status and a message in ``detail``."""
    async with agents_app(services) as client:
        answer = await client.get(f"/v1/convai/{path}", headers=headers)
        assert (answer.status_code, answer.json()["detail"]["status"]) == (status, code)


async def test_a_signed_url_without_an_agent(services: Services) -> None:
    """The field that is missing is told."""
    async with agents_app(services) as client:
        answer: Any = await client.get("/v1/convai/conversation/get-signed-url", headers=KEY)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", "agent_id"]
