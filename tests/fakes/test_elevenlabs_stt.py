"""The fake as ElevenLabs' own client sees it, on the client's event loop in a thread of its own."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from elevenlabs.client import ElevenLabs
from elevenlabs.realtime.connection import RealtimeConnection, RealtimeEvents
from elevenlabs.realtime.scribe import AudioFormat, CommitStrategy
from trio_websocket import ConnectionClosed

from tests.fakes.elevenlabs_stt import FakeElevenLabsStt, Moment, Utterance, report
from tests.fakes.sockets import in_memory, serve
from voice_fsm.errors import Upstream
from voice_fsm.upstream.websocket import open_websocket

Heard = list[tuple[str, Any]]
Script = Callable[[RealtimeConnection], Awaitable[None]]


async def hear(fake: FakeElevenLabsStt, script: Script, **options: Any) -> Heard:
    """Talk to the fake until it or the script closes the connection; gives the client's events."""
    heard: Heard = []

    async def converse(base_url: str) -> None:
        settings: Any = {
            "model_id": "scribe_v2_realtime",
            "audio_format": AudioFormat.PCM_16000,
            "sample_rate": 16000,
            **options,
        }
        client = ElevenLabs(api_key="the-key", base_url=base_url.replace("ws:", "http:"))
        connection = await client.speech_to_text.realtime.connect(settings)
        closed = asyncio.Event()
        for event in RealtimeEvents:
            connection.on(event, lambda data=None, name=event.value: heard.append((name, data)))
        connection.on(RealtimeEvents.CLOSE, lambda _: closed.set())
        await script(connection)
        await asyncio.wait_for(closed.wait(), 60)

    async with serve(fake.handle) as base_url:
        await trio.to_thread.run_sync(asyncio.run, converse(base_url))
    return heard


async def send_seconds(connection: RealtimeConnection, duration_s: float, **fields: str) -> None:
    audio = base64.b64encode(bytes(int(duration_s * 16000) * 2)).decode()
    await connection.send({"audio_base_64": audio, **fields})


async def test_the_official_client_hears_a_conversation() -> None:
    """A start, partials, and both reports of a commit, for each of two utterances."""
    fake = FakeElevenLabsStt(
        utterances=[Utterance("good morning", partials=[(0.5, "good")]), Utterance("bye")]
    )

    async def script(connection: RealtimeConnection) -> None:
        reported: asyncio.Queue[Any] = asyncio.Queue()
        connection.on(RealtimeEvents.COMMITTED_TRANSCRIPT_WITH_TIMESTAMPS, reported.put_nowait)
        await send_seconds(connection, 0.5, previous_text="so")
        await connection.commit()
        await reported.get()
        await send_seconds(connection, 0.4)
        await connection.commit()
        await reported.get()
        await connection.close()

    heard = await hear(fake, script, include_timestamps=True, language_code="en", keyterms=["a b", "c"])
    # The client's message reader may run before a handler can be set, so the start is not always heard.
    events = [(name, data.get("text")) for name, data in heard if name not in ("session_started", "close")]
    assert events == [
        ("partial_transcript", "good"),
        ("committed_transcript", "good morning"),
        ("committed_transcript_with_timestamps", "good morning"),
        ("committed_transcript", "bye"),
        ("committed_transcript_with_timestamps", "bye"),
    ]
    last = next(data for name, data in reversed(heard) if name == "committed_transcript_with_timestamps")
    assert [(word["text"], word["start"], word["end"]) for word in last["words"]] == [("bye", 0.5, 0.75)]
    (session,) = fake.sessions
    assert session.handshake.headers["xi-api-key"] == "the-key"
    assert session.handshake.query["keyterms"] == ["a b", "c"]
    assert [message["previous_text"] for message in session.messages if not message["commit"]] == ["so", None]


async def test_the_official_client_hears_the_start() -> None:
    """With the session's name and what it was configured to."""
    fake = FakeElevenLabsStt()

    async def script(connection: RealtimeConnection) -> None:
        await send_seconds(connection, 0.5)
        await asyncio.sleep(0)
        await connection.commit()
        committed = asyncio.Event()
        connection.on(RealtimeEvents.COMMITTED_TRANSCRIPT, lambda _: committed.set())
        await asyncio.wait_for(committed.wait(), 60)
        await connection.close()

    heard = await hear(fake, script, commit_strategy=CommitStrategy.VAD)
    name, started = heard[0]
    assert name == "session_started"
    assert started["session_id"]
    assert started["config"]["sample_rate"] == 16000
    assert started["config"]["vad_commit_strategy"] is True


async def test_the_official_client_hears_that_a_commit_was_too_short() -> None:
    """The error by its name and as an error, then a clean close with the reason."""

    async def script(connection: RealtimeConnection) -> None:
        await send_seconds(connection, 0.2)
        await connection.commit()

    heard = await hear(FakeElevenLabsStt(), script)
    *_, throttled, error, closed = heard
    assert (throttled[0], error[0]) == ("commit_throttled", "error")
    assert "only 0.20s of uncommitted audio" in throttled[1]["error"]
    assert closed == ("close", {"code": 1000, "reason": "commit_throttled"})


async def test_the_official_client_hears_that_its_key_is_wrong() -> None:
    """After the socket has opened, and followed by a clean close without a reason."""
    fake = FakeElevenLabsStt(
        moments=[Moment("start", report("auth_error", "You must be authenticated to use this endpoint."))]
    )

    async def script(_connection: RealtimeConnection) -> None:
        pass

    heard = await hear(fake, script)
    assert [name for name, _ in heard] == ["auth_error", "error", "close"]
    assert heard[-1][1] == {"code": 1000, "reason": ""}


async def test_context_on_a_later_chunk_is_an_error() -> None:
    """The official client sends what it is given."""

    async def script(connection: RealtimeConnection) -> None:
        await send_seconds(connection, 0.2)
        await send_seconds(connection, 0.2, previous_text="late")

    names = [name for name, _ in await hear(FakeElevenLabsStt(), script)]
    assert names[-3:] == ["input_error", "error", "close"]


async def test_an_idle_session_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    """After 15.8 s without a message."""
    async with (
        in_memory(FakeElevenLabsStt().handle) as dial,
        open_websocket("ws://fake", upstream=Upstream.STT, dial=dial) as connection,
    ):
        assert json.loads(await connection.get_message())["message_type"] == "session_started"
        started_at = trio.current_time()
        assert json.loads(await connection.get_message())["message_type"] == "insufficient_audio_activity"
        assert trio.current_time() - started_at == pytest.approx(15.8)
        with pytest.raises(ConnectionClosed):
            await connection.get_message()
