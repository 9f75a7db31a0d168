"""The fake is held to what the official Python client understands."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.openai_tts import FakeOpenAiTts, serve_openai_tts, wav_head
from tests.fakes.troubles import Refuse, Trouble
from voice_fsm.audio import AudioFormat

openai = pytest.importorskip("openai")

PCM = AudioFormat("pcm", 24000)
TEXT = "The first move is what sets everything in motion."


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeOpenAiTts, Any]]:
    fake = FakeOpenAiTts()
    async with serve_openai_tts(fake) as url:
        with openai.OpenAI(api_key=fake.api_key, base_url=url, max_retries=0) as client:
            yield fake, client


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run the blocking client, and give up on it rather than wait for ever."""
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


def stream(client: Any, **asked: Any) -> bytes:
    options = {"model": "tts-1", "voice": "alloy", "input": TEXT, "response_format": "pcm", **asked}
    with client.audio.speech.with_streaming_response.create(**options) as answer:
        return b"".join(answer.iter_bytes(1000))


async def test_the_client_streams_pcm(fake: tuple[FakeOpenAiTts, Any]) -> None:
    """All of the speech arrives, asked for with the fields that our own provider sends."""
    server, client = fake

    audio = await in_thread(lambda: stream(client))

    assert audio == speech_of(TEXT, PCM)
    assert server.requests[0].json().keys() == {"model", "voice", "input", "response_format"}


async def test_the_client_reads_a_wav_file(fake: tuple[FakeOpenAiTts, Any]) -> None:
    """The file's head is there."""
    _, client = fake

    audio = await in_thread(lambda: stream(client, response_format="wav"))

    assert audio == wav_head(24000) + speech_of(TEXT, PCM)


@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"model": "tts-9"}, "NotFoundError", "model_not_found"),
        ({"voice": "nobody"}, "BadRequestError", None),
        ({"input": "x" * 4097}, "BadRequestError", "string_too_long"),
        ({"speed": 5}, "BadRequestError", None),
    ],
)
async def test_the_client_reads_refusals(
    fake: tuple[FakeOpenAiTts, Any], asked: dict[str, Any], error: str, code: str | None
) -> None:
    """Each is the client's own kind of error, with its code."""
    _, client = fake

    with pytest.raises(openai.APIStatusError) as caught:
        await in_thread(lambda: stream(client, **asked))

    assert type(caught.value).__name__ == error
    assert caught.value.code == code


async def test_the_client_is_told_of_limits_and_keys(fake: tuple[FakeOpenAiTts, Any]) -> None:
    """429 and 401 are its RateLimitError and AuthenticationError."""
    server, client = fake
    server.troubles.append(Refuse(429, headers={"Retry_After": "1"}))
    with pytest.raises(openai.RateLimitError):
        await in_thread(lambda: stream(client))
    server.api_key = "another"
    with pytest.raises(openai.AuthenticationError):
        await in_thread(lambda: stream(client))


async def test_a_broken_stream_is_an_error_to_the_client(fake: tuple[FakeOpenAiTts, Any]) -> None:
    """A chunk that is cut short does not pass for the end."""
    server, client = fake
    server.troubles.append(Trouble.CUT_MIDWAY)

    with pytest.raises(Exception, match=r"incomplete|closed"):
        await in_thread(lambda: stream(client))
