"""WebSockets as an ASGI app and its clients see them, over real sockets."""

import logging
import tracemalloc
from collections import Counter
from contextlib import suppress

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from trio_websocket import open_websocket_url

from tests.fakes.asgi import (
    ACCEPT_OF_KEY,
    RawWebSocket,
    accept,
    client_frame,
    echo,
    serving,
    upgrade_request,
    with_lifespan,
)
from voice_fsm.upstream.eager import write_now
from voice_fsm.web.messages import Messages
from voice_fsm.web.websocket import PeerGone
from voice_fsm.wire.frames import BINARY, CLOSE, PING, PONG, TEXT

DEFLATE_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
MIB = 1 << 20


class Recorder:
    """An app that accepts, and keeps what it is told to the end."""

    def __init__(self) -> None:
        self.scope: Scope = {}
        self.events: list[Message] = []
        self.ended = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        await accept(receive, send)
        while not self.events or self.events[-1]["type"] != "websocket.disconnect":
            self.events.append(await receive())
        self.ended.set()

    async def disconnect(self) -> Message:
        """Wait for the last event."""
        with trio.fail_after(10):
            await self.ended.wait()
        return self.events[-1]


# --- the handshake ----------------------------------------------------------------------------------


async def test_an_offer_to_compress_is_declined() -> None:
    """The handshake answers the key and says nothing of extensions; messages flow uncompressed."""
    async with serving(with_lifespan(echo)) as served, await served.connect() as stream:
        client = RawWebSocket(stream)
        await stream.send_all(upgrade_request(DEFLATE_OFFER))
        head = await client.read_head()
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"\r\nsec-websocket-accept: " + ACCEPT_OF_KEY + b"\r\n" in head
        assert b"extensions" not in head
        await client.send_text("a" * 1000)
        assert await client.read_text() == "a" * 1000


async def test_a_common_client_converses() -> None:
    """trio-websocket sends text and binary of all sizes and closes with both sides in agreement."""
    async with (
        serving(with_lifespan(echo)) as served,
        open_websocket_url(f"ws://127.0.0.1:{served.port}/") as client,
    ):
        messages: list[str | bytes] = ["", "hello", "ü" * 40_000, b"", b"\0" * 200, bytes(MIB)]
        for message in messages:
            await client.send_message(message)
            assert await client.get_message() == message
        await client.ping()
        await client.aclose()
        assert client.closed is not None
        assert client.closed.code == 1000


@pytest.mark.parametrize("cut", [1, 3, 8, None])
async def test_a_message_in_one_packet_with_the_request_is_processed(cut: int | None) -> None:
    """What a hasty client sends before it was answered, whole or not, is its first message."""
    frame = client_frame(TEXT, b"early")
    async with serving(with_lifespan(echo)) as served:
        client = await served.open_websocket(early=frame[:cut])
        await client.stream.send_all(frame[cut:] if cut else b"")
        assert await client.read_text() == "early"
        await client.send_text("later")
        assert await client.read_text() == "later"


async def test_garbage_in_one_packet_with_the_request_ends_that_connection_alone() -> None:
    """The byte that ended the whole process is told to be a protocol error."""
    async with serving(with_lifespan(echo)) as served:
        neighbour = await served.open_websocket()
        client = await served.open_websocket(early=b"\xff\xff")
        assert await client.read_close() == 1002
        await neighbour.send_text("still here?")
        assert await neighbour.read_text() == "still here?"


async def test_the_scope_tells_the_app_of_the_request() -> None:
    """Path, query, headers, subprotocols, both ends."""
    app = Recorder()
    async with serving(with_lifespan(app)) as served, await served.connect() as stream:
        request = upgrade_request("Sec-WebSocket-Protocol: convai, other\r\n", path="/v1/a%20b?token=t%21")
        await stream.send_all(request)
        await RawWebSocket(stream).read_head()
        client_port = stream.socket.getsockname()[1]
        await stream.aclose()
        assert await app.disconnect()
    assert app.scope["path"] == "/v1/a b"
    assert app.scope["raw_path"] == b"/v1/a%20b"
    assert app.scope["query_string"] == b"token=t%21"
    assert app.scope["subprotocols"] == ["convai", "other"]
    assert (b"host", b"localhost") in app.scope["headers"]
    assert app.scope["client"] == ("127.0.0.1", client_port)
    assert app.scope["server"] == ("127.0.0.1", served.port)


