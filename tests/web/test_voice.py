import base64
import struct

import pytest
import structlog
import trio
import trio.testing

from tests.bench import sounds
from tests.fakes.raw_client import UPGRADE, masked_text, stall
from tests.fakes.recordings import to_pcm
from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.web.conftest import Client, RunServer
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.events import Word
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.voice import DoorPolicy


@pytest.fixture
def stt() -> ScriptedStt:
    return ScriptedStt()


@pytest.fixture
def chat() -> ScriptedChat:
    return ScriptedChat(lambda _: ["Hi ", "there!"])


@pytest.fixture
def tts() -> ScriptedTts:
    return ScriptedTts(ms_per_char=10)


@pytest.fixture
def services(stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts) -> Services:
    return Services(stt=stt, chat=chat, tts=tts)


def kinds(events: list[object]) -> list[str]:
    names = [event["type"] if isinstance(event, dict) else "binary" for event in events]
    return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]


async def test_a_base_client_is_served_as_the_contract_says(
    services: Services, stt: ScriptedStt, voice_server: RunServer
) -> None:
    """A client that knows nothing of our additions sees the base events in their order."""
    async with voice_server(services) as server, server.connect() as client:
        ready = await client.receive()
        assert ready["type"] == "session.ready"
        assert ready["message"] == "Send session.configure to begin."
        await client.send("session.configure", session_id="voice-test-1")
        configured, started = await client.until("stt.session_started")
        assert configured["session_id"] == "voice-test-1"
        assert isinstance(started["config"], dict)
        await client.send("audio.append", audio=base64.b64encode(b"\1\0" * 800).decode(), sample_rate=16000)
        await client.send_raw(b"\2\0" * 800)
        while len(stt.links[0].audio) < 3200:
            await trio.sleep(0.01)
        assert bytes(stt.links[0].audio) == b"\1\0" * 800 + b"\2\0" * 800
        stt.say(
            PartialTranscript("hello wor"),
            CommittedTranscript("hello world", (Word("hello", 0.1, 0.4), Word("world", 0.5, 0.9))),
        )
        events = await client.until("assistant.done")
        assert kinds(events) == [
            "transcript.partial",
            "transcript.committed",
            "assistant.started",
            "assistant.message",
            "assistant.audio.start",
            "assistant.audio.chunk",
            "assistant.audio.end",
            "assistant.done",
        ]
        by_kind = {event["type"]: event for event in events}
        assert by_kind["transcript.committed"]["words"][1] == {"text": "world", "start": 0.5, "end": 0.9}
        assert by_kind["assistant.started"]["text"] == "hello world"
        assert by_kind["assistant.message"]["text"] == "Hi there!"
        assert by_kind["assistant.message"]["metadata"] == {}
        chunks = [event for event in events if event["type"] == "assistant.audio.chunk"]
        assert [chunk["chunk_index"] for chunk in chunks] == list(range(1, len(chunks) + 1))
        assert {chunk["content_type"] for chunk in chunks} == {"application/octet-stream"}
        audio = b"".join(base64.b64decode(chunk["audio"]) for chunk in chunks)
        assert len(audio) == services.defaults.tts.output_format.size_bytes(90)
        assert by_kind["assistant.audio.end"]["chunk_count"] == len(chunks)
        assert by_kind["assistant.done"]["outcome"] == "completed"


async def test_what_a_client_opts_in_to(services: Services, voice_server: RunServer) -> None:
    """Binary audio with its header, states, text deltas and metrics come where they are asked for."""
    async with voice_server(services) as server, server.connect() as client:
        await client.configure(
            audio_out="binary",
            events=["state", "text.delta", "metrics"],
            tts={"output_format": "ulaw_8000"},
        )
        await client.send("text.prompt", text="How are you?")
        events = await client.until("state.changed")
        assert (events[-1]["from"], events[-1]["to"], events[-1]["input"]) == (
            "unconfigured",
            "listening",
            "configure",
        ) or events[-1]["to"] == "thinking"
        events += await client.until("assistant.done")
        assert "assistant.text.delta" in kinds(events)
        assert kinds(events)[-2:] == ["turn.metrics", "assistant.done"]
        frames = [event for event in events if isinstance(event, bytes)]
        assert [struct.unpack(">II", frame[:8]) for frame in frames] == [
            (1, index + 1) for index in range(len(frames))
        ]
        (end,) = (e for e in events if isinstance(e, dict) and e["type"] == "assistant.audio.end")
        assert end["chunk_count"] == len(frames)
        assert end["content_type"] == "audio/basic"
        metrics = events[-2]
        assert 0 <= metrics["first_text_ms"] <= metrics["first_speech_ms"] <= metrics["playback_done_ms"]


