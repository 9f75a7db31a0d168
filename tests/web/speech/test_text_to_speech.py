"""Text to speech over HTTP: when it begins, when it ends, and how it fails."""

import io
import wave

import httpx
import pytest
import trio

from tests.fakes.asgi import RawWebSocket
from tests.web.speech.speech_rig import CHUNK, speech_server
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.speech import requests

PATH = "/v1/text-to-speech/anna"
BODY = {"text": "Hello there."}
PCM = {"output_format": "pcm_16000"}
FAILURE = ProviderError(Upstream.TTS, ProviderFault.OVERLOADED, "No room.")


async def test_a_stream_begins_with_the_first_audio() -> None:
    """Long before the last has been made."""
    async with (
        speech_server() as server,
        server.http.stream("POST", f"{PATH}/stream", params=PCM, json=BODY) as answer,
    ):
        pieces = answer.aiter_raw()
        with trio.fail_after(5):
            assert await anext(pieces) == CHUNK
        assert answer.headers["content-type"] == "audio/pcm;rate=16000"
        assert answer.headers["x-cache"] == "miss"
        server.tts.gate.set()
        assert b"".join([piece async for piece in pieces]) == CHUNK


@pytest.mark.parametrize("tail", ["", "/stream", "/with-timestamps", "/stream/with-timestamps"])
async def test_a_client_that_leaves_ends_its_synthesis(tail: str) -> None:
    """Whether it has had audio or not."""
    async with speech_server() as server:
        with trio.move_on_after(0.3):
            async with server.http.stream("POST", PATH + tail, params=PCM, json=BODY) as answer:
                async for _ in answer.aiter_raw():
                    pass
        with trio.fail_after(5):
            await server.tts.idle.wait()
        assert server.tts.running == 0


@pytest.mark.parametrize("tail", ["", "/stream", "/with-timestamps", "/stream/with-timestamps"])
async def test_a_failure_before_the_first_audio_is_told_by_its_status(tail: str) -> None:
    """In ElevenLabs' shape."""
    async with speech_server() as server:
        server.tts.first_error = FAILURE
        answer = await server.http.post(PATH + tail, params=PCM, json=BODY)
    assert answer.status_code == 503
    assert answer.json() == {"detail": {"status": "tts_overloaded", "message": "No room."}}


async def test_a_failure_after_the_first_audio_breaks_the_stream_off() -> None:
    """Nobody takes half of a text for the whole; the next request is served."""
    async with speech_server() as server:
        server.tts.error = FAILURE
        server.tts.gate.set()
        async with server.http.stream("POST", f"{PATH}/stream", params=PCM, json=BODY) as broken:
            pieces = broken.aiter_raw()
            assert await anext(pieces) == CHUNK
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(pieces)
        server.tts.error = None
        answer = await server.http.post(f"{PATH}/stream", params=PCM, json=BODY)
    assert answer.content == CHUNK * 2


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-", 206, 0, 400),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=390-9999", 206, 390, 400),
        ("bytes=-5", 206, 395, 400),
        ("bytes=-9999", 206, 0, 400),
        ("lines=1-2", 200, 0, 400),
        ("bytes=-", 200, 0, 400),
        ("bytes=0-1,5-6", 200, 0, 400),
        pytest.param(f"bytes=0-{'9' * 5000}", 200, 0, 400, id="5000 digits"),
    ],
)
async def test_a_player_gets_the_range_that_it_asks_for(
    asked: str, status: int, start: int, end: int
) -> None:
    """RFC 9110: what is not understood is ignored."""
    async with speech_server() as server:
        server.tts.gate.set()
        answer = await server.http.get(PATH, params=PCM | BODY, headers={"range": asked})
    whole = CHUNK * 2
    assert (answer.status_code, answer.content) == (status, whole[start:end])
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers.get("content-range") == (f"bytes {start}-{end - 1}/400" if status == 206 else None)


