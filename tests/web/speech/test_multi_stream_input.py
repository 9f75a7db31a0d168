"""``multi-stream-input``: contexts over one socket, and every way they end."""

import base64
from typing import Any

import pytest

from tests.web.speech.speech_rig import CHUNK, Socket, speech_server
from voice_fsm.web.auth import Gate, TokenMint

PATH = "/v1/text-to-speech/anna/multi-stream-input?output_format=pcm_16000"


async def audio(client: Socket) -> tuple[str, bytes]:
    message = await client.receive()
    assert message["isFinal"] is None
    return message["contextId"], base64.b64decode(message["audio"])


async def test_contexts_follow_each_other_over_one_socket() -> None:
    """Each ends with a final frame of its own; its id may be used again, with other settings."""
    async with speech_server() as server, server.connect(PATH) as client:
        server.tts.gate.set()
        for speed in (1.1, 1.2):
            await client.send(text=" ", context_id="a", voice_settings={"speed": speed})
            await client.send(text="Hello there, my dear friend. How", context_id="a")
            assert await audio(client) == await audio(client) == ("a", CHUNK)
            await client.send(text="", context_id="a")
            await client.send(text=" are you", contextId="a", flush=True)
            assert await audio(client) == await audio(client) == ("a", CHUNK)
            await client.send(context_id="a", close_context=True)
            assert await client.receive() == {"audio": None, "isFinal": True, "contextId": "a"}
            assert server.tts.options is not None
            assert server.tts.options.voice_settings.speed == speed
        assert server.tts.spoken == ["Hello there, my dear friend.", "How are you"] * 2
        await client.send(text="")
        await client.send(close_socket=True)
        assert (await client.closed())[0] == 1000


async def test_contexts_speak_side_by_side() -> None:
    """One that was closed is spoken to its end, and takes no more text."""
    async with speech_server() as server, server.connect(PATH + "&auto_mode=true") as client:
        for name in ("a", "b"):
            await client.send(text="Hello there ", context_id=name)
            assert await audio(client) == (name, CHUNK)
        await client.send(context_id="a", close_context=True)
        await client.send(text="No more ", context_id="a")
        await client.send(close_socket=True)
        server.tts.gate.set()
        told = [await client.receive() for _ in range(4)]
        assert sorted((item["contextId"], item["isFinal"] or False) for item in told) == [
            *(("a", False), ("a", True), ("b", False), ("b", True))
        ]
        assert (await client.closed())[0] == 1000
        assert server.tts.spoken == ["Hello there"] * 2


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_client_that_leaves_ends_all_its_syntheses(*, is_whole: bool) -> None:
    """Whether text was still to come or not."""
    async with speech_server() as server:
        async with server.connect(PATH) as client:
            for name in ("a", "b"):
                await client.send(text="Hello there.", context_id=name, flush=True)
                await audio(client)
            if is_whole:
                await client.send(close_socket=True)
        await server.tts.idle.wait()
        assert server.tts.running == 0


async def test_a_sixth_context_ends_the_socket() -> None:
    """As at ElevenLabs."""
    async with speech_server() as server, server.connect(PATH) as client:
        for number in range(6):
            await client.send(text=" ", context_id=f"context-{number}")
        assert (await client.receive())["error"] == "max_active_conversations"
        assert (await client.closed())[0] == 1008


@pytest.mark.parametrize(
    ("query", "fields", "error"),
    [
        ("", {"text": 5}, "invalid_input_message"),
        ("&inactivity_timeout=1", {"text": " ", "context_id": "a"}, "input_timeout_exceeded"),
        ("", {"text": "word " * 3000, "context_id": "a"}, "max_character_limit_exceeded"),
    ],
)
async def test_a_mistake_is_told_and_closes_with_1008(query: str, fields: dict[str, Any], error: str) -> None:
    """Whatever the other contexts do."""
    async with speech_server() as server, server.connect(PATH + query) as client:
        await client.send(**fields)
        assert (await client.receive())["error"] == error
        assert (await client.closed())[0] == 1008


async def test_the_key_may_come_with_the_first_message() -> None:
    """A wrong one is told and closed."""
    async with speech_server(gate=Gate(("right",), TokenMint("secret", 60))) as server:
        async with server.connect(PATH) as client:
            await client.send(text=" ", xi_api_key="right", close_socket=True)
            assert (await client.closed())[0] == 1000
        async with server.connect(PATH) as client:
            await client.send(text=" ", xi_api_key="wrong")
            assert (await client.receive())["error"] == "invalid_api_key"