async def test_a_client_that_asks_hears_of_speech(
    services: Services, stt: ScriptedStt, voice_server: RunServer
) -> None:
    """The server's own detector tells of a sentence, and ends the utterance where it is to do so."""
    sentence = sounds.after_silence(sounds.spoken("Wait a moment, please."), before_s=0.3, after_s=1.0)
    async with voice_server(services) as server, server.connect() as client:
        await client.configure(events=["speech"], stt={"commit_strategy": "local_vad"})
        await client.send_raw(to_pcm(sentence))
        events = await client.until("user.speech_stopped")
        assert kinds(events)[-2:] == ["user.speech_started", "user.speech_stopped"]
        while not stt.links[0].commits:
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("frame", "code", "field"),
    [
        ("not json", "malformed_message", None),
        ("[]", "malformed_message", None),
        ('{"no": "type"}', "malformed_message", None),
        ('{"type": "nonsense"}', "unknown_type", None),
        ('{"type": "text.prompt"}', "invalid_field", "text"),
        ('{"type": "text.prompt", "text": " "}', "invalid_field", "text"),
        ('{"type": "session.configure", "stt": {"sample_rate": 12345}}', "invalid_field", "stt.sample_rate"),
        ('{"type": "session.configure", "turn": {"barge_in": "on"}}', "invalid_field", "turn.barge_in"),
        ('{"type": "audio.append", "audio": "%%%"}', "invalid_audio", "audio"),
        ('{"type": "audio.append", "audio": "AA=="}', "invalid_audio", None),
        (b"\0\0\0", "invalid_audio", None),
        (
            '{"type": "session.configure", "backend": {"api_key": "sk-secret", "model": "m"}}',
            "frontend_auth_disabled",
            "backend",
        ),
        ('{"type": "session.configure", "resume": "old"}', "resume_unavailable", "resume"),
    ],
)
async def test_a_violation_is_told_and_the_session_lives(
    services: Services, voice_server: RunServer, frame: str | bytes, code: str, field: str | None
) -> None:
    """Each wrong frame gets an error with code, sentence and field; the next right one is served."""
    async with voice_server(services) as server, server.connect() as client:
        await client.configure()
        await client.send_raw(frame)
        error = (await client.until("error"))[-1]
        assert (error["code"], error.get("field")) == (code, field)
        assert "secret" not in error["message"]
        assert error["fatal"] is False
        await client.send("text.prompt", text="Still there?")
        assert (await client.until("assistant.done"))[-1]["outcome"] == "completed"


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "text.prompt", "text": "hello"}',
        '{"type": "audio.append", "audio": "AAAA"}',
        '{"type": "audio.commit"}',
        '{"type": "session.update"}',
        '{"type": "response.cancel"}',
        b"\0\0",
    ],
)
async def test_before_configuration_everything_else_is_refused(
    services: Services, voice_server: RunServer, frame: str | bytes
) -> None:
    """The client is told what to send first."""
    async with voice_server(services) as server, server.connect() as client:
        await client.receive()
        await client.send_raw(frame)
        assert (await client.receive())["code"] == "not_configured"
        await client.configure()


async def test_credentials_are_used_where_the_operator_allows_it(
    services: Services, chat: ScriptedChat, voice_server: RunServer
) -> None:
    """With leave, a client's own backend reaches the chat provider."""
    policy = DoorPolicy(allow_backend_credentials=True)
    async with voice_server(services, policy) as server, server.connect() as client:
        await client.configure(backend={"api_key": "sk-secret", "model": "m"})
        await client.send("text.prompt", text="hello")
        await client.until("assistant.done")
        assert chat.requests[0].backend.api_key == "sk-secret"
        assert "sk-secret" not in repr(chat.requests[0])


async def test_mulaw_cannot_come_at_another_rate(services: Services, voice_server: RunServer) -> None:
    """Only PCM is resampled; the client is told, and its session lives."""
    async with voice_server(services) as server, server.connect() as client:
        await client.configure(stt={"audio_format": "ulaw_8000"})
        await client.send("audio.append", audio="AAAA", sample_rate=16000)
        error = await client.receive()
        assert (error["code"], error["field"]) == ("invalid_field", "sample_rate")
        await client.send("audio.append", audio="AAAA", sample_rate=8000)
        await client.send("ping")
        assert (await client.receive())["type"] == "pong"


async def test_a_session_keeps_its_id_when_it_is_configured_again(
    services: Services, voice_server: RunServer
) -> None:
    """One that the server made up as well as one that the client gave."""
    async with voice_server(services) as server, server.connect() as client:
        await client.receive()
        ids = []
        for fields in ({}, {}, {"session_id": "mine"}, {}):
            await client.send("session.configure", **fields)
            ids.append((await client.until("session.configured"))[-1]["session_id"])
        assert ids[0] == ids[1]
        assert ids[2:] == ["mine", "mine"]


