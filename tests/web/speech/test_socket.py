import json
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketState
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from tests.speech.counting_tts import CHUNKS_PER_PIECE, CountingTts, audio_of
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.speech.service import SpeechConfig, open_speech
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.websocket import open_websocket
from voice_fsm.web.auth import Gate
from voice_fsm.web.serve import serve
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.speech.socket import (
    MANY_ORDERS,
    MAX_QUEUED,
    SpeechSocket,
    SpeechSocketConfig,
    SpeechSocketEndpoint,
)
from voice_fsm.web.voice import DoorPolicy

HELLO = "Hello there, my friend."


@attrs.define
class Client:
    """A raw client of the socket."""

    websocket: UpstreamSocket

    async def send(self, action: str, **fields: object) -> None:
        await self.websocket.send_message(json.dumps({"action": action, **fields}))

    async def receive(self) -> Any:
        """The next message, or bytes of audio."""
        with trio.fail_after(10):
            frame = await self.websocket.get_message()
        return frame if isinstance(frame, bytes) else json.loads(frame)

    async def until(self, action: str) -> tuple[bytes, list[Any]]:
        """All audio and messages up to the next message of this action."""
        audio, messages = b"", list[Any]()
        while not messages or messages[-1]["action"] != action:
            frame = await self.receive()
            if isinstance(frame, bytes):
                audio += frame
            else:
                messages.append(frame)
        return audio, messages

    async def close_code(self) -> int:
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012  # any of the reads may be the last
            while True:
                await self.receive()
        assert closed.value.reason is not None
        return int(closed.value.reason.code)


@attrs.define
class Server:
    url: str
    draining: trio.Event

    @asynccontextmanager
    async def connect(self, path: str = "", **kwargs: Any) -> AsyncIterator[Client]:
        async with open_websocket(self.url + path, upstream=Upstream.TTS, **kwargs) as websocket:
            yield Client(websocket)


@asynccontextmanager
async def serving(
    tts: CountingTts,
    *,
    policy: DoorPolicy | None = None,
    gate: Gate | None = None,
    config: SpeechSocketConfig | None = None,
    speech_config: SpeechConfig | None = None,
) -> AsyncIterator[Server]:
    draining = trio.Event()
    async with (
        open_speech(tts, speech_config or SpeechConfig(max_chars=1000)) as speech,
        trio.open_nursery() as nursery,
    ):
        config = attrs.evolve(config or SpeechSocketConfig(), draining=draining)
        endpoint = SpeechSocketEndpoint(speech, policy or DoorPolicy(), gate, config=config)
        app = Starlette(routes=[WebSocketRoute("/api/v1/ws", endpoint.__call__)])
        stop = trio.Event()
        start = partial(
            serve, app, ServeConfig(port=0, drain_s=3), shutdown_trigger=stop.wait, draining=draining
        )
        (address,) = await nursery.start(start)
        try:
            yield Server(address.replace("http", "ws", 1) + "/api/v1/ws", draining)
        finally:
            stop.set()


def connected(tts: CountingTts) -> AbstractAsyncContextManager[Client]:
    """A server, and one client of it."""

    @asynccontextmanager
    async def both() -> AsyncIterator[Client]:
        async with serving(tts) as server, server.connect() as client:
            yield client

    return both()


@pytest.fixture
def tts() -> CountingTts:
    return CountingTts(chunk_s=0)


@pytest.fixture
def endless() -> CountingTts:
    """A voice that does not come to its end while a test lasts."""
    return CountingTts(chunk_s=60)


async def running(tts: CountingTts, count: int = 1) -> None:
    """Wait until so many calls have been made to the provider."""
    with trio.fail_after(5):
        while tts.calls < count:
            await trio.sleep(0.001)


async def test_a_base_client(tts: CountingTts) -> None:
    """Text in, chunks of audio out as they come, and then done: nothing else."""
    async with connected(tts) as client:
        for text in (HELLO, "How are you today?"):
            await client.send("synthesize", text=text)
            frames = [await client.receive() for _ in range(CHUNKS_PER_PIECE + 1)]
            assert b"".join(frames[:-1]) == audio_of([text])
            assert frames[-1] == {"action": "done"}


async def test_texts_are_spoken_in_their_order(tts: CountingTts) -> None:
    """A text that comes while another is spoken waits, and each has its own id."""
    async with connected(tts) as client:
        for number in range(5):
            await client.send("synthesize", text=f"This is the text number {number}.", id=number)
        for number in range(5):
            audio, messages = await client.until("done")
            assert audio == audio_of([f"This is the text number {number}."])
            assert messages == [{"action": "done", "id": number}]


