"""The fake is held to what the official Python client understands."""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.fakes.elevenlabs_tts import (
    CHAR_MS,
    VOICE_SETTINGS_RULE,
    FakeElevenLabsTts,
    Refuse,
    Report,
    Trouble,
    serve_elevenlabs_tts,
    speech_of,
)
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import Upstream
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.websocket import open_websocket

elevenlabs = pytest.importorskip("elevenlabs")
pytestmark = [
    # The client's own use of an attribute that its WebSocket library has deprecated.
    pytest.mark.filterwarnings("ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning"),
]

PCM = AudioFormat("pcm", 16000)
TEXT = "The first move is what sets everything in motion."


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeElevenLabsTts, Any]]:
    fake = FakeElevenLabsTts()
    async with serve_elevenlabs_tts(fake) as url:
        client = elevenlabs.ElevenLabs(api_key=fake.api_key, base_url=url)
        client.text_to_speech._ws_base_url = url.replace("http", "ws", 1)
        yield fake, client
        client._client_wrapper.httpx_client.httpx_client.close()


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run the blocking client, and give up on it rather than wait for ever."""
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


@pytest.mark.parametrize("method", ["convert", "stream"])
async def test_the_client_reads_plain_audio(fake: tuple[FakeElevenLabsTts, Any], method: str) -> None:
    """Both endpoints of bare audio give the client the whole speech."""
    server, client = fake
    call = getattr(client.text_to_speech, method)

    audio = await in_thread(lambda: b"".join(call("voice-1", text=TEXT, output_format=str(PCM))))

    assert audio == speech_of(TEXT, PCM)
    assert server.requests[0].headers["xi-api-key"] == server.api_key


async def test_the_client_reads_a_whole_answer_with_timestamps(fake: tuple[FakeElevenLabsTts, Any]) -> None:
    """The endpoint that answers with one JSON object holds audio and the time of each character."""
    _, client = fake

    answer = await in_thread(
        lambda: client.text_to_speech.convert_with_timestamps("voice-1", text="Hi", output_format=str(PCM))
    )

    assert answer.alignment.characters == ["H", "i"]
    assert answer.alignment.character_end_times_seconds == [CHAR_MS / 1000, 2 * CHAR_MS / 1000]


async def test_the_client_reads_a_stream_with_timestamps(fake: tuple[FakeElevenLabsTts, Any]) -> None:
    """The chunks' characters concatenate to the text, and their times never run back."""
    _, client = fake

    chunks = await in_thread(
        lambda: list(
            client.text_to_speech.stream_with_timestamps("voice-1", text=TEXT, output_format=str(PCM))
        )
    )

    alignments = [chunk.alignment for chunk in chunks if chunk.alignment]
    starts = [time for alignment in alignments for time in alignment.character_start_times_seconds]
    assert len(chunks) > 5
    assert "".join(char for alignment in alignments for char in alignment.characters) == TEXT
    assert starts == sorted(starts)


async def test_the_client_streams_text_in_over_the_socket(fake: tuple[FakeElevenLabsTts, Any]) -> None:
    """All text that the client feeds is spoken, and the close that it waits for comes."""
    server, client = fake
    pieces = ["Hello there, ", "how are you? ", "I am very well, thank you for asking me. ", "Bye."]

    audio = await in_thread(
        lambda: b"".join(
            client.text_to_speech.convert_realtime(
                "voice-1", text=iter(pieces), model_id="eleven_flash_v2_5", output_format=str(PCM)
            )
        )
    )

    (stream,) = server.streams
    assert b"".join(speech_of(text, PCM) for text in stream.spoken) == audio
    assert "".join(stream.spoken).split() == "".join(pieces).split()
    assert len(stream.spoken) < len(pieces)  # its schedule asks for 50 characters


async def test_the_client_lists_voices(fake: tuple[FakeElevenLabsTts, Any]) -> None:
    """A page of voices is one to the client."""
    _, client = fake

    page = await in_thread(lambda: client.voices.search(page_size=1))

    assert [voice.voice_id for voice in page.voices] == ["voice-1"]
    assert (page.has_more, page.next_page_token) == (True, "1")


@pytest.mark.parametrize(
    ("refusal", "status", "named"),
    [
        (Refuse(401, {"status": "invalid_api_key", "message": "no"}), 401, "invalid_api_key"),
        (Refuse(429, {"status": "too_many_concurrent_requests"}), 429, "too_many_concurrent_requests"),
        (Refuse(500, body=b'{"status":"internal_server_error"}'), 500, "internal_server_error"),
    ],
)
async def test_the_client_reads_refusals(
    fake: tuple[FakeElevenLabsTts, Any], refusal: Refuse, status: int, named: str
) -> None:
    """Refusals reach the client with their status and body."""
    server, client = fake
    server.troubles.append(refusal)

    with pytest.raises(elevenlabs.core.ApiError) as caught:
        await in_thread(lambda: list(client.text_to_speech.stream("voice-1", text=TEXT)))

    assert caught.value.status_code == status
    assert named in json.dumps(caught.value.body)


