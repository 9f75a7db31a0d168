from typing import Any

import httpx
import trio
from elevenlabs import ElevenLabs

from tests.fakes.elevenlabs_agents import FakeAgentsApi
from tests.fakes.http_server import serve_http


async def test_the_official_client_manages_engines() -> None:
    """Create, get, list, update, delete: the fake's answers are ones that the SDK can read."""
    fake = FakeAgentsApi()

    def manage(base_url: str) -> None:
        with httpx.Client() as connections:
            elevenlabs = ElevenLabs(api_key=fake.key, base_url=base_url, httpx_client=connections)
            client: Any = elevenlabs.speech_engine
            engine = client.create(speech_engine={"ws_url": "wss://example.com/ws"}, name="one")
            assert engine.engine_id == "seng_1"
            assert client.get("seng_1").config.name == "one"
            client.update("seng_1", name="two")
            assert [listed.name for listed in client.list().speech_engines] == ["two"]
            client.delete("seng_1")

    async with serve_http(fake.answer) as server:
        await trio.to_thread.run_sync(manage, server.url)
    assert not fake.engines
