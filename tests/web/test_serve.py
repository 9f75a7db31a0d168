"""The server's beginning and its end."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.asgi import RawWebSocket, Served, accept, echo, serving, upgrade_request, with_lifespan
from voice_fsm.web.serve import ServeConfig, serve, serve_until_signal
from voice_fsm.wire.frames import CLOSE

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def stop(served: Served) -> float:
    """Give the order, and wait for the end; tells how long it took, in seconds."""
    began_s = trio.current_time()
    served.stop.set()
    with trio.fail_after(20):
        await served.ended.wait()
    return trio.current_time() - began_s


# --- the app's lifespan -----------------------------------------------------------------------------


async def test_the_lifespan_of_an_app_encloses_its_clients() -> None:
    """It starts before the URL is told, gives its state to the requests, and ends after the last of them."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
        events.append("started")
        yield {"shared": "by all"}
        events.append("ended")

    async def endpoint(request: Request) -> PlainTextResponse:
        events.append(request.state.shared)
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    async with serving(app) as served:
        assert events == ["started"]
        stream = await served.connect()
        await stream.send_all(GET)
        await RawWebSocket(stream).read_head()
        await stop(served)
    assert events == ["started", "by all", "ended"]


async def test_an_app_that_does_not_start_is_not_served() -> None:
    """Its failure is the server's, before any client could connect."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no speech model")
        yield

    with pytest.raises(ExceptionGroup) as caught:
        await serve(Starlette(lifespan=lifespan), ServeConfig(port=0))
    assert "no speech model" in repr(caught.value.exceptions)


async def test_a_port_that_is_taken_is_told_before_the_app_starts() -> None:
    """As an OSError of its own, not in a group."""
    async with serving(with_lifespan()) as served:
        with pytest.raises(OSError, match="in use"):
            await serve(with_lifespan(), ServeConfig(port=served.port))


@pytest.mark.parametrize(
    "setting",
    [
        {"port": -1},
        {"port": 65_536},
        {"workers": 0},
        {"tcp_user_timeout_s": 0},
        {"ws_max_message_bytes": 0},
        {"drain_s": -1},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, int]) -> None:
    """When the config is made, naming the setting."""
    with pytest.raises(ValueError, match=next(iter(setting))):
        ServeConfig(**setting)  # type: ignore[arg-type]  # wrong values are the point


# --- stopping ---------------------------------------------------------------------------------------


async def test_an_idle_server_stops_at_once() -> None:
    """Connections between two requests, or before the first, are not waited for."""
    async with serving(with_lifespan(echo), keep_alive_s=60) as served:
        fresh, used = await served.connect(), await served.connect()
        await used.send_all(GET)
        client = RawWebSocket(used)
        await client.read_head()
        await client.read_exactly(2)
        assert await stop(served) < 10
        assert await client.read_to_end() == b""
        assert await fresh.receive_some() == b""


async def test_an_order_that_came_first_is_obeyed() -> None:
    """A server told to stop before it began starts its app and ends it."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        events.append("started")
        yield
        events.append("ended")

    with trio.fail_after(10):
        stop_now = trio.lowlevel.checkpoint
        await serve(Starlette(lifespan=lifespan), ServeConfig(port=0), shutdown_trigger=stop_now)
    assert events == ["started", "ended"]


async def test_no_client_gets_in_while_the_server_drains() -> None:
    """The port is closed as soon as the sessions are told."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await trio.sleep_forever()

    async with serving(with_lifespan(app), drain_s=0.3) as served:
        await served.open_websocket()
        served.stop.set()
        await served.draining.wait()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="refused"):
            await served.connect()


async def test_sessions_are_told_and_awaited() -> None:
    """A session that says goodbye when the server drains ends the server well before its deadline."""
    draining: trio.Event

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await draining.wait()
        await trio.sleep(0.05)
        await send({"type": "websocket.close", "code": 1012, "reason": "draining"})

    async with serving(with_lifespan(app), drain_s=60) as served:
        draining = served.draining
        client = await served.open_websocket()
        served.stop.set()
        assert await client.read_frame() == (CLOSE, (1012).to_bytes(2, "big") + b"draining")
        await client.stream.aclose()
        assert await stop(served) < 10


async def test_a_request_under_way_is_answered() -> None:
    """And its connection closes afterwards, although the client would keep it."""
    began = trio.Event()
    draining: trio.Event

    async def http(_: Scope, _receive: Receive, send: Send) -> None:
        began.set()
        await draining.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in time"})

    async with serving(with_lifespan(http=http)) as served:
        draining = served.draining
        stream = await served.connect()
        await stream.send_all(GET)
        await began.wait()
        served.stop.set()
        assert b"in time" in await RawWebSocket(stream).read_to_end()
        await stream.aclose()
        assert await stop(served) < 10


async def test_what_does_not_end_is_cut_off_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a conversation that goes on nor clients that read nothing, of both kinds, hold the stop."""

    async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/talk":
            await echo(scope, receive, send)
            return
        await accept(receive, send)
        while True:
            await send({"type": "websocket.send", "bytes": bytes(65_536)})

    async def http(_: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})

    async with serving(with_lifespan(websocket, http), drain_s=0.3, tcp_user_timeout_s=60) as served:
        talker = RawWebSocket(await served.connect())
        await talker.stream.send_all(upgrade_request(path="/talk"))
        await talker.read_head()
        await served.open_websocket(receive_buffer_bytes=4096)
        download = await served.connect(receive_buffer_bytes=4096)
        await download.send_all(GET)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert 0.25 < await stop(served) < 10
    assert "3 connections did not end in time" in caplog.text


async def test_a_server_that_is_cancelled_ends_at_once() -> None:
    """Whatever the deadlines, with a client that reads nothing."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while True:
            await send({"type": "websocket.send", "bytes": bytes(65_536)})

    async with serving(with_lifespan(app), drain_s=60, tcp_user_timeout_s=60) as served:
        await served.open_websocket(receive_buffer_bytes=4096)
        await trio.testing.wait_all_tasks_blocked(0.05)
        began_s = trio.current_time()
    assert trio.current_time() - began_s < 10


# --- signals ----------------------------------------------------------------------------------------


async def test_a_signal_drains_and_a_second_one_ends_at_once() -> None:
    """The first tells the sessions; the second waits for nobody, not even a client that reads nothing."""
    told = trio.Event()

    def create_app(draining: trio.Event) -> ASGIApp:
        async def websocket(_: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pour, send)
                await draining.wait()
                told.set()

        return with_lifespan(websocket)

    async def pour(send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(65_536)})

    config = ServeConfig(port=0, drain_s=60, tcp_user_timeout_s=60, shutdown_s=60)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            urls: list[str] = await nursery.start(serve_until_signal, create_app, config)
            async with await trio.open_tcp_stream("127.0.0.1", int(urls[0].rpartition(":")[2])) as stream:
                await stream.send_all(upgrade_request())
                await trio.testing.wait_all_tasks_blocked(0.05)
                os.kill(os.getpid(), signal.SIGTERM)
                await told.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert nursery.child_tasks, "the first signal ended it"
                os.kill(os.getpid(), signal.SIGINT)
                while nursery.child_tasks:
                    await trio.sleep(0.01)


async def test_one_signal_is_enough_for_an_idle_server() -> None:
    """It ends by itself once the last connection has gone."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_until_signal, lambda _: with_lifespan(), ServeConfig(port=0))
            os.kill(os.getpid(), signal.SIGTERM)
