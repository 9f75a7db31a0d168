"""Uploads: how many, how large, how long, and for whom."""

import httpx
import pytest
import trio

from tests.web.speech.speech_rig import SpeechServer, speech_server
from voice_fsm.audio import AudioFormat, wav_header
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.stt.base import CommittedTranscript
from voice_fsm.web.speech.transcripts import TranscriptLimits

PATH = "/v1/speech-to-text"
SECOND = b"\1\0" * 16000
RAW = {"model_id": "scribe_v1", "file_format": "pcm_s16le_16"}


async def post(server: SpeechServer, file: bytes = SECOND, path: str = PATH, **fields: str) -> httpx.Response:
    return await server.http.post(path, data=RAW | fields, files={"file": ("speech.raw", file)})


async def linked(server: SpeechServer) -> None:
    with trio.fail_after(5):
        while not server.stt.open_links:
            await trio.sleep(0.005)


async def test_the_next_of_too_many_is_told_to_come_back() -> None:
    """And is served when there is room."""
    async with (
        speech_server(limits=TranscriptLimits(concurrency=1)) as server,
        trio.open_nursery() as nursery,
    ):
        answers: list[httpx.Response] = []

        async def first() -> None:
            answers.append(await post(server))

        nursery.start_soon(first)
        await linked(server)
        refused = await post(server)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["detail"]["status"] == "too_many_concurrent_requests"
        server.stt.say(CommittedTranscript("Hello."))
        with trio.fail_after(5):
            while not answers:
                await trio.sleep(0.005)
        assert answers[0].json()["text"] == "Hello."
        assert "x-timestamps" not in answers[0].headers


async def test_a_client_that_leaves_frees_the_recogniser() -> None:
    """At once, not when the recording has been understood."""
    async with speech_server() as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, server)
            await linked(server)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            while server.stt.open_links:
                await trio.sleep(0.005)


@pytest.mark.parametrize("path", [PATH, "/v1/audio/transcriptions"])
async def test_an_upload_is_read_to_a_limit(path: str) -> None:
    """In bytes, before anything is made of it."""
    async with speech_server(limits=TranscriptLimits(max_upload_bytes=100_000)) as server:
        form = {"content-type": "multipart/form-data; boundary=x"}
        answer = await server.http.post(path, content=bytes(200_000), headers=form)
        assert answer.status_code == 413
        assert server.stt.links == []


@pytest.mark.parametrize(
    ("file", "fields", "status", "code"),
    [
        (SECOND * 2, {}, 400, "invalid_audio"),
        (b"", {}, 422, "empty_file"),
        (b"no recording", {"file_format": "other"}, 400, "invalid_audio"),
        (SECOND, {"source_url": "http://example.invalid/a.mp3"}, 400, "unsupported"),
        (SECOND, {"webhook": "true"}, 400, "unsupported"),
    ],
)
async def test_what_cannot_be_transcribed_is_refused(
    file: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    """With a code."""
    async with speech_server(limits=TranscriptLimits(max_recording_s=1.5)) as server:
        answer = await post(server, file, **fields)
    detail = answer.json()["detail"]
    told = detail[0]["type"] if isinstance(detail, list) else detail["status"]
    assert (answer.status_code, told) == (status, code)


async def test_a_field_at_fault_is_told_where_it_stands() -> None:
    """By the name that it has in the request, whoever found the fault."""
    async with speech_server() as server:

        async def refuse(_: int) -> None:
            raise ClientError(ClientFault.INVALID_FIELD, "No.", field="stt.language_code")

        server.stt.connecting = refuse
        elevenlabs = await post(server)
        files = wav_header(AudioFormat("pcm", 16000), len(SECOND)) + SECOND, b""
        openai = [await post(server, file, "/v1/audio/transcriptions") for file in files]
    assert elevenlabs.json()["detail"][0]["loc"] == ["body", "language_code"]
    assert [answer.json()["error"]["param"] for answer in openai] == ["language", "file"]


async def test_a_form_without_a_file_is_refused() -> None:
    """So is what is no form."""
    async with speech_server() as server:
        empty = await server.http.post(PATH, files={"model_id": (None, "scribe_v1")})
        broken = await server.http.post(
            PATH, content=b"--x\r\nno", headers={"content-type": "multipart/form-data; boundary=x"}
        )
        openai = await server.http.post("/v1/audio/transcriptions", files={"model": (None, "whisper-1")})
    assert (empty.status_code, empty.json()["detail"][0]["loc"]) == (422, ["body", "file"])
    assert broken.status_code in {400, 422}
    assert (openai.status_code, openai.json()["error"]["type"]) == (400, "invalid_request_error")