async def test_the_app_selects_a_subprotocol_and_adds_headers() -> None:
    """Both are in the answer."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"x-session", b"s1")]
        await send({"type": "websocket.accept", "subprotocol": "convai", "headers": headers})

    async with serving(with_lifespan(app)) as served, await served.connect() as stream:
        await stream.send_all(upgrade_request("Sec-WebSocket-Protocol: convai\r\n"))
        head = await RawWebSocket(stream).read_head()
        assert b"\r\nsec-websocket-protocol: convai\r\n" in head
        assert b"\r\nx-session: s1\r\n" in head


async def test_a_request_without_a_key_is_a_bad_one() -> None:
    """400, and the connection closes."""
    async with serving(with_lifespan(echo)) as served, await served.connect() as stream:
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
        )
        assert (await RawWebSocket(stream).read_to_end()).startswith(b"HTTP/1.1 400 ")


async def test_an_app_may_refuse_by_closing() -> None:
    """Closing before accepting is a 403; what the client sent already does not get in its way."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async with serving(with_lifespan(app)) as served, await served.connect() as stream:
        await stream.send_all(upgrade_request() + client_frame(BINARY, bytes(100_000)))
        assert (await RawWebSocket(stream).read_to_end()).startswith(b"HTTP/1.1 403 ")


async def test_an_app_may_refuse_by_a_response() -> None:
    """Starlette's denial response comes through with status, headers and body."""

    async def endpoint(websocket: WebSocket) -> None:
        response = PlainTextResponse("later", status_code=503, headers={"Retry-After": "5"})
        await websocket.send_denial_response(response)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    async with serving(app) as served, await served.connect() as stream:
        await stream.send_all(upgrade_request())
        response = await RawWebSocket(stream).read_to_end()
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in response
        assert response.endswith(b"\r\n\r\nlater")


async def test_a_refusal_may_come_in_pieces() -> None:
    """The body of the response is sent as the app gives it."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
        for body in (b"too ", b"many"):
            await send({"type": "websocket.http.response.body", "body": body, "more_body": True})
        await send({"type": "websocket.http.response.body"})

    async with serving(with_lifespan(app)) as served, await served.connect() as stream:
        await stream.send_all(upgrade_request())
        response = await RawWebSocket(stream).read_to_end()
        assert response.startswith(b"HTTP/1.1 429 ")
        assert response.endswith(b"\r\n4\r\ntoo \r\n4\r\nmany\r\n0\r\n\r\n")


async def test_an_app_that_fails_before_it_answers_is_a_server_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500 to the client, the traceback to the log."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("a fault of ours")

    async with serving(with_lifespan(app)) as served, await served.connect() as stream:
        await stream.send_all(upgrade_request())
        assert (await RawWebSocket(stream).read_to_end()).startswith(b"HTTP/1.1 500 ")
    assert [record.exc_info is not None for record in caplog.records] == [True]


# --- messages ---------------------------------------------------------------------------------------


async def test_pings_are_answered_while_the_app_listens() -> None:
    """With the payload of the ping; a pong that nobody asked for is passed over."""
    async with serving(with_lifespan(echo)) as served:
        client = await served.open_websocket()
        await client.send(PONG, b"unasked")
        await client.send(PING, b"are you there?")
        assert await client.read_frame() == (PONG, b"are you there?")


async def test_a_burst_of_small_messages_lets_others_run() -> None:
    """Among the messages of one packet other tasks get their turns, in whichever order Trio runs them."""
    turns = 0
    counted: list[int] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for _message in range(50):
            await receive()
            counted.append(turns)
        await send({"type": "websocket.close"})

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with serving(with_lifespan(app)) as served, trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        client = await served.open_websocket(early=client_frame(TEXT, b"x") * 50)
        assert await client.read_close() == 1000
        nursery.cancel_scope.cancel()
    assert max(Counter(counted).values()) <= 2, "many messages came in one turn"


async def test_a_client_is_slowed_down_by_an_app_that_does_not_receive() -> None:
    """TCP pushes back; nothing piles up in the server."""
    go_on = trio.Event()
    total = 0

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        nonlocal total
        await accept(receive, send)
        await go_on.wait()
        while (event := await receive())["type"] == "websocket.receive":
            total += len(event["bytes"])

    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        frame = client_frame(BINARY, bytes(MIB))
        sent = 0
        with trio.move_on_after(0.3):
            while True:
                await client.stream.send_all(frame)
                sent += 1
        assert sent < 30


# --- the client leaves ------------------------------------------------------------------------------


async def test_a_close_is_answered_and_told_with_its_code() -> None:
    """The client's own code and reason reach the app, and its close comes back."""
    app = Recorder()
    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        await client.send(CLOSE, (4001).to_bytes(2, "big") + b"bye")
        assert await client.read_close() == 4001
        assert await app.disconnect() == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_just_leaves_is_told_as_lost(reset: bool) -> None:
    """The end of the stream and a reset are the same to the app: 1006."""
    app = Recorder()
    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        await client.send_text("hi")
        if reset:
            client.reset()
        else:
            await client.stream.aclose()
        assert (await app.disconnect())["code"] == 1006


