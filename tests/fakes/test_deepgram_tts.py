"""The fake is held to what the official Python client understands."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import trio

from tests.fakes.deepgram_tts import FakeDeepgramTts, serve_deepgram_tts
from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.troubles import Refuse, Trouble
from voice_fsm.audio import AudioFormat

deepgram = pytest.importorskip("deepgram")
from deepgram.core.api_error import ApiError  # noqa: E402  # only where there is the client
from deepgram.environment import DeepgramClientEnvironment  # noqa: E402  # same
from deepgram.speak.v1.types.speak_v1text import SpeakV1Text  # noqa: E402  # same

pytestmark = [
    # What the client uses of its WebSocket library is deprecated there.
    pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:connect.* must be used as a context manager:DeprecationWarning"),
]

PCM = AudioFormat("pcm", 24000)
TEXT = "The first move is what sets everything in motion."
VOICE = {"model": "aura-2-thalia-en", "encoding": "linear16", "sample_rate": 24000}


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeDeepgramTts, Any]]:
    fake = FakeDeepgramTts()
    async with serve_deepgram_tts(fake) as url:
        ws = url.replace("http", "ws", 1)
        with httpx.Client() as http:
            yield (
                fake,
                deepgram.DeepgramClient(
                    api_key=fake.api_key,
                    environment=DeepgramClientEnvironment(base=url, production=ws, agent=ws, agent_rest=url),
                    httpx_client=http,
                ),
            )


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run the blocking client, and give up on it rather than wait for ever."""
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


def speak(client: Any, **asked: Any) -> bytes:
    options = {"request_options": {"max_retries": 0}, **VOICE, "container": "none", **asked}
    return b"".join(client.speak.v1.audio.generate(text=TEXT, **options))


def received_until(socket: Any, kind: str) -> tuple[list[str], bytes]:
    """Give the messages' types and all audio until one of this type came."""
    kinds: list[str] = []
    audio = b""
    while not kinds or kinds[-1] != kind:
        message = socket.recv()
        if isinstance(message, bytes):
            audio += message
        else:
            kinds.append(message.type)
    return kinds, audio


async def test_the_client_reads_audio_over_http(fake: tuple[FakeDeepgramTts, Any]) -> None:
    """The bytes are those of the speech, without a head."""
    _, client = fake

    assert await in_thread(lambda: speak(client)) == speech_of(TEXT, PCM)


async def test_the_client_speaks_over_the_socket(fake: tuple[FakeDeepgramTts, Any]) -> None:
    """Metadata comes first; a flush brings all audio of the text, and is confirmed after it."""
    _, client = fake

    def converse() -> tuple[list[str], bytes]:
        with client.speak.v1.connect(**VOICE) as socket:
            socket.send_text(SpeakV1Text(type="Speak", text=TEXT[:20]))
            socket.send_text(SpeakV1Text(type="Speak", text=TEXT[20:]))
            socket.send_flush()
            return received_until(socket, "Flushed")

    kinds, audio = await in_thread(converse)

    assert kinds == ["Metadata", "Flushed"]
    assert audio == speech_of(TEXT, PCM)


async def test_a_clear_is_confirmed_and_leaves_nothing_to_say(fake: tuple[FakeDeepgramTts, Any]) -> None:
    """What was being spoken stops; the next flush speaks only what was sent after it."""
    server, client = fake
    server.between_chunks_s = 0.05

    def converse() -> bytes:
        with client.speak.v1.connect(**VOICE) as socket:
            socket.send_text(SpeakV1Text(type="Speak", text=TEXT))
            socket.send_flush()
            received_until(socket, "Metadata")
            socket.recv()
            socket.send_clear()
            received_until(socket, "Cleared")
            server.between_chunks_s = 0.0
            socket.send_text(SpeakV1Text(type="Speak", text="Yes."))
            socket.send_flush()
            return received_until(socket, "Flushed")[1]

    assert await in_thread(converse) == speech_of("Yes.", PCM)


@pytest.mark.parametrize(
    ("refusal", "status"), [(Refuse(401), 401), (Refuse(402), 402), (Refuse(429), 429), (Refuse(500), 500)]
)
async def test_the_client_reads_refusals(
    fake: tuple[FakeDeepgramTts, Any], refusal: Refuse, status: int
) -> None:
    """Over HTTP each reaches the client with its status."""
    server, client = fake
    server.troubles.append(refusal)

    with pytest.raises(ApiError) as caught:
        await in_thread(lambda: speak(client))

    assert caught.value.status_code == status


async def test_the_client_lists_models(fake: tuple[FakeDeepgramTts, Any]) -> None:
    """The voices are among them, by their canonical names."""
    _, client = fake

    models = await in_thread(client.manage.v1.models.list)

    assert "aura-2-thalia-en" in {model.canonical_name for model in models.tts}


async def test_a_broken_stream_is_an_error_to_the_client(fake: tuple[FakeDeepgramTts, Any]) -> None:
    """A chunk that is cut short does not pass for the end."""
    server, client = fake
    server.troubles.append(Trouble.CUT_MIDWAY)

    with pytest.raises(Exception, match=r"incomplete|closed"):
        await in_thread(lambda: speak(client))