async def test_a_cancel_ends_what_is_spoken_and_what_waits(endless: CountingTts) -> None:
    """One acknowledgement, with the id of what it cut short; the provider is called off."""
    async with connected(endless) as client:
        for number in range(3):
            await client.send("synthesize", text=f"This is the text number {number}.", id=f"t{number}")
        await running(endless)
        await client.send("cancel")
        assert await client.receive() == {"action": "cancelled", "id": "t0", "dropped": 2}
        endless.chunk_s = 0
        await client.send("synthesize", text=HELLO)
        assert await client.until("done") == (audio_of([HELLO]), [{"action": "done"}])
        assert (endless.calls, endless.running) == (2, 0)


async def test_a_cancel_of_nothing_is_acknowledged(tts: CountingTts) -> None:
    """Whoever asks too late is told all the same; each cancel gets one answer."""
    async with connected(tts) as client:
        await client.send("cancel")
        await client.send("cancel")
        assert [await client.receive(), await client.receive()] == [{"action": "cancelled"}] * 2


@pytest.mark.parametrize("seed", range(3))
async def test_no_byte_follows_a_cancel(seed: int) -> None:
    """Cancelled at random moments, with texts queued or not: silence until the next text, every time."""
    chance = random.Random(seed)
    tts = CountingTts(chunk_s=0.0005)
    async with connected(tts) as client:
        for round_ in range(40):
            texts = [f"Round {round_} has the text number {n}." for n in range(chance.randint(1, 3))]
            for text in texts:
                await client.send("synthesize", text=text, id=text, cache=chance.random() < 0.5)
            await trio.sleep(chance.random() * 0.006)
            await client.send("cancel")
            audio, messages = await client.until("cancelled")
            assert audio_of(texts).startswith(audio)
            *done, cancelled = messages
            assert [message["id"] for message in done] == texts[: len(done)]
            cut = [cancelled["id"]] if "id" in cancelled else []
            assert cut == texts[len(done) : len(done) + len(cut)]
            assert len(done) + len(cut) + cancelled.get("dropped", 0) == len(texts)
            if chance.random() < 0.5:
                await client.send("nothing")
                assert (await client.receive())["action"] == "error"
    assert tts.running == 0


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ("{", {"code": "malformed_message"}),
        (b"\0\0", {"code": "malformed_message"}),
        ("[]", {"code": "malformed_message"}),
        ('{"type":"synthesize"}', {"code": "malformed_message"}),
        ('{"action":"sing","id":"a"}', {"code": "unknown_type", "id": "a"}),
        ('{"action":"synthesize","id":4}', {"code": "invalid_field", "field": "text", "id": 4}),
        ('{"action":"synthesize","text":" "}', {"code": "empty_text", "field": "text"}),
        ('{"action":"synthesize","text":"...","id":"a"}', {"code": "empty_text", "field": "text", "id": "a"}),
        (
            json.dumps({"action": "synthesize", "text": "a" * 1001}),
            {"code": "text_too_long", "field": "text"},
        ),
        (
            '{"action":"synthesize","text":"Hi.","voice":"nobody"}',
            {"code": "invalid_field", "field": "voice"},
        ),
    ],
)
async def test_bad_input_is_told_and_the_socket_lives(
    tts: CountingTts, frame: str | bytes, told: dict[str, object]
) -> None:
    """A stable code, a sentence, the field and the id of the request; then the next text is spoken."""
    async with connected(tts) as client:
        await client.websocket.send_message(frame)
        error = await client.receive()
        assert error["action"] == "error"
        assert error["message"]
        assert {name: error[name] for name in ("code", "field", "id") if name in error} == told
        await client.send("synthesize", text=HELLO)
        assert (await client.until("done"))[0] == audio_of([HELLO])


async def test_the_queue_is_bounded(endless: CountingTts) -> None:
    """One more than may wait is refused, and those that wait go on waiting."""
    async with connected(endless) as client:
        await client.send("synthesize", text=HELLO)
        await running(endless)
        for number in range(MAX_QUEUED + 1):
            await client.send("synthesize", text=HELLO, id=number)
        error = await client.receive()
        assert (error["code"], error["id"]) == ("queue_full", MAX_QUEUED)
        await client.send("cancel")
        assert await client.receive() == {"action": "cancelled", "dropped": MAX_QUEUED}