async def test_a_disconnect_is_told_again_to_who_asks_again() -> None:
    """An app that goes on receiving gets the same event, and does not keep others from running."""
    app = Recorder()
    again: list[Message] = []
    asked_again = trio.Event()

    async def insistent(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        with trio.move_on_after(0.05):
            while True:
                again.append(await receive())
        asked_again.set()

    async with serving(with_lifespan(insistent)) as served:
        client = await served.open_websocket()
        await client.stream.aclose()
        first = await app.disconnect()
        await asked_again.wait()
    assert again
    assert all(event == first for event in again)


async def test_sending_to_a_client_that_left_raises() -> None:
    """An app that only sends learns it there, cannot spin, and its end is no fault of its own."""
    raised = trio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
        except PeerGone:
            with pytest.raises(OSError, match="closed"):
                await send({"type": "websocket.send", "bytes": b"once more"})
            await send({"type": "websocket.close"})
            raised.set()
            raise

    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        await client.read_text()
        client.reset()
        with trio.fail_after(10):
            await raised.wait()


async def test_an_app_that_lets_the_disconnect_through_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Starlette's WebSocketDisconnect ends the app quietly, out of a nursery too."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.receive_text)

    async with serving(Starlette(routes=[WebSocketRoute("/", endpoint)])) as served:
        client = await served.open_websocket()
        await client.send(CLOSE, b"")
        await client.read_close()
    assert not caplog.records


# --- the app leaves ---------------------------------------------------------------------------------


async def test_a_close_of_the_app_arrives_although_the_client_goes_on_sending() -> None:
    """Code and reason get through; a client that does not answer them is cut off when time is up."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for _message in range(3):
            await receive()
        await send({"type": "websocket.close", "code": 1012, "reason": "draining"})

    async with serving(with_lifespan(app), close_timeout_s=0.3) as served:
        client = await served.open_websocket()

        async def talk() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await client.send(BINARY, bytes(3200))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                await trio.sleep(0.1)
                assert await client.read_frame() == (CLOSE, (1012).to_bytes(2, "big") + b"draining")


async def test_an_app_may_go_on_after_its_close() -> None:
    """Nothing follows the close on the wire, no ping either, and receiving tells of the end."""
    told: list[Message] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        await trio.sleep(0.1)
        told.append(await receive())

    async with serving(with_lifespan(app), ws_ping_interval_s=0.03) as served:
        client = await served.open_websocket()
        assert await client.read_frame() == (CLOSE, (4000).to_bytes(2, "big") + b"enough")
        assert await client.read_to_end() == b""
    assert told == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]


async def test_an_app_that_returns_closes_normally() -> None:
    """1000, without it having said so."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)

    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        assert await client.read_close() == 1000


async def test_an_app_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    """Its traceback is logged, and its neighbour does not notice."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/good":
            await echo(scope, receive, send)
        await accept(receive, send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise RuntimeError("a fault of ours")

    async with serving(with_lifespan(app)) as served:
        good = RawWebSocket(await served.connect())
        await good.stream.send_all(upgrade_request(path="/good"))
        await good.read_head()
        bad = await served.open_websocket()
        assert await bad.read_close() == 1011
        await good.send_text("fine")
        assert await good.read_text() == "fine"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_events_out_of_order_are_the_apps_fault(caplog: pytest.LogCaptureFixture) -> None:
    """Sending before accepting raises, and is answered with 500."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.send", "text": "too early"})

    async with serving(with_lifespan(app)) as served, await served.connect() as stream:
        await stream.send_all(upgrade_request())
        assert (await RawWebSocket(stream).read_to_end()).startswith(b"HTTP/1.1 500 ")
    assert "websocket.send cannot be sent while CONNECTING" in caplog.text


