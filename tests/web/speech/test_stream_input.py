"""``stream-input``: text in, audio out, and every way a stream ends."""

import base64
from typing import Any

import pytest

from tests.web.speech.speech_rig import CHUNK, Socket, speech_server
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.web.auth import Gate, TokenMint

PATH = "/v1/text-to-speech/anna/stream-input?output_format=pcm_16000"


async def audio(client: Socket) -> bytes:
    message = await client.receive()
    assert message["isFinal"] is None
    return base64.b64decode(message["audio"])


async def test_audio_comes_while_text_is_still_written() -> None:
    """A whole sentence is spoken; the rest follows at the end, then the final frame and the close."""
    async with speech_server() as server, server.connect(PATH) as client:
        server.tts.gate.set()
        await client.send(text=" ", voice_settings={"speed": 1.2}, generation_config=None)
        await client.send(text="Hello there, my dear friend. How", try_trigger_generation=True)
        assert await audio(client) + await audio(client) == CHUNK * 2
        assert server.tts.spoken == ["Hello there, my dear friend."]
        await client.send(text=" are you? ")
        await client.send(text="")
        assert await audio(client) + await audio(client) == CHUNK * 2
        assert await client.receive() == {"audio": None, "isFinal": True}
        assert (await client.closed())[0] == 1000
        assert server.tts.spoken[1:] == ["How are you?"]
        assert server.tts.options is not None
        assert server.tts.options.voice_settings.speed == 1.2


@pytest.mark.parametrize(("query", "fields"), [("", {"flush": True}), ("&auto_mode=true", {})])
async def test_half_a_sentence_is_spoken_when_it_is_asked_for(query: str, fields: dict[str, Any]) -> None:
    """By a flush, or in the mode in which each message is one."""
    async with speech_server() as server, server.connect(PATH + query) as client:
        await client.send(text=" ")
        await client.send(text="Wait a ", **fields)
        assert await audio(client) == CHUNK
        assert server.tts.spoken == ["Wait a"]


async def test_a_client_that_leaves_ends_its_synthesis() -> None:
    """Though text was still to come."""
    async with speech_server() as server:
        async with server.connect(PATH) as client:
            await client.send(text="Hello there, my dear friend. And ")
            await audio(client)
        await server.tts.idle.wait()
        assert server.tts.running == 0


async def test_what_comes_after_the_end_of_the_text_changes_nothing() -> None:
    """It has been asked for as a whole, and is spoken to its end."""
    async with speech_server() as server, server.connect(PATH) as client:
        await client.send(text="Hello there, my dear friend.")
        await client.send(text="")
        assert await audio(client) == CHUNK
        await client.websocket.send_message("{")
        await client.websocket.send_message(b"x")
        server.tts.gate.set()
        assert await audio(client) == CHUNK
        assert await client.receive() == {"audio": None, "isFinal": True}
        assert (await client.closed())[0] == 1000


@pytest.mark.parametrize(
    ("query", "frame", "error"),
    [
        ("", "{", "invalid_input_message"),
        ("", '{"flush":true}', "invalid_input_message"),
        ("", '{"text":5}', "invalid_input_message"),
        ("&inactivity_timeout=1", None, "input_timeout_exceeded"),
        ("&inactivity_timeout=never", None, "invalid_field"),
        ("&output_format=pcm_1", '{"text":" "}', "invalid_field"),
    ],
)
async def test_a_mistake_is_told_and_closes_with_1008(query: str, frame: str | None, error: str) -> None:
    """The reason of the close is the message, as far as it goes."""
    path = PATH.partition("?")[0] + "?" + query.removeprefix("&")
    async with speech_server() as server, server.connect(path) as client:
        if frame is not None:
            await client.websocket.send_message(frame)
        told = await client.receive()
        assert (told["error"], told["code"]) == (error, 1008)
        code, reason = await client.closed()
        assert code == 1008
        assert reason
        assert told["message"].startswith(reason)


async def test_what_fails_upstream_is_told() -> None:
    """After what had been spoken before it."""
    async with speech_server() as server, server.connect(PATH) as client:
        server.tts.error = ProviderError(Upstream.TTS, ProviderFault.STALLED, "It fell silent.")
        server.tts.gate.set()
        await client.send(text="Hello there, my dear friend. ", flush=True)
        assert await audio(client) == CHUNK
        assert (await client.receive())["error"] == "tts_stalled"


async def test_an_unknown_voice_is_told() -> None:
    """In the words that clients know."""
    async with speech_server() as server, server.connect(PATH.replace("anna", "nobody")) as client:
        await client.send(text=" ")
        assert (await client.receive())["error"] == "voice_not_found"


@pytest.mark.parametrize("name", ["xi_api_key", "xi-api-key"])
async def test_the_key_may_come_with_the_first_message(name: str) -> None:
    """For who can send no header; a wrong one is told and closed."""
    gate = Gate(("right",), TokenMint("secret", 60))
    async with speech_server(gate=gate) as server:
        server.tts.gate.set()
        async with server.connect(PATH) as client:
            await client.send(text=" ", **{name: "right"})
            await client.send(text="")
            assert (await client.receive())["isFinal"] is True
        async with server.connect(PATH) as client:
            await client.send(text=" ", **{name: "wrong"})
            assert (await client.receive())["error"] == "invalid_api_key"
            assert (await client.closed())[0] == 1008
