import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock

from tests.fakes.http_server import (
    LAST_CHUNK,
    Fault,
    HttpServer,
    Step,
    chunk,
    chunked_head,
    response,
    serve_http,
)
from voice_fsm.upstream.http_pool import BODY, HttpPool

OK = response(200, b"hello")
MUCH = 4 * 1024 * 1024
TLS_RECORD_BYTES = 16 * 1024

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def pooled(
    *, max_connections: int = 10, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, HttpPool]]:
    """A client on a pool of its own."""
    pool = HttpPool(tls or ssl.create_default_context(), max_connections=max_connections)
    async with httpx.AsyncClient(transport=pool, timeout=httpx.Timeout(None)) as client:
        yield client, pool
    assert not pool.busy


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Serve raw connections; gives the address without its scheme."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def always(*steps: Step) -> Callable[[object], tuple[Step, ...]]:
    return lambda _request: steps


async def gone(server: HttpServer) -> None:
    await server.wait_until(lambda server: server.live_connections == 0)


# --- Connections kept, and not kept -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", OK),
        ("GET", chunked_head() + chunk(b"one") + LAST_CHUNK),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\n\r\n"),
    ],
)
async def test_a_connection_outlives_its_answer(method: str, answer: bytes) -> None:
    """One connection serves all, whether a body was read, or there was none to read."""
    async with serve_http(always(answer)) as server, pooled() as (client, _):
        for _ in range(3):
            async with client.stream(method, server.url):
                pass
        assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ([response(200, b"hello", Connection="close")], b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello", Fault.CLOSE], b"hello"),
        ([OK + b"HTTP/1.1 200 OK\r\n\r\nnobody asked"], b"hello"),
    ],
)
async def test_a_connection_that_cannot_be_trusted_to_go_on_is_closed(
    answer: list[Step], body: bytes
) -> None:
    """The upstream said that it ends, or said more than it was asked."""
    async with serve_http(always(*answer)) as server, pooled() as (client, _):
        for _ in range(2):
            assert (await client.get(server.url)).content == body
        assert server.connections == 2
        await gone(server)


async def test_a_connection_that_the_upstream_has_closed_is_not_used_again() -> None:
    """What ended while nobody looked is noticed before the next request, which loses nothing."""
    async with serve_http(always(OK, Fault.CLOSE)) as server, pooled() as (client, _):
        for _ in range(3):
            assert (await client.get(server.url)).content == b"hello"
            await gone(server)
        assert server.connections == 3


async def test_a_connection_is_not_kept_for_long(autojump_clock: MockClock) -> None:
    """After half a minute without requests a new one is opened, and the old one closed."""
    async with serve_http(always(OK)) as server, pooled() as (client, _):
        await client.get(server.url)
        await trio.sleep(29)
        await client.get(server.url)
        assert server.connections == 1
        await trio.sleep(31)
        await client.get(server.url)
        assert server.connections == 2
        await server.wait_until(lambda server: server.live_connections == 1)


async def test_the_connection_used_last_is_used_first(autojump_clock: MockClock) -> None:
    """So that those which are not needed grow old."""
    async with serve_http(always(OK)) as server, pooled() as (client, _):
        async with client.stream("GET", server.url), client.stream("GET", server.url):
            pass
        for _ in range(2):
            await trio.sleep(20)
            await client.get(server.url)
            await client.get(server.url)
        await server.wait_until(lambda server: server.live_connections == 1)
        assert server.connections == 2


async def test_a_closed_answer_does_not_read_the_next_ones_body() -> None:
    """Whose connection may be the same."""
    steps = (chunked_head(), chunk(b"one"), chunk(b"two"), LAST_CHUNK)
    async with serve_http(always(*steps)) as server, pooled() as (client, _):
        async with client.stream("GET", server.url) as first:
            await first.aread()
        async with client.stream("GET", server.url) as second:
            assert await anext(first.extensions[BODY], None) is None
            assert await second.aread() == b"onetwo"
        assert server.connections == 1


# --- No more than so many ---------------------------------------------------------------------------


async def test_requests_wait_for_their_place() -> None:
    """With two places, two of many are under way at any time, and all get their answers."""
    async with serve_http(always(OK)) as server, pooled(max_connections=2) as (client, pool):
        most = 0

        async def get() -> None:
            nonlocal most
            async with client.stream("GET", server.url) as answer:
                most = max(most, len(pool.busy))
                assert await answer.aread() == b"hello"

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(get)
        assert (most, server.connections, len(server.requests)) == (2, 2, 20)


async def test_one_who_no_longer_waits_takes_no_place() -> None:
    """Cancelled waiting, or a connection that failed, leaves the place to the next."""
    async with serve_http(always(OK)) as server, pooled(max_connections=1) as (client, _):
        async with client.stream("GET", server.url):
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url, timeout=0.01)
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/")
        assert (await client.get(server.url)).content == b"hello"


async def test_an_idle_connection_makes_room() -> None:
    """A full pool closes what it only keeps, for another origin that is asked now."""
    async with (
        serve_http(always(OK)) as one,
        serve_http(always(OK)) as other,
        pooled(max_connections=1) as (client, _),
    ):
        await client.get(one.url)
        assert one.live_connections == 1
        await client.get(other.url)
        await gone(one)


async def test_no_more_than_a_hundred_are_kept() -> None:
    """A rush leaves no more than that behind."""
    async with serve_http(always(OK)) as server, pooled(max_connections=200) as (client, _):
        async with trio.open_nursery() as nursery:
            for _ in range(110):
                nursery.start_soon(client.get, server.url)
        await server.wait_until(lambda server: server.live_connections == 100)