# --- what clients may not do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\xc1\x80\0\0\0\0", 1002, id="reserved bit"),
        pytest.param(b"\x81\x05hello", 1002, id="not masked"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 1002, id="no frame at all"),
        pytest.param(client_frame(TEXT, b"\xff\xfe"), 1007, id="no UTF-8"),
        pytest.param(client_frame(CLOSE, b"\x03\xed"), 1002, id="close code 1005"),
        pytest.param(b"\x82\xff" + (20 * MIB).to_bytes(8, "big") + bytes(100_000), 1009, id="20 MB"),
        pytest.param(
            client_frame(BINARY, bytes(MIB), first=BINARY) + client_frame(BINARY, b"!", first=0),
            1009,
            id="too big in sum",
        ),
    ],
)
async def test_a_breach_is_answered_by_a_close_and_told_to_the_app(wire: bytes, code: int) -> None:
    """The client gets the code although it goes on sending; the app gets it as a disconnect."""
    app = Recorder()
    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        await client.stream.send_all(wire)
        assert await client.read_close() == code
        assert (await app.disconnect())["code"] == code


async def test_a_frame_of_20_mb_takes_no_memory() -> None:
    """It is refused by its header, and what follows is read into nowhere."""
    app = Recorder()
    chunk = bytes(MIB)
    async with serving(with_lifespan(app)) as served:
        client = await served.open_websocket()
        tracemalloc.start()
        try:
            await client.stream.send_all(b"\x82\xff" + (20 * MIB).to_bytes(8, "big") + bytes(4))
            for _ in range(20):
                await client.stream.send_all(chunk)
            assert await client.read_close() == 1009
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < MIB


# --- clients that stall -----------------------------------------------------------------------------


async def pour(_: Scope, receive: Receive, send: Send) -> None:
    """Send without end."""
    await accept(receive, send)
    while True:
        await send({"type": "websocket.send", "bytes": bytes(65_536)})


async def test_a_client_that_stops_reading_is_dropped_and_hurts_nobody() -> None:
    """Its sender fails within about the TCP user timeout; meanwhile another client is served."""
    dropped_after_s = 0.0
    dropped = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal dropped_after_s
        if scope["path"] == "/echo":
            await echo(scope, receive, send)
            return
        began_s = trio.current_time()
        try:
            await pour(scope, receive, send)
        finally:
            dropped_after_s = trio.current_time() - began_s
            dropped.set()

    async with serving(with_lifespan(app), tcp_user_timeout_s=0.4) as served:
        stalled = await served.open_websocket(receive_buffer_bytes=4096)
        neighbour = RawWebSocket(await served.connect())
        await neighbour.stream.send_all(upgrade_request(path="/echo"))
        await neighbour.read_head()
        with trio.fail_after(10):
            while not dropped.is_set():
                await neighbour.send_text("still here?")
                assert await neighbour.read_text() == "still here?"
                await trio.sleep(0.01)
        assert 0.3 < dropped_after_s < 4
        await stalled.stream.aclose()