async def test_log_lines_tell_whose_they_are(
    services: Services, chat: ScriptedChat, voice_server: RunServer
) -> None:
    """Lines of one connection carry the same name, those of another another."""
    chat.script = lambda _: [ProviderError(Upstream.CHAT, ProviderFault.TIMEOUT, "Slow.")]
    merge = structlog.contextvars.merge_contextvars
    with structlog.testing.capture_logs(processors=[merge]) as lines:
        async with voice_server(services) as server:
            for name in ("one", "two"):
                async with server.connect() as client:
                    await client.configure(session_id=name)
                    await client.send("text.prompt", text="hello")
                    await client.until("assistant.done")
    told = [(line["event"], line["connection"]) for line in lines if "connection" in line]
    first, second = told[0][1], told[-1][1]
    assert first != second
    assert told == [
        (event, name) for name in (first, second) for event in ("session_configured", "turn_failed")
    ]


async def test_a_registration_id_alone_is_no_credential(
    services: Services, chat: ScriptedChat, voice_server: RunServer
) -> None:
    """A client may always name a backend that is registered already."""
    async with voice_server(services) as server, server.connect() as client:
        await client.configure(backend={"registration_id": "reg-1"})
        await client.send("text.prompt", text="hello")
        await client.until("assistant.done")
        assert chat.requests[0].backend.registration_id == "reg-1"


