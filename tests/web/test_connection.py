"""Connections: HTTP on them, and what none of them may do to the server."""

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h11
import pytest
import trio
import trio.testing
from hypercorn.protocol.h11 import H11Protocol
from starlette.types import Receive, Scope, Send

from tests.fakes.asgi import (
    RawWebSocket,
    Served,
    client_frame,
    echo,
    respond,
    serving,
    upgrade_request,
    with_lifespan,
)
from voice_fsm.wire.frames import TEXT

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answer(served: Served, request: bytes) -> bytes:
    """Send bytes on a connection of their own and read to its end."""
    stream = await served.connect()
    await stream.send_all(request)
    return await RawWebSocket(stream).read_to_end()


async def eventually(true: Callable[[], bool]) -> None:
    """Wait until the server has noticed."""
    with trio.fail_after(20):
        while not true():  # the kernel and the server's tasks set no event for us
            await trio.sleep(0.01)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_http_is_served_on_a_connection_that_is_kept() -> None:
    """Two requests, then an upgrade, on one connection."""
    async with serving(with_lifespan(echo)) as served, await served.connect() as stream:
        client = RawWebSocket(stream)
        for _ in range(2):
            await stream.send_all(GET)
            assert (await client.read_head()).startswith(b"HTTP/1.1 200 ")
            assert await client.read_exactly(2) == b"ok"
        await stream.send_all(upgrade_request() + client_frame(TEXT, b"and now"))
        assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
        assert await client.read_text() == "and now"


async def test_a_websocket_keeps_nothing_of_http() -> None:
    """What read its request is let go of once that is answered: a WebSocket stays for long."""

    def parsers() -> list[object]:
        gc.collect()
        return [each for each in gc.get_objects() if isinstance(each, H11Protocol | h11.Connection)]

    others = parsers()
    async with serving(with_lifespan(echo)) as served:
        client = await served.open_websocket()
        await client.send_text("open")
        assert await client.read_text() == "open"
        assert all(any(each is other for other in others) for each in parsers())


async def test_http_2_is_not_offered() -> None:
    """An upgrade to h2c is answered in HTTP/1.1 as if it had not been asked for."""
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    async with serving(with_lifespan()) as served:
        assert (await answer(served, request)).startswith(b"HTTP/1.1 200 ")
        response = await answer(served, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 ")


async def test_the_server_does_not_say_what_it_is_made_of() -> None:
    """No Server header."""
    async with serving(with_lifespan()) as served:
        response = await answer(served, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"server:" not in response.lower()


async def test_a_crash_in_one_connection_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A header that makes Hypercorn's parser raise ends that connection; the log quotes nothing of it."""
    async with serving(with_lifespan(echo)) as served:
        neighbour = await served.open_websocket()
        assert await answer(served, upgrade_request("Sec-WebSocket-Protocol: s\xe9cret\r\n")) == b""
        await neighbour.send_text("still here?")
        assert await neighbour.read_text() == "still here?"
        assert (await answer(served, GET.replace(b"Host", b"Connection: close\r\nHost"))).endswith(b"ok")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.exc_info) == ("hypercorn.error", "WARNING", None)
    assert "UnicodeDecodeError" in record.getMessage()
    assert "cret" not in record.getMessage()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400", id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, b"431", id="200 kB header"),
        pytest.param(upgrade_request("X: " + "a" * 200_000 + "\r\n"), b"431", id="200 kB handshake"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"400", id="no host"),
    ],
)
async def test_what_is_no_request_is_refused(request_: bytes, status: bytes) -> None:
    """With a status, and the end of the connection."""
    async with serving(with_lifespan(echo)) as served:
        assert (await answer(served, request_)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost"])
async def test_a_connection_that_sends_no_whole_request_is_closed(sent: bytes) -> None:
    """Nothing at all, or a header that does not go on: the keep-alive time is all it gets."""
    async with serving(with_lifespan(), keep_alive_s=0.1) as served:
        began_s = trio.current_time()
        assert await answer(served, sent) == b""
        assert 0.05 < trio.current_time() - began_s < 4


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """A client that falls silent within its request is told so by `http.disconnect`."""
    ended = trio.Event()

    async def app(_: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this"
    async with serving(with_lifespan(http=app), read_timeout_s=0.1) as served:
        await answer(served, request)
        with trio.fail_after(10):
            await ended.wait()


async def test_an_app_may_leave_a_body_unread() -> None:
    """It answers while the body still comes in; nothing of the connection is left behind."""

    async def app(_: Scope, _receive: Receive, send: Send) -> None:
        await trio.testing.wait_all_tasks_blocked(0.01)
        await respond(send, b"enough")

    async with serving(with_lifespan(http=app)) as served:
        await trio.testing.wait_all_tasks_blocked()
        files, tasks = open_files(), living_tasks()
        stream = await served.connect()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"

        with trio.fail_after(20), suppress(trio.BrokenResourceError):  # it closes on the rest
            await stream.send_all(head + bytes(10_000_000))
        await stream.aclose()
        await eventually(lambda: open_files() <= files and living_tasks() <= tasks)


async def test_an_answer_before_the_end_of_a_body_is_nothing_to_complain_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The rest may be read by the task that answered, and then by no other."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await trio.testing.wait_all_tasks_blocked(0.01)  # the queue of the body is full
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, send, b"enough")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await receive()

    async with serving(with_lifespan(http=app)) as served:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream = await served.connect()
        await stream.send_all(head + b"1\r\na\r\n" * 11)
        assert (await RawWebSocket(stream).read_to_end()).endswith(b"enough")
        await stream.aclose()
    assert caplog.records == []


async def test_two_hundred_clients_that_drop_leave_nothing_behind() -> None:
    """Whenever they drop: before a word, in the header, after it, in a frame, with a reset."""
    async with serving(with_lifespan(echo), close_timeout_s=0.1, keep_alive_s=60) as served:
        await trio.testing.wait_all_tasks_blocked()
        files, tasks = open_files(), living_tasks()
        frame = client_frame(TEXT, b"hello")
        beginnings = [b"", b"GET / HT", upgrade_request(), upgrade_request() + frame[:3], GET, b"\0"]
        for number in range(200):
            client = RawWebSocket(await served.connect())
            await client.stream.send_all(beginnings[number % len(beginnings)])
            if number % 3:
                await client.stream.aclose()
            else:
                client.reset()
        await eventually(lambda: open_files() <= files and living_tasks() <= tasks)
        last = await served.open_websocket()
        await last.send_text("all is well")
        assert await last.read_text() == "all is well"