@pytest.mark.parametrize("fail_at", [0, 3])
async def test_a_failure_of_the_provider_closes_the_socket(tts: CountingTts, fail_at: int) -> None:
    """With its code and the id of the text, then 1011."""
    tts.error = ProviderError(Upstream.TTS, ProviderFault.SERVER_ERROR, "The voice failed.")
    tts.fail_at = fail_at
    async with connected(tts) as client:
        await client.send("synthesize", text=HELLO, id="a")
        await client.send("synthesize", text="And another.")
        audio, messages = await client.until("error")
        assert audio_of([HELLO]).startswith(audio)
        assert messages == [
            {
                "action": "error",
                "code": "tts_server_error",
                "message": "The voice failed.",
                "retryable": True,
                "id": "a",
            }
        ]
        assert await client.close_code() == 1011


async def test_a_fault_of_ours_closes_the_socket(tts: CountingTts) -> None:
    """A crash in an adapter reaches no other client."""
    async with serving(tts) as server, server.connect() as other, server.connect() as client:
        tts.error = RuntimeError("a bug")
        await client.send("synthesize", text=HELLO)
        assert await client.close_code() == 1011
        tts.error = None
        await other.send("synthesize", text=HELLO)
        assert (await other.until("done"))[0] == audio_of([HELLO])


async def test_who_leaves_ends_the_synthesis(endless: CountingTts) -> None:
    """The provider is called off as soon as the client has gone."""
    async with serving(endless) as server:
        async with server.connect() as client:
            await client.send("synthesize", text=HELLO)
            await running(endless)
        with trio.fail_after(5):
            while endless.running:
                await trio.sleep(0.001)


class DeafWebSocket:
    """A client that cancels without end and takes nothing of what it is told."""

    application_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.heard = 0

    async def receive(self) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        self.heard += 1
        if self.heard > 10_000:
            return {"type": "websocket.disconnect"}
        return {"type": "websocket.receive", "text": '{"action":"cancel"}'}

    async def send(self, message: dict[str, object]) -> None:
        await trio.sleep_forever()


async def test_a_client_that_does_not_read(autojump_clock: MockClock, tts: CountingTts) -> None:
    """It is listened to until so much waits to be told to it, and not beyond."""
    deaf: Any = DeafWebSocket()
    async with open_speech(tts, SpeechConfig()) as speech, trio.open_nursery() as nursery:
        nursery.start_soon(SpeechSocket(deaf, speech, SpeechSocketConfig()).run)
        await trio.sleep(60)
        assert deaf.heard == MANY_ORDERS + 1
        nursery.cancel_scope.cancel()


async def test_a_frame_that_is_too_large(tts: CountingTts) -> None:
    """It closes the socket with 1009, and reaches no other."""
    async with serving(tts) as server, server.connect() as other, server.connect() as client:
        await client.websocket.send_message("x" * 2_000_000)
        assert await client.close_code() == 1009
        await other.send("synthesize", text=HELLO)
        assert (await other.until("done"))[0] == audio_of([HELLO])


async def test_a_silent_client_is_dismissed(tts: CountingTts) -> None:
    """After ``idle_s``, but never while a text is spoken."""
    slow = CountingTts(chunk_s=0.05)
    async with serving(slow, config=SpeechSocketConfig(idle_s=0.1)) as server, server.connect() as client:
        await client.send("synthesize", text=HELLO)
        assert (await client.until("done"))[0] == audio_of([HELLO])
        assert await client.close_code() == 1000


async def test_a_server_that_stops(tts: CountingTts) -> None:
    """What was asked for is spoken to its end, then 1012."""
    tts.chunk_s = 0.01
    async with serving(tts) as server, server.connect() as client:
        await client.send("synthesize", text=HELLO)
        await running(tts)
        server.draining.set()
        assert (await client.until("done"))[0] == audio_of([HELLO])
        assert await client.close_code() == 1012


async def test_who_may_connect(tts: CountingTts) -> None:
    """A key or a token for text to speech, from an allowed page, while there is room."""
    gate = Gate(("the-key",))
    policy = DoorPolicy(allowed_origins=frozenset({"https://app.example.com"}), max_sessions=1)
    origin = ("origin", "https://app.example.com")
    async with serving(tts, gate=gate, policy=policy) as server:
        with pytest.raises(ProviderError):
            async with server.connect(headers=[("origin", "https://evil.example.com")]):
                pass
        async with server.connect(headers=[origin]) as client:
            assert (await client.receive())["code"] == "unauthorized"
            assert await client.close_code() == 1008
        token = gate.mint.issue("tts_websocket")
        async with server.connect(f"?token={token}", headers=[origin]) as client:
            await client.send("synthesize", text=HELLO)
            assert (await client.until("done"))[0] == audio_of([HELLO])
            async with server.connect(headers=[origin, ("xi-api-key", "the-key")]) as second:
                assert (await second.receive())["code"] == "overloaded"
                assert await second.close_code() == 1013
