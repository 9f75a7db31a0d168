"""OpenAI's own client, unmodified, against this server in a process of its own with its embedded engines.

All tests share the server, which takes a second to load its recogniser.
"""

import base64
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import moonshine_voice
import pytest
from openai import OpenAI
from openai.resources.realtime.realtime import RealtimeConnection
from websockets.exceptions import InvalidStatus

from voice_fsm.audio.samples import Resampler

# The SDK calls websockets in a way that its newer releases deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore:connect.* must be used as a context manager:DeprecationWarning"
)

RECORDING: Final = Path(moonshine_voice.__file__).parent / "assets" / "clone-test.wav"
"""4 s of a person, 16 kHz."""
KEY: Final = "test-key"
SILENCE: Final = bytes(48 * 1000)
"""A second of it."""


@attrs.frozen
class Served:
    url: str

    def client(self, key: str = KEY) -> OpenAI:
        return OpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """``voice-fsm serve`` with a key."""
    env = {**os.environ, "SERVICE_API_KEYS": KEY}
    command = [sys.executable, "-m", "voice_fsm", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdout is not None
        address = next(line for line in server.stdout if "Talk to it" in line).split()[4]
        try:
            yield Served(address.removesuffix("/test"))
        finally:
            server.terminate()


@pytest.fixture
def connection(served: Served) -> Iterator[RealtimeConnection]:
    with served.client() as client, client.realtime.connect(model="gpt-realtime-2") as connected:
        assert connected.recv().type == "session.created"
        yield connected


def until(connection: RealtimeConnection, kind: str) -> list[Any]:
    """Everything up to the next event of this type; no error in it."""
    events: list[Any] = []
    for event in connection:
        assert event.type != "error", event
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(f"the session ended before {kind}")


def question() -> bytes:
    """A person, at the protocol's rate."""
    with wave.open(str(RECORDING)) as recording:
        pcm: bytes = recording.readframes(recording.getnframes())
    return Resampler(16000, 24000).feed(pcm, last=True)


def speak(connection: RealtimeConnection, pcm: bytes) -> None:
    """Send audio as fast as it goes, in pieces that cut samples in two."""
    for start in range(0, len(pcm), 9601):
        piece = pcm[start : start + 9601]
        connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())


def type_in(connection: RealtimeConnection, text: str) -> None:
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.type == kind]


def heard_words(events: list[Any]) -> set[str]:
    (completed,) = of(events, "conversation.item.input_audio_transcription.completed")
    return set(completed.transcript.split())


def test_the_program_of_the_sdks_readme(served: Served) -> None:
    """A question typed, a reply written."""
    with served.client() as client, client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        type_in(connection, "What is twelve times seven?")
        connection.response.create()
        text = ""
        for event in connection:
            assert event.type != "error"
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.output_text.done":
                assert event.text == text
            elif event.type == "response.done":
                assert event.response.status == "completed"
                break
    assert "84" in text


def test_a_person_talks(connection: RealtimeConnection) -> None:
    """A recorded voice is detected, transcribed and answered aloud."""
    connection.session.update(
        session={
            "type": "realtime",
            "audio": {"input": {"transcription": {"model": "whisper-1"}}, "output": {"voice": "marin"}},
        }
    )
    speak(connection, SILENCE + question() + SILENCE + SILENCE)
    before, events = until(connection, "response.created"), until(connection, "response.done")
    order = [event.type for event in before if event.type.startswith("input_audio_buffer")]
    assert order == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
    ]
    started, stopped, committed = (of(before, kind)[0] for kind in order)
    assert started.item_id == stopped.item_id == committed.item_id
    assert 500 < started.audio_start_ms < stopped.audio_end_ms
    assert {"America", "very", "well."} <= heard_words(before)
    (completed,) = of(before, "conversation.item.input_audio_transcription.completed")
    assert 3 < completed.usage.seconds < 6
    pcm = b"".join(base64.b64decode(event.delta) for event in of(events, "response.output_audio.delta"))
    assert len(pcm) > 48 * 1000
    assert max(memoryview(pcm).cast("h")) > 1000
    assert events[-1].response.status == "completed"
    (said,) = of(events, "response.output_audio_transcript.done")
    assert events[-1].response.output[0].content[0].transcript == said.transcript != ""


def test_push_to_talk(connection: RealtimeConnection) -> None:
    """Nothing is answered before it is asked for; what was taken back is not heard."""
    connection.session.update(
        session={
            "type": "realtime",
            "output_modalities": ["text"],
            "audio": {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}},
        }
    )
    speak(connection, question()[: 48 * 1500])
    connection.input_audio_buffer.clear()
    until(connection, "input_audio_buffer.cleared")
    speak(connection, question()[48 * 1500 :])
    connection.input_audio_buffer.commit()
    connection.response.create()
    events = until(connection, "response.done")
    words = heard_words(events)
    assert "well." in words
    assert "very" not in words or "In" not in words
    assert not of(events, "input_audio_buffer.speech_started")
    assert len(of(events, "response.created")) == 1


def test_a_person_interrupts_and_the_client_truncates(connection: RealtimeConnection) -> None:
    """The response is cancelled, nothing of it follows, and what was heard of it can be told."""
    type_in(connection, "Tell me a long story")
    connection.response.create()
    first = until(connection, "response.output_audio.delta")[-1]
    speak(connection, SILENCE + question() + SILENCE + SILENCE)
    events = until(connection, "response.done")
    (done,) = of(events, "response.done")
    assert done.response.id == first.response_id
    assert (done.response.status, done.response.status_details.reason) == ("cancelled", "turn_detected")
    assert done.response.output[0].status == "incomplete"
    order = [event.type for event in events]
    assert "response.output_audio.delta" not in order[order.index("input_audio_buffer.speech_started") :]
    connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=100)
    events = until(connection, "response.done")
    assert of(events, "conversation.item.truncated")[0].audio_end_ms == 100
    assert all(getattr(event, "response_id", None) != first.response_id for event in events)
    connection.conversation.item.retrieve(item_id=first.item_id)
    item = until(connection, "conversation.item.retrieved")[-1].item
    assert item.content[0].transcript is None


def test_a_response_is_cancelled(connection: RealtimeConnection) -> None:
    """By the client; again it is told that there is none."""
    connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
    type_in(connection, "Tell me a long story")
    connection.response.create()
    until(connection, "response.output_text.delta")
    connection.response.cancel()
    done = until(connection, "response.done")[-1].response
    assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
    connection.send({"type": "response.cancel", "event_id": "mine"})
    event: Any = connection.recv()
    assert (event.type, event.error.code, event.error.event_id) == (
        "error",
        "response_cancel_not_active",
        "mine",
    )


def test_who_has_no_key_is_refused_before_the_upgrade(served: Served) -> None:
    """With OpenAI's error body; a client secret opens once."""
    with served.client("wrong") as client, pytest.raises(InvalidStatus) as refused:
        client.realtime.connect(model="m").enter()
    assert refused.value.response.status_code == 401
    assert b'"code":"invalid_api_key"' in refused.value.response.body
    with served.client() as client:
        secret = client.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": 60})
    assert secret.session.type == "realtime"
    with served.client(secret.value) as client, client.realtime.connect(model="m") as connection:
        assert connection.recv().type == "session.created"
        with pytest.raises(InvalidStatus):
            client.realtime.connect(model="m").enter()


def test_both_paths_lead_there(served: Served) -> None:
    """The client appends ``/realtime`` to whatever it was given."""
    with (
        OpenAI(api_key=KEY, base_url=served.url) as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        event: Any = connection.recv()
    assert event.session.type == "transcription"