async def test_options_that_the_voice_cannot_serve_leave_the_session_as_it_was(
    services: Services, tts: ScriptedTts, voice_server: RunServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is told; the session is not configured by halves."""

    def refuse(_: TtsOptions) -> None:
        raise ClientError(ClientFault.UNSUPPORTED_FORMAT, "No MP3 here.", field="tts.output_format")

    monkeypatch.setattr(tts, "check", refuse)
    async with voice_server(services) as server, server.connect() as client:
        await client.receive()
        await client.send("session.configure", tts={"output_format": "mp3_44100_128"})
        assert (await client.receive())["code"] == "unsupported_format"
        await client.send("text.prompt", text="hello")
        assert (await client.receive())["code"] == "not_configured"


async def test_a_stop_button_and_a_ping(
    services: Services, chat: ScriptedChat, voice_server: RunServer
) -> None:
    """``response.cancel`` silences the turn that runs; ``ping`` is answered with its id."""
    chat.script = lambda _: [60.0]
    async with voice_server(services) as server, server.connect() as client:
        await client.configure()
        await client.send("text.prompt", text="hello")
        await client.until("assistant.started")
        await client.send("response.cancel", turn_id=1)
        interrupted = (await client.until("assistant.interrupted"))[-1]
        assert (interrupted["reason"], interrupted["heard_text"]) == ("client", "")
        assert (await client.receive())["outcome"] == "interrupted"
        await client.send("ping", id="p1")
        pong = await client.receive()
        assert (pong["type"], pong["id"]) == ("pong", "p1")
        assert pong["server_time_ms"] > 1_700_000_000_000


async def test_an_update_changes_what_is_named_and_nothing_else(
    services: Services, chat: ScriptedChat, voice_server: RunServer
) -> None:
    """``session.update`` leaves out what stays."""
    async with voice_server(services) as server, server.connect() as client:
        await client.configure(session_id="keep", tts={"output_format": "pcm_16000"})
        await client.send("session.update", turn={"min_words": 3})
        assert (await client.receive())["session_id"] == "keep"
        await client.send("text.prompt", text="hello")
        start = (await client.until("assistant.audio.start"))[-1]
        assert start["output_format"] == "pcm_16000"


async def test_the_server_turns_away_whom_it_cannot_serve(
    services: Services, voice_server: RunServer
) -> None:
    """Past the limit a client gets an error that says to come back, and 1013."""
    policy = DoorPolicy(max_sessions=1)
    async with voice_server(services, policy) as server, server.connect() as first:
        await first.configure()
        async with server.connect() as second:
            error = await second.receive()
            assert (error["code"], error["retryable"], error["fatal"]) == ("overloaded", True, True)
            assert await second.close_code() == 1013
        await first.send("ping")
        assert (await first.receive())["type"] == "pong"


async def test_a_client_without_a_key_is_turned_away_where_one_is_needed(
    services: Services, voice_server: RunServer
) -> None:
    """It is told why, and closed with 1008; one with a key or a token is served."""
    gate = Gate(("right",), TokenMint("secret", 60))
    async with voice_server(services, gate=gate) as server:
        async with server.connect(headers=[("xi-api-key", "wrong")]) as stranger:
            error = await stranger.receive()
            assert (error["code"], error["retryable"], error["fatal"]) == ("unauthorized", False, True)
            assert await stranger.close_code() == 1008
        async with server.connect(headers=[("xi-api-key", "right")]) as client:
            await client.configure()
        server.url += f"?token={gate.mint.issue()}"
        async with server.connect() as page:
            await page.configure()


async def test_a_flood_from_a_client_that_reads_is_served(
    services: Services, voice_server: RunServer
) -> None:
    """What it asks for in one packet is answered in full, however much that is."""
    async with voice_server(services) as server:
        stream = await trio.open_tcp_stream(*server.address)
        async with stream, trio.open_nursery() as nursery:
            await stream.send_all(UPGRADE)
            nursery.start_soon(stream.send_all, masked_text('{"type":"ping"}') * 1000)
            received = b""
            with trio.fail_after(10):
                while received.count(b'"pong"') < 1000:
                    data = await stream.receive_some()
                    assert data, f"closed after {received.count(b'pong')} answers: {received[-60:]!r}"
                    received += data


async def test_pages_of_other_origins_are_refused_where_the_operator_says_so(
    services: Services, voice_server: RunServer
) -> None:
    """The handshake is answered with 403."""
    policy = DoorPolicy(allowed_origins=frozenset({"https://good.example"}))
    async with voice_server(services, policy) as server:
        with pytest.raises(ProviderError, match="403"):
            async with server.connect(headers=[("Origin", "https://evil.example")]):
                pass
        async with server.connect(headers=[("Origin", "https://good.example")]) as client:
            await client.configure()


async def test_silence_before_configuration_is_closed_with_1008(
    stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts, voice_server: RunServer
) -> None:
    """Who connects and says nothing is told why it has to go."""
    services = Services(stt=stt, chat=chat, tts=tts, limits=Limits(configure_within_s=0.1))
    async with voice_server(services) as server, server.connect() as client:
        events = await client.until("session.closing")
        assert events[-2]["code"] == "configure_timeout"
        assert events[-1]["reason"] == "policy"
        assert await client.close_code() == 1008


async def test_a_stopping_server_ends_conversations_with_1012(
    services: Services, chat: ScriptedChat, voice_server: RunServer
) -> None:
    """A live turn is ended, the reason told, and the server is gone in time."""
    chat.script = lambda _: [60.0]
    with trio.fail_after(10):
        async with voice_server(services) as server, server.connect() as client:
            await client.configure()
            await client.send("text.prompt", text="hello")
            await client.until("assistant.started")
            server.stop.set()
            events = await client.until("session.closing")
            assert events[-1]["reason"] == "draining"
            assert "assistant.done" in kinds(events)
            assert await client.close_code() == 1012


async def converse(client: Client) -> None:
    await client.send("text.prompt", text="hello")
    assert (await client.until("assistant.done"))[-1]["outcome"] == "completed"


async def test_200_connects_and_drops_leave_nothing(
    services: Services, stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts, voice_server: RunServer
) -> None:
    """Clients that vanish at any point: the server serves on, and nothing of theirs is left."""
    async with voice_server(services) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        for number in range(200):
            stream = await trio.open_tcp_stream(*server.address)
            async with stream:
                if number % 4:
                    await stream.send_all(UPGRADE)
                if number % 4 > 1:
                    await stream.receive_some()
                if number % 4 > 2:
                    await stream.send_all(masked_text('{"type":"session.configure"}'))
                    await stream.send_all(masked_text('{"type":"text.prompt","text":"hello"}'))
        with trio.fail_after(10):
            while server.endpoint.sessions or trio.lowlevel.current_statistics().tasks_living > before:
                await trio.sleep(0.02)
        assert (stt.open_links, chat.open_calls, tts.open_streams) == (0, 0, 0)
        async with server.connect() as client:
            await client.configure()
            await converse(client)


async def test_a_stalled_reader_harms_nobody_else(
    services: Services, chat: ScriptedChat, tts: ScriptedTts, voice_server: RunServer
) -> None:
    """While one client reads nothing of a long reply, another is answered as ever."""
    chat.script = lambda _: ["A rather long sentence, spoken at length. " * 50]
    tts.chunk_ms = 1000
    async with voice_server(services) as server:
        stalled = await trio.open_tcp_stream(*server.address)
        async with stalled:
            await stall(stalled)
            async with server.connect() as client:
                await client.configure()
                for _ in range(3):
                    await client.send("text.prompt", text="hello")
                    await client.until("assistant.audio.start")
            assert server.endpoint.sessions >= 1