@pytest.mark.parametrize("linux", [True, False])
async def test_a_send_that_cannot_be_finished_raises(linux: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not sent whole is not taken for sent; nor on a system without TCP_USER_TIMEOUT."""
    if not linux:
        monkeypatch.delattr(trio.socket, "TCP_USER_TIMEOUT")
    outcome: list[str] = []
    done = trio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            await send({"type": "websocket.send", "bytes": bytes(8 * MIB)})
        except PeerGone:
            outcome.append("raised")
        outcome.append((await receive())["type"])
        done.set()

    async with serving(with_lifespan(app), tcp_user_timeout_s=0.3) as served:
        await served.open_websocket(receive_buffer_bytes=4096)
        with trio.fail_after(10):
            await done.wait()
    assert outcome == ["raised", "websocket.disconnect"]


async def test_a_client_that_pings_and_does_not_read_is_dropped() -> None:
    """Answers it does not take do not pile up either."""
    app = Recorder()
    async with serving(with_lifespan(app), tcp_user_timeout_s=0.3, send_buffer_bytes=16_384) as served:
        client = await served.open_websocket(receive_buffer_bytes=4096)
        pings = client_frame(PING, b"?" * 125) * 500
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            while True:
                await client.stream.send_all(pings)
        assert (await app.disconnect())["code"] == 1006


async def test_tasks_that_send_at_the_same_time_take_turns() -> None:
    """Frames of two senders do not mix, although each needs several writes."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        async def talk(letter: bytes) -> None:
            for _turn in range(5):
                await send({"type": "websocket.send", "bytes": letter * 60_000})

        await accept(receive, send)
        async with trio.open_nursery() as nursery:
            for letter in (b"a", b"b"):
                nursery.start_soon(talk, letter)

    async with serving(with_lifespan(app), send_buffer_bytes=16_384) as served:
        client = await served.open_websocket(receive_buffer_bytes=65_536)
        frames = []
        while (frame := await client.read_frame())[0] == BINARY:
            frames.append(frame[1])
    assert sorted(frames) == [b"a" * 60_000] * 5 + [b"b" * 60_000] * 5


MIXED: list[str | bytes] = ["one", b"two", "drei \u00e4", b"\0" * 70_000, ""]


async def test_messages_sent_together_arrive_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, as text or binary as they were; they are one write."""
    writes: list[bytes] = []

    def write(socket: trio.socket.SocketType, data: bytes) -> int:
        writes.append(data)
        return write_now(socket, data)

    monkeypatch.setattr("voice_fsm.web.websocket.write_now", write)

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        writes.clear()
        await Messages.of(websocket).send(MIXED)
        assert len(writes) == 1
        await websocket.receive()

    app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    async with (
        serving(app) as served,
        open_websocket_url(f"ws://127.0.0.1:{served.port}/ws") as client,
    ):
        with trio.fail_after(10):
            assert [await client.get_message() for _ in MIXED] == MIXED


async def test_messages_are_received_past_the_events_of_asgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text and binary as they were sent, and nothing more once the client has gone."""
    received: list[str | bytes | None] = []
    ended = trio.Event()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        monkeypatch.delattr(WebSocket, "receive")
        messages = Messages.of(websocket)
        received.extend([await messages.receive() for _ in range(len(MIXED) + 2)])
        ended.set()

    app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    async with serving(app) as served:
        async with open_websocket_url(f"ws://127.0.0.1:{served.port}/ws") as client:
            for message in MIXED:
                await client.send_message(message)
        with trio.fail_after(10):
            await ended.wait()
    assert received == [*MIXED, None, None]


async def test_on_another_server_messages_take_the_events_of_asgi() -> None:
    """The extension is our own server's."""
    sent: list[Message] = []

    events: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "drei"},
        {"type": "websocket.receive", "text": None, "bytes": b"vier"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        return events.pop(0)

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    websocket = WebSocket({"type": "websocket"}, receive, send)
    await websocket.accept()
    messages = Messages.of(websocket)
    await messages.send(["one", b"two"])
    assert sent[1:] == [
        {"type": "websocket.send", "text": "one"},
        {"type": "websocket.send", "bytes": b"two"},
    ]
    assert [await messages.receive() for _ in range(3)] == ["drei", b"vier", None]


async def test_nothing_is_sent_together_before_the_connection_or_after_it() -> None:
    """The one is the app's fault; the other is how it learns that its client has gone."""
    raised: list[type] = []
    ended = trio.Event()

    async def endpoint(websocket: WebSocket) -> None:
        with pytest.raises(RuntimeError) as early:
            await Messages.of(websocket).send(["too early"])
        await websocket.accept()
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        with pytest.raises(WebSocketDisconnect) as late:
            await Messages.of(websocket).send(["too late"])
        raised.extend([early.type, late.type])
        ended.set()

    app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    async with serving(app) as served:
        async with open_websocket_url(f"ws://127.0.0.1:{served.port}/ws"):
            pass
        with trio.fail_after(10):
            await ended.wait()
    assert raised == [RuntimeError, WebSocketDisconnect]


async def test_a_send_that_is_cancelled_leaves_frames_whole() -> None:
    """A frame not begun is not sent, one begun is finished: the client reads on as if nothing had been."""
    go_on = trio.Event()
    sent = 0
    cancelled = 0

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent, cancelled
        await accept(receive, send)
        while not (go_on.is_set() and cancelled):
            with trio.move_on_after(0.02) as scope:
                await send({"type": "websocket.send", "bytes": bytes(60_000)})
            sent += not scope.cancelled_caught
            cancelled += scope.cancelled_caught
        await send({"type": "websocket.send", "text": "the last"})

    async with serving(with_lifespan(app), send_buffer_bytes=16_384) as served:
        client = await served.open_websocket(receive_buffer_bytes=65_536)
        await trio.testing.wait_all_tasks_blocked(0.05)
        go_on.set()
        read = 0
        while (frame := await client.read_frame())[0] == BINARY:
            read += len(frame[1]) == 60_000
            await trio.testing.wait_all_tasks_blocked(0.03 if not cancelled else 0)
        assert frame == (TEXT, b"the last")
        assert read == sent


async def test_a_client_that_vanished_is_found_by_its_silence() -> None:
    """A live client answers pings; one that is still connected but answers nothing is given up."""
    app = Recorder()
    async with serving(with_lifespan(app), ws_ping_interval_s=0.1) as served:
        live = await served.open_websocket()
        for _ in range(4):
            assert await live.read_frame() == (PING, b"")
            await live.send(PONG, b"")
        began_s = trio.current_time()
        assert (await app.disconnect())["code"] == 1006
        assert 0.05 < trio.current_time() - began_s < 4


async def test_an_app_that_does_not_listen_does_not_lose_its_client() -> None:
    """Only a silence that was listened to counts."""
    tried = trio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await tried.wait()
        await receive()
        await send({"type": "websocket.send", "text": "welcome back"})

    async with serving(with_lifespan(app), ws_ping_interval_s=0.05) as served:
        client = await served.open_websocket()
        for _ in range(4):
            assert await client.read_frame() == (PING, b"")
        await client.send_text("hello")
        tried.set()
        while (frame := await client.read_frame())[0] == PING:
            pass
        assert frame == (TEXT, b"welcome back")


async def test_a_client_whose_socket_is_full_does_not_keep_others_from_their_pings() -> None:
    """It takes no ping, and nobody waits for it to take one; once it reads, it is pinged again."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            if (b"x-flood", b"1") in scope["headers"]:
                for _ in range(10):
                    await send({"type": "websocket.send", "bytes": bytes(60_000)})

    async with serving(with_lifespan(app), ws_ping_interval_s=0.05, send_buffer_bytes=16_384) as served:
        full = await served.open_websocket(headers="X-Flood: 1\r\n", receive_buffer_bytes=65_536)
        neighbour = await served.open_websocket()
        with trio.fail_after(10):
            for _ in range(4):
                assert await neighbour.read_frame() == (PING, b"")
                await neighbour.send(PONG, b"")
            binary, ping = (BINARY, bytes(60_000)), (PING, b"")
            received: list[tuple[int, bytes]] = []
            while received.count(binary) < 10 or ping not in received:
                received.append(await full.read_frame())
        assert set(received) == {binary, ping}