async def test_closing_the_client_ends_what_is_under_way() -> None:
    """Nothing outlives the pool."""
    async with serve_http(always(chunked_head(), chunk(b"one"), Fault.HANG)) as server:
        pool = HttpPool(ssl.create_default_context(), max_connections=5)
        client = httpx.AsyncClient(transport=pool)

        async def read() -> None:
            with pytest.raises(httpx.ReadError):
                await client.get(server.url)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await server.wait_until(lambda server: bool(server.requests))
            await client.aclose()
        await gone(server)


# --- What goes over the wire ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000, MUCH])
async def test_a_body_arrives_whole(size: int) -> None:
    """Small ones in one piece with their head, large ones behind it."""
    body = bytes(range(250)) * (size // 250)
    async with serve_http(always(OK)) as server, pooled() as (client, _):
        await client.post(server.url, content=body)
        assert server.requests[0].body == body


async def test_a_body_may_come_in_pieces() -> None:
    """What httpx cannot tell the length of is sent as chunks."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    received = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        while not received.endswith(LAST_CHUNK):
            received.extend(await stream.receive_some())
        await stream.send_all(OK)

    async with listening(serve) as address, pooled() as (client, _):
        assert (await client.post(f"http://{address}", content=pieces())).content == b"hello"
    assert received.endswith(b"\r\n\r\n" + chunk(b"onetwo") + LAST_CHUNK)


async def test_an_answer_before_the_end_of_the_request_is_heard() -> None:
    """An upstream that refuses a large body need not take it first."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(response(413, b"too large"))
        await trio.aclose_forcefully(stream)

    async with listening(serve) as address, pooled() as (client, _):
        answer = await client.post(f"http://{address}", content=bytes(MUCH))
        assert (answer.status_code, answer.content) == (413, b"too large")


async def test_a_request_that_is_no_http_is_not_sent() -> None:
    """A header that would break the line is found, and the connection is not used on."""
    async with serve_http(always(OK)) as server, pooled() as (client, _):
        with pytest.raises(httpx.LocalProtocolError):
            await client.get(server.url, headers={"X": "one\r\nY: two"})
        assert (await client.get(server.url)).content == b"hello"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", httpx.ReadTimeout), (bytes(8 * MUCH), httpx.WriteTimeout)]
)
async def test_the_timeouts_of_httpx_hold(content: bytes, kind: type[Exception]) -> None:
    """For those who use the client without deadlines of their own."""

    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(serve) as address, pooled() as (client, _):
        with pytest.raises(kind):
            await client.post(f"http://{address}", content=content, timeout=0.05)


# --- TLS --------------------------------------------------------------------------------------------


@asynccontextmanager
async def secured(
    *steps: bytes, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[str, ssl.SSLContext, list[str]]]:
    """Serve over TLS, one step a request; gives the address, what trusts it, and whom it was asked for."""
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(host).configure_cert(theirs)
    authority.configure_trust(ours)
    asked: list[str] = []
    theirs.sni_callback = lambda _object, name, _context: asked.append(name)

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, theirs, server_side=True, https_compatible=True)
        try:
            for step in steps:
                if not await stream.receive_some():
                    return
                await stream.send_all(step)
            await stream.aclose()
        except trio.BrokenResourceError:
            pass

    async with listening(serve) as address:
        yield f"https://{address}", ours, asked


async def test_requests_go_over_tls() -> None:
    """Two on one connection, to a server that is trusted."""
    async with secured(OK, OK) as (url, tls, asked), pooled(tls=tls) as (client, _):
        for _ in range(2):
            assert (await client.get(url)).content == b"hello"
        assert len(asked) == 1


async def test_a_name_is_asked_for_by_its_name() -> None:
    """One address may serve many names."""
    async with secured(OK, host="localhost") as (url, tls, asked), pooled(tls=tls) as (client, _):
        assert (await client.get(url.replace("127.0.0.1", "localhost"))).content == b"hello"
        assert asked == ["localhost"]


async def test_more_than_was_asked_for_within_tls_is_nobodys_answer() -> None:
    """Two answers come in one write, and each fills a record of TLS, of which one is read."""
    around = len(response(200, b"x" * 10_000)) - 10_000
    first = response(200, b"x" * (TLS_RECORD_BYTES - around))
    async with secured(first + OK) as (url, tls, asked), pooled(tls=tls) as (client, _):
        for _ in range(2):
            assert (await client.get(url)).content.startswith(b"x")
        assert len(asked) == 2


async def test_an_answer_cut_off_within_tls_is_broken() -> None:
    """The end of the connection is not the end of the answer."""
    async with secured(OK[:-1]) as (url, tls, _), pooled(tls=tls) as (client, _):
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
            await client.get(url)


async def test_a_connection_that_ended_within_tls_is_not_used_again() -> None:
    """Each answer is the last on its connection."""
    async with secured(OK) as (url, tls, asked), pooled(tls=tls) as (client, _):
        for _ in range(2):
            assert (await client.get(url)).content == b"hello"
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(asked) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "other.example.com"])
async def test_nobody_else_is_spoken_to(host: str) -> None:
    """An unknown authority, or a certificate of another name, is no connection."""
    async with secured(OK, host=host) as (url, tls, _):
        trusting = tls if host != "127.0.0.1" else ssl.create_default_context()
        async with pooled(tls=trusting) as (client, _):
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
