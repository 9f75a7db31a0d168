"""The fake is held to what the official Python client understands."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from tests.fakes.cartesia import FakeCartesia, serve_cartesia
from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.troubles import Refuse, Trouble
from voice_fsm.audio import AudioFormat

cartesia = pytest.importorskip("cartesia")

pytestmark = [
    # The client's own way to call its WebSocket library, which that has deprecated.
    pytest.mark.filterwarnings("ignore:connect.* must be used as a context manager:DeprecationWarning"),
]

PCM = AudioFormat("pcm", 24000)
RAW = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24000}
VOICE = {"mode": "id", "id": "voice-1"}
TEXTS = ("The first move ", "is what sets ", "everything in motion.")


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeCartesia, Any]]:
    fake = FakeCartesia()
    async with serve_cartesia(fake) as url:
        with cartesia.Cartesia(
            api_key=fake.api_key,
            base_url=url,
            websocket_base_url=url.replace("http", "ws", 1),
            max_retries=0,
        ) as client:
            yield fake, client


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run the blocking client, and give up on it rather than wait for ever."""
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


def converse(client: Any, model_id: str = "sonic-3", **asked: Any) -> list[Any]:
    """Have the texts spoken in one context; gives all of the service's messages."""
    with client.tts.websocket_connect() as connection:
        context = connection.context(
            model_id=model_id, voice=VOICE, output_format=RAW, language="en", add_timestamps=True, **asked
        )
        for text in TEXTS:
            context.push(text)
        context.no_more_inputs()
        return list(context.receive())


def generate(client: Any, text: str) -> bytes:
    answer = client.tts.generate(model_id="sonic-3", transcript=text, voice=VOICE, output_format=RAW)
    return bytes(answer.read())


async def test_the_client_streams_text_in_over_the_socket(fake: tuple[FakeCartesia, Any]) -> None:
    """All text is spoken in its order, its words are timed, and the context ends."""
    server, client = fake

    messages = await in_thread(lambda: converse(client))

    audio = b"".join(message.audio for message in messages if message.type == "chunk")
    words = [
        word for message in messages if message.type == "timestamps" for word in message.word_timestamps.words
    ]
    assert audio == b"".join(speech_of(text, PCM) for text in TEXTS)
    assert words == "".join(TEXTS).split()
    assert messages[-1].type == "done"
    assert {message.context_id for message in messages} == set(server.sockets[0].contexts)


async def test_the_client_reads_errors_of_a_context(fake: tuple[FakeCartesia, Any]) -> None:
    """A model that is gone is told with its code."""
    _, client = fake

    error = (await in_thread(lambda: converse(client, "sonic-english")))[0]

    assert (error.type, error.error_code, error.status_code) == ("error", "model_sunsetted", 400)


async def test_the_client_reads_audio_over_http(fake: tuple[FakeCartesia, Any]) -> None:
    """The bytes are those of the speech."""
    _, client = fake

    answer = await in_thread(
        lambda: client.tts.generate(
            model_id="sonic-3", transcript=TEXTS[0], voice=VOICE, output_format=RAW
        ).read()
    )

    assert answer == speech_of(TEXTS[0], PCM)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refuse(401), "AuthenticationError"),
        (Refuse(429), "RateLimitError"),
        (Refuse(500), "InternalServerError"),
    ],
)
async def test_the_client_reads_refusals(fake: tuple[FakeCartesia, Any], refusal: Refuse, error: str) -> None:
    """Each status is the client's own kind of error."""
    server, client = fake
    server.troubles.append(refusal)

    with pytest.raises(cartesia.APIStatusError) as caught:
        await in_thread(
            lambda: client.tts.generate(
                model_id="sonic-3", transcript="Hi", voice=VOICE, output_format=RAW
            ).read()
        )

    assert type(caught.value).__name__ == error


async def test_the_client_lists_voices(fake: tuple[FakeCartesia, Any]) -> None:
    """It follows the pages by the last voice's id."""
    _, client = fake

    voices = await in_thread(lambda: list(client.voices.list(limit=2)))

    assert [voice.id for voice in voices] == ["voice-1", "voice-2", "voice-3"]


async def test_a_broken_stream_is_an_error_to_the_client(fake: tuple[FakeCartesia, Any]) -> None:
    """A chunk that is cut short does not pass for the end."""
    server, client = fake
    server.troubles.append(Trouble.CUT_MIDWAY)

    with pytest.raises(Exception, match=r"[Cc]onnection|incomplete|closed"):
        await in_thread(
            lambda: client.tts.generate(
                model_id="sonic-3", transcript="Hi", voice=VOICE, output_format=RAW
            ).read()
        )