async def test_the_client_reads_error_frames(fake: tuple[FakeElevenLabsTts, Any]) -> None:
    """An error on the socket is the frame's message, with the code of the close after it."""
    server, client = fake
    server.troubles.append(Report("quota_exceeded", "This request exceeds your quota."))

    with pytest.raises(elevenlabs.core.ApiError) as caught:
        await in_thread(
            lambda: list(client.text_to_speech.convert_realtime("voice-1", text=iter([TEXT + " "])))
        )

    assert caught.value.status_code == 1008


async def test_a_broken_stream_is_an_error_to_the_client(fake: tuple[FakeElevenLabsTts, Any]) -> None:
    """A chunk that is cut short does not pass for the end."""
    server, client = fake
    server.troubles.append(Trouble.CUT_MIDWAY)

    with pytest.raises(Exception, match=r"incomplete|closed"):
        await in_thread(lambda: list(client.text_to_speech.stream("voice-1", text=TEXT)))


# --- the sockets' rules, which the client does not break ----------------------------------------------


async def end_of(fake: FakeElevenLabsTts, *messages: dict[str, Any], **query: Any) -> tuple[Any, int | None]:
    """Send messages to a socket and wait for its end; gives the last frame and the code of the close."""
    frames, code = await all_of(fake, "stream-input", *messages, **query)
    return frames[-1], code


async def all_of(
    fake: FakeElevenLabsTts, path: str, *messages: dict[str, Any], **query: Any
) -> tuple[list[Any], int | None]:
    """The same with all frames, of either socket."""
    frames: list[Any] = []
    async with serve_elevenlabs_tts(fake) as url:
        address = f"{url.replace('http', 'ws', 1)}/v1/text-to-speech/voice-1/{path}?{urlencode(query)}"
        async with open_websocket(
            address, upstream=Upstream.TTS, headers=[("xi-api-key", fake.api_key)]
        ) as connection:
            with pytest.raises(ConnectionClosed) as closed:
                await converse(connection, messages, frames)
    assert closed.value.reason is not None
    return frames, closed.value.reason.code


async def converse(connection: UpstreamSocket, messages: Iterable[dict[str, Any]], frames: list[Any]) -> None:
    for message in messages:
        await connection.send_message(json.dumps(message))
    while True:
        frames.append(json.loads(await connection.get_message()))


async def test_settings_may_not_change(autojump_clock: Any) -> None:
    """Other settings than the first message's end the stream with 1008 and the service's words."""
    first = {"text": " ", "voice_settings": {"stability": 0.5}}
    last, code = await end_of(
        FakeElevenLabsTts(), first, first, {"text": "Hi ", "voice_settings": {"stability": 0.6}}
    )

    assert last["message"] == VOICE_SETTINGS_RULE
    assert code == 1008


async def test_silence_ends_a_socket(autojump_clock: Any) -> None:
    """Without any text for as long as was agreed, the stream ends with an error."""
    began_s = trio.current_time()
    last, code = await end_of(FakeElevenLabsTts(), {"text": " "}, inactivity_timeout=30)

    assert last["error"] == "input_timeout_exceeded"
    assert code == 1008
    assert trio.current_time() - began_s == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize(
    ("messages", "query", "error"),
    [
        ([{"txt": " "}], {}, "invalid_input_message"),
        ([{"text": " "}], {"model_id": "eleven_v3"}, "unsupported_model"),
        ([{"text": " "}], {"output_format": "pcm_48000"}, "invalid_output_format"),
    ],
)
async def test_what_a_socket_does_not_take(
    autojump_clock: Any, messages: list[dict[str, Any]], query: dict[str, str], error: str
) -> None:
    """Messages, models and formats that the socket does not know are refused by a frame and 1008."""
    last, code = await end_of(FakeElevenLabsTts(), *messages, **query)

    assert last["error"] == error
    assert code == 1008


async def test_text_waits_for_the_schedule_unless_in_auto_mode(autojump_clock: Any) -> None:
    """By default 120 characters are needed before any audio; a flush or the end asks for the rest."""
    short = [{"text": " "}, {"text": "One. "}, {"text": "Two. "}, {"text": ""}]
    scheduled, auto = FakeElevenLabsTts(), FakeElevenLabsTts()
    last, code = await end_of(scheduled, *short)
    await end_of(auto, *short, auto_mode="true")

    assert (last, code) == ({"audio": None, "isFinal": True}, 1000)
    assert scheduled.streams[0].spoken == ["One. Two. "]
    assert auto.streams[0].spoken == ["One. ", "Two. "]