@pytest.mark.parametrize("asked", ["bytes=400-", "bytes=9-3", "bytes=-0"])
async def test_a_range_that_is_not_there_is_refused(asked: str) -> None:
    """With the length, so that the player can ask again."""
    async with speech_server() as server:
        server.tts.gate.set()
        answer = await server.http.get(PATH, params=PCM | BODY, headers={"range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == "bytes */400"


async def test_a_wav_file_has_a_header() -> None:
    """With its length, but for a stream, which has none yet."""
    async with speech_server() as server:
        server.tts.gate.set()
        whole = await server.http.post(PATH, params={"output_format": "wav_24000"}, json=BODY)
        stream = await server.http.post(f"{PATH}/stream", params={"output_format": "wav_24000"}, json=BODY)
    assert whole.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(whole.content)) as file:
        assert (file.getframerate(), file.readframes(file.getnframes())) == (24000, CHUNK * 2)
    assert stream.content[44:] == CHUNK * 2
    assert stream.content[40:44] == b"\xff\xff\xff\xff"


async def test_what_a_request_says_reaches_the_voice() -> None:
    """Null is the same as nothing, and what nobody knows is ignored."""
    async with speech_server() as server:
        server.tts.gate.set()
        body = {**BODY, "voice_settings": {"speed": 1.5, "style": None}, "seed": 4, "next_text": None}
        await server.http.post(PATH, params=PCM, json=body)
        assert server.tts.options is not None
        assert server.tts.options.voice_id == "anna"
        assert server.tts.options.voice_settings.speed == 1.5
        assert str(server.tts.options.output_format) == "pcm_16000"


@pytest.mark.parametrize(
    ("body", "params", "status", "where"),
    [
        ({}, PCM, 422, ["body", "text"]),
        ({"text": 5}, PCM, 422, ["body", "text"]),
        ({"text": "Hi.", "voice_settings": {"speed": 9}}, PCM, 422, ["body", "voice_settings", "speed"]),
        ({"text": "Hi."}, {"output_format": "wav_1"}, 422, ["query", "output_format"]),
        ([], PCM, 400, None),
    ],
)
async def test_a_mistake_is_told_with_its_place(
    body: object, params: dict[str, str], status: int, where: list[str] | None
) -> None:
    """As FastAPI's list for a field, else with a status and a message."""
    async with speech_server() as server:
        answer = await server.http.post(PATH, params=params, json=body)
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert (detail[0]["loc"] if where else detail["status"]) == (where or "malformed_message")


async def answer_to(url: httpx.URL, request: bytes) -> bytes:
    """The status line that the bytes of a request get."""
    async with await trio.open_tcp_stream(url.host, url.port or 80) as stream:
        await stream.send_all(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode() + request)
        with trio.fail_after(10):
            return (await RawWebSocket(stream).read_head()).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"Content-Length: 1048577\r\n\r\n", b"413"),
        (b"Transfer-Encoding: chunked\r\n\r\n100001\r\n" + b"a" * 0x100001 + b"\r\n", b"413"),
        (b'Content-Length: 14\r\n\r\n{"text', b"408"),
    ],
    ids=["told", "untold", "slow"],
)
async def test_a_body_is_read_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, request_: bytes, status: bytes
) -> None:
    """In length, told or not, and in time."""
    if status == b"408":
        monkeypatch.setattr(requests, "BODY_WITHIN_S", 0.05)
    async with speech_server() as server:
        assert (await answer_to(server.http.base_url, request_)).split()[1] == status


async def test_keys_are_asked_for_and_tokens_do_for_a_get() -> None:
    """For an <audio> element, which can send no header."""
    gate = Gate(("right",), TokenMint("secret", 60))
    async with speech_server(gate=gate) as server:
        server.tts.gate.set()
        without = await server.http.post(PATH, params=PCM, json=BODY)
        right = await server.http.post(PATH, params=PCM, json=BODY, headers={"xi-api-key": "right"})
        token = gate.mint.issue("tts")
        played = [await server.http.get(PATH, params=PCM | BODY | {"token": token}) for _ in range(2)]
    statuses = [answer.status_code for answer in (without, right, *played)]
    assert statuses == [401, 200, 200, 401]
    assert without.json()["detail"]["status"] == "invalid_api_key"


async def test_voices_come_page_by_page() -> None:
    """Those that are searched for; an unknown one is 404."""
    async with speech_server() as server:
        first = (await server.http.get("/v2/voices", params={"search": "VOICE 1", "page_size": 8})).json()
        rest = (
            await server.http.get(
                "/v2/voices",
                params={"search": "voice 1", "page_size": 8, "next_page_token": first["next_page_token"]},
            )
        ).json()
        unknown = await server.http.get("/v1/voices/nobody")
    assert (first["total_count"], first["has_more"], rest["has_more"]) == (11, True, False)
    assert len(first["voices"] + rest["voices"]) == 11
    assert unknown.status_code == 404


async def test_openai_is_told_in_its_own_names() -> None:
    """And with 400 for whatever is wrong with a parameter."""
    asked = {"model": "m", "input": "Hello.", "voice": "anna"}
    async with speech_server() as server:
        answers = [
            await server.http.post("/v1/audio/speech", json=asked | wrong)
            for wrong in ({"voice": "nobody"}, {"input": " "}, {"speed": 9}, {"response_format": "flac"})
        ]
    assert [answer.status_code for answer in answers] == [400] * 4
    told = [answer.json()["error"]["param"] for answer in answers]
    assert told == ["voice", "input", "speed", "response_format"]
