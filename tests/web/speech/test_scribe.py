"""``/v1/speech-to-text/realtime``: what goes over, and every way a session ends."""

import base64
from typing import Any

import pytest
import trio

from tests.web.speech.speech_rig import Socket, SpeechServer, speech_server
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.events import Word
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.speech import scribe

PATH = "/v1/speech-to-text/realtime?model_id=scribe_v2_realtime"
HALF_SECOND = b"\1\0" * 8000


async def say(client: Socket, audio: bytes = HALF_SECOND, **fields: Any) -> None:
    message = {"audio_base_64": base64.b64encode(audio).decode(), "commit": False, "sample_rate": 16000}
    await client.send(message_type="input_audio_chunk", **(message | fields))


async def heard(server: SpeechServer, audio_bytes: int) -> None:
    """Wait until the recogniser has so much."""
    with trio.fail_after(5):
        while len(server.stt.links[-1].audio) < audio_bytes:
            await trio.sleep(0.005)


async def test_audio_goes_in_and_transcripts_come_out() -> None:
    """In order; a commit is told a second time with its words, and spaces between them."""
    async with speech_server() as server, server.connect(PATH + "&include_timestamps=true") as client:
        started = await client.receive()
        assert started["message_type"] == "session_started"
        assert (started["session_id"], started["config"]["audio_format"]) == ("stt-1", "pcm_16000")
        await say(client, previous_text="So,")
        await say(client, previous_text=None)
        await say(client, b"", commit=True)
        await heard(server, 2 * len(HALF_SECOND))
        words = (Word("Hello", 0.1, 0.4), Word("you.", 0.5, 0.9))
        server.stt.say(PartialTranscript("Hel"), CommittedTranscript("Hello you.", words))
        told = [await client.receive() for _ in range(3)]
    assert server.stt.links[0].commits == [2 * len(HALF_SECOND)]
    assert told[0] == {"message_type": "partial_transcript", "text": "Hel"}
    assert told[1] == {"message_type": "committed_transcript", "text": "Hello you."}
    assert told[2]["message_type"] == "committed_transcript_with_timestamps"
    assert [(word["text"], word["type"], word["start"], word["end"]) for word in told[2]["words"]] == [
        ("Hello", "word", 0.1, 0.4),
        (" ", "spacing", 0.4, 0.5),
        ("you.", "word", 0.5, 0.9),
    ]


async def test_a_client_that_leaves_closes_its_link() -> None:
    """And gives its seat back."""
    async with speech_server() as server:
        async with server.connect(PATH) as client:
            await client.receive()
            assert (server.stt.open_links, server.seats.taken) == (1, 1)
        with trio.fail_after(5):
            while server.seats.taken:
                await trio.sleep(0.005)
        assert server.stt.open_links == 0


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"commit": True}], "commit_throttled"),
        ([{"previous_text": "a"}, {"previous_text": "b"}], "input_error"),
        ([{"sample_rate": 8000}], "input_error"),
        ([{"audio": b"odd"}], "input_error"),
        ([{"message_type": "commit"}], "input_error"),
        ([{"audio_base_64": "?"}], "input_error"),
    ],
)
async def test_a_mistake_ends_the_session_with_its_name(messages: list[dict[str, Any]], error: str) -> None:
    """A message, then close code 1000, as at ElevenLabs."""
    async with speech_server() as server, server.connect(PATH) as client:
        await client.receive()
        for message in messages:
            fields = {"message_type": "input_audio_chunk", **message}
            audio = fields.pop("audio", HALF_SECOND[:8000])  # 0.25 s: too little to commit
            fields.setdefault("audio_base_64", base64.b64encode(audio).decode())
            await client.send(**fields)
        told = await client.receive()
        assert told["message_type"] == error
        assert (await client.closed())[0] == 1000


async def test_an_answered_commit_needs_new_audio_for_the_next() -> None:
    """Half a second serves one commit."""
    async with speech_server() as server, server.connect(PATH) as client:
        await client.receive()
        await say(client, commit=True)
        await say(client, b"", commit=True)
        assert "only 0.00s" in (await client.receive())["error"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("&audio_format=mp3_44100_128", "audio_format"),
        ("&vad_threshold=2", "vad_threshold"),
        ("&commit_strategy=sometimes", "commit_strategy"),
        ("&include_timestamps=maybe", "include_timestamps"),
    ],
)
async def test_a_query_that_cannot_be_served_is_refused(query: str, field: str) -> None:
    """After the socket has opened."""
    async with speech_server() as server, server.connect(PATH + query) as client:
        told = await client.receive()
        assert told["message_type"] == "invalid_request"
        assert f"`{field}`" in told["error"]
        assert (await client.closed())[0] == 1000
        assert server.stt.links == []


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ProviderError(Upstream.STT, ProviderFault.OVERLOADED, "Full."), "resource_exhausted"),
        (ProviderError(Upstream.STT, ProviderFault.QUOTA_EXCEEDED, "Spent."), "quota_exceeded"),
        (ProviderError(Upstream.STT, ProviderFault.LOST, "Gone."), "transcriber_error"),
        (ClientError(ClientFault.INVALID_FIELD, "Only English."), "invalid_request"),
    ],
)
@pytest.mark.parametrize("when", ["connecting", "listening"])
async def test_what_fails_upstream_is_told(failure: Exception, error: str, when: str) -> None:
    """At the start or in the middle."""

    async def fail(_: int) -> None:
        await trio.lowlevel.checkpoint()
        raise failure

    async with speech_server() as server:
        if when == "connecting":
            server.stt.connecting = fail
        async with server.connect(PATH) as client:
            if when == "listening":
                await client.receive()
                server.stt.say(failure)
            told = await client.receive()
            assert (told["message_type"], told["error"]) == (error, str(failure))
            assert (await client.closed())[0] == 1000


async def test_silence_ends_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session without messages costs a seat for nothing."""
    monkeypatch.setattr(scribe, "SILENCE_S", 0.1)
    async with speech_server() as server, server.connect(PATH) as client:
        await client.receive()
        assert (await client.receive())["message_type"] == "insufficient_audio_activity"
        assert (await client.closed())[0] == 1000


async def test_a_full_server_says_so() -> None:
    """Seats are shared with conversations."""
    async with speech_server(seats=1) as server, server.connect(PATH) as first:
        await first.receive()
        async with server.connect(PATH) as second:
            assert (await second.receive())["message_type"] == "resource_exhausted"


async def test_a_stopping_server_closes_with_1012() -> None:
    """Which tells a client to come back."""
    async with speech_server() as server, server.connect(PATH) as client:
        await client.receive()
        server.draining.set()
        assert (await client.closed())[0] == 1012


async def test_a_token_of_this_socket_lets_in_once() -> None:
    """One of another socket does not; what is told is ElevenLabs' own sentence."""
    gate = Gate(("right",), TokenMint("secret", 60))
    async with speech_server(gate=gate) as server:
        token = gate.mint.issue("realtime_scribe")
        async with server.connect(f"{PATH}&token={token}") as client:
            assert (await client.receive())["message_type"] == "session_started"
        for bad in (token, gate.mint.issue("tts_websocket"), ""):
            async with server.connect(f"{PATH}&token={bad}") as client:
                told = await client.receive()
                assert told["message_type"] == "auth_error"
                assert told["error"] == "You must be authenticated to use this endpoint."
                assert (await client.closed())[0] == 1000