# --- contexts -----------------------------------------------------------------------------------------

MULTI = "multi-stream-input"


def summary(frames: Iterable[Any]) -> list[tuple[str, int]]:
    """Whose the frames were, and how long they sounded; 0 is a final frame."""
    sizes = ((frame["contextId"], len(frame["audio"] or "") * 3 // 4) for frame in frames)
    return [(context_id, round(PCM.duration_ms(size))) for context_id, size in sizes]


async def test_contexts_speak_side_by_side_to_their_end(autojump_clock: Any) -> None:
    """One that is closed takes nothing more; when it has said what was generated, its final frame comes."""
    fake = FakeElevenLabsTts(chunk_bytes=10**6, between_chunks_s=1)
    frames, code = await all_of(
        fake,
        MULTI,
        {"text": "Hi. ", "context_id": "a", "flush": True},
        {"text": "More. ", "context_id": "a"},  # is not generated before the close
        {"context_id": "a", "close_context": True},
        {"text": "Late. ", "context_id": "a", "flush": True},
        {"text": "Ho, ho. ", "contextId": "b"},
        {"context_id": "b", "flush": True},
        {"close_socket": True},
        output_format=str(PCM),
    )

    assert sorted(summary(frames[:2])) == [("a", 4 * CHAR_MS), ("b", 8 * CHAR_MS)]
    assert sorted(summary(frames[2:])) == [("a", 0), ("b", 0)]
    assert [frame["isFinal"] for frame in frames] == [None, None, True, True]
    assert code == 1000


async def test_an_id_is_free_after_its_final_frame(autojump_clock: Any) -> None:
    """What begins then is another context, with settings of its own; a lone flush or close begins one too."""
    fake = FakeElevenLabsTts()
    async with serve_elevenlabs_tts(fake) as url:
        address = f"{url.replace('http', 'ws', 1)}/v1/text-to-speech/voice-1/{MULTI}"
        async with open_websocket(
            address, upstream=Upstream.TTS, headers=[("xi-api-key", fake.api_key)]
        ) as connection:
            for fields in (
                {"voice_settings": {"speed": 1.1}},
                {"voice_settings": {"speed": 1.2}},
                {"flush": True},
            ):
                for message in ({"context_id": "a", **fields}, {"context_id": "a", "close_context": True}):
                    await connection.send_message(json.dumps(message))
                final = json.loads(await connection.get_message())
                assert final == {"audio": None, "isFinal": True, "contextId": "a"}


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_sixth_context_is_too_many(autojump_clock: Any, *, is_closed: bool) -> None:
    """Closed ones count until their final frames."""
    fake = FakeElevenLabsTts(first_audio_s=1)
    opened = [{"text": "Hi. ", "context_id": str(number), "flush": True} for number in range(6)]
    closed = [{"context_id": str(number), "close_context": True} for number in range(5)] if is_closed else []
    frames, code = await all_of(fake, MULTI, *opened[:5], *closed, opened[5])

    assert frames[-1]["error"] == "max_active_conversations"
    assert code == 1008


async def test_settings_of_a_context_may_not_change(autojump_clock: Any) -> None:
    """A lone keep-alive counts as its first message."""
    frames, code = await all_of(
        FakeElevenLabsTts(),
        MULTI,
        {"text": "", "context_id": "a"},
        {"text": "Hi. ", "context_id": "a", "voice_settings": {"speed": 1.1}},
    )

    assert frames[-1]["message"] == VOICE_SETTINGS_RULE
    assert code == 1008


@pytest.mark.parametrize(
    ("messages", "whose"),
    [
        ([], None),
        ([{"text": ""}], None),
        ([{"text": " ", "context_id": "a"}], "a"),
    ],
)
async def test_silence_ends_a_socket_with_contexts(
    autojump_clock: Any, messages: list[dict[str, Any]], whose: str | None
) -> None:
    """That of one context is enough, but for a closed one."""
    began_s = trio.current_time()
    closed: list[dict[str, Any]] = [
        {"text": " ", "context_id": "b"},
        {"context_id": "b", "close_context": True},
    ]
    frames, code = await all_of(FakeElevenLabsTts(), MULTI, *messages, *closed, inactivity_timeout=30)

    assert frames[-1]["error"] == "input_timeout_exceeded"
    assert frames[-1].get("contextId") == whose
    assert code == 1008
    assert trio.current_time() - began_s == pytest.approx(30, abs=0.1)
