import gc
import gzip
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.fakes.http_server import (
    LAST_CHUNK,
    Fault,
    HttpServer,
    Pause,
    Request,
    Step,
    chunk,
    chunked_head,
    fail_name_lookups,
    failing_tls_port,
    json_response,
    refusing_port,
    response,
    serve_http,
    streamed,
)
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.http import MAX_ERROR_BODY_BYTES, Answer, Deadlines, ask, json_request, open_client

DEADLINES = Deadlines(connect_s=2.0, first_byte_s=5.0, stall_s=3.0, total_s=20.0)


@pytest.fixture
def clock() -> MockClock:
    """Time that jumps, but only when the sockets too have been quiet for a moment."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(trust_env=False) as client:
        yield client


@asynccontextmanager
async def call(
    client: httpx.AsyncClient, url: str, deadlines: Deadlines = DEADLINES
) -> AsyncIterator[Answer]:
    request = client.build_request("POST", url, json={"q": 1})
    async with ask(client, request, upstream=Upstream.CHAT, deadlines=deadlines) as answer:
        yield answer


async def consume(client: httpx.AsyncClient, url: str) -> None:
    async with call(client, url) as answer:
        async for _ in answer:
            pass


def playing(*steps: Step) -> "Player":
    return Player(steps)


@attrs.frozen
class Player:
    """A handler that plays the same steps to every request."""

    steps: Iterable[Step]

    def __call__(self, request: Request) -> Iterable[Step]:
        return self.steps


async def test_an_answer_comes_chunk_by_chunk(client: httpx.AsyncClient) -> None:
    """Status, headers and body are there, and the chunks are the upstream's own."""
    steps = streamed(b"one", b"two", content_type="Text/Plain; charset=utf-8", X_Request_Id="r1")
    async with serve_http(playing(*steps)) as server, call(client, server.url) as answer:
        body = b"".join([piece async for piece in answer])
    assert (answer.status, answer.content_type, answer.request_id) == (200, "text/plain", "r1")
    assert body == b"onetwo"
    assert server.requests[0].json() == {"q": 1}


async def test_requests_are_plain(client: httpx.AsyncClient) -> None:
    """We name ourselves, and ask for answers that need no unpacking."""
    async with serve_http(playing(response())) as server, call(client, server.url):
        pass
    headers = server.requests[0].headers
    assert headers["user-agent"].startswith("voice-fsm/")
    assert headers["accept-encoding"] == "identity"


async def test_any_text_can_be_sent_as_json(client: httpx.AsyncClient) -> None:
    """Half a character, which UTF-8 cannot hold, goes out escaped."""
    body = {"text": "\u00e9\ud83d"}
    async with serve_http(playing(response())) as server:
        request = json_request(client, server.url, body, {"X-Key": "k"})
        async with ask(client, request, upstream=Upstream.CHAT, deadlines=DEADLINES):
            pass
    (sent,) = server.requests
    assert (sent.method, sent.json()) == ("POST", body)
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-key"] == "k"


async def test_a_compressed_answer_is_refused(client: httpx.AsyncClient) -> None:
    """An answer that was packed all the same is not taken for text."""
    packed = response(200, gzip.compress(b"hello"), Content_Encoding="gzip")
    async with serve_http(playing(packed)) as server:
        with pytest.raises(ProviderError) as caught:
            async with call(client, server.url):
                pass
    assert caught.value.fault is ProviderFault.BAD_RESPONSE


async def test_cookies_are_not_kept(client: httpx.AsyncClient) -> None:
    """What one session's call is given as a cookie is not sent with another session's."""
    async with serve_http(playing(response(Set_Cookie="session=alice; Path=/"))) as server:
        for _ in range(2):
            async with call(client, server.url) as answer:
                await answer.read(10)
    assert "cookie" not in server.requests[1].headers


async def test_redirects_are_not_followed(client: httpx.AsyncClient) -> None:
    """A redirect could lead to an address that nobody allowed: it is an error."""
    async with serve_http(playing(response())) as elsewhere:
        moved = response(307, Location=elsewhere.url)
        async with serve_http(playing(moved)) as server:
            with pytest.raises(RefusedError) as caught:
                async with call(client, server.url):
                    pass
    assert (caught.value.fault, caught.value.status) == (ProviderFault.REJECTED, 307)
    assert elsewhere.requests == []


async def test_a_connection_is_used_again(client: httpx.AsyncClient) -> None:
    """An answer read to its end leaves its connection to the next call."""
    async with serve_http(playing(*streamed(b"one"))) as server:
        for _ in range(3):
            async with call(client, server.url) as answer:
                assert [piece async for piece in answer] == [b"one"]
        assert server.connections == 1


async def test_draining_saves_the_connection(client: httpx.AsyncClient) -> None:
    """A caller that knows it has all can still have the connection used again."""
    async with serve_http(playing(*streamed(b"one", b"[DONE]"))) as server:
        for _ in range(2):
            async with call(client, server.url) as answer:
                await anext(answer)
                await answer.drain()
        assert server.connections == 1


async def test_draining_does_not_wait_for_long(client: httpx.AsyncClient, clock: MockClock) -> None:
    """An upstream that keeps the body open costs a tenth of a second and its connection."""
    steps: list[Step] = [chunked_head(), chunk(b"one"), Fault.HANG]
    async with serve_http(playing(*steps)) as server:
        async with call(client, server.url) as answer:
            await anext(answer)
            await answer.drain()
        assert trio.current_time() == pytest.approx(0.1)
        await server.wait_until(lambda server: server.live_connections == 0)


async def test_reading_is_bounded(client: httpx.AsyncClient) -> None:
    """A body longer than expected is an error, not memory."""
    endless: list[Step] = [chunked_head(), *[chunk(b"x" * 1000)] * 50, Fault.HANG]
    async with serve_http(playing(*endless)) as server, call(client, server.url) as answer:
        with pytest.raises(ProviderError) as caught:
            await answer.read(20_000)
    assert caught.value.fault is ProviderFault.BAD_RESPONSE


async def test_json_is_read(client: httpx.AsyncClient) -> None:
    """A JSON body becomes its value."""
    async with serve_http(playing(json_response({"a": [1]}))) as server, call(client, server.url) as answer:
        assert await answer.read_json(100) == {"a": [1]}


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 90_000])
async def test_bad_json_is_an_error(client: httpx.AsyncClient, body: bytes) -> None:
    """A body that is not JSON is BAD_RESPONSE, with the facts of the call."""
    steps = response(200, body, X_Request_Id="r1")
    async with serve_http(playing(steps)) as server, call(client, server.url) as answer:
        with pytest.raises(ProviderError) as caught:
            await answer.read_json(100_000)
    error = caught.value
    assert (error.fault, error.status, error.request_id) == (ProviderFault.BAD_RESPONSE, 200, "r1")


HEAD = chunked_head()
PIECE = chunk(b"piece")


@pytest.mark.parametrize(
    ("steps", "fault", "after_s"),
    [
        pytest.param([Fault.HANG], ProviderFault.TIMEOUT, 5, id="hang before the head"),
        pytest.param([HEAD, Fault.HANG], ProviderFault.TIMEOUT, 5, id="hang after the head"),
        pytest.param([Pause(3), HEAD, Pause(3), PIECE], ProviderFault.TIMEOUT, 5, id="one wait, two pauses"),
        pytest.param([HEAD, PIECE, Fault.HANG], ProviderFault.STALLED, 3, id="hang midway"),
        pytest.param([HEAD, *[PIECE, Pause(2)] * 99], ProviderFault.TIMEOUT, 20, id="slow drip"),
        pytest.param([b"HTTP/1.1 200 ", *[Pause(1), b"O"] * 9], ProviderFault.TIMEOUT, 5, id="head in drips"),
        pytest.param([Fault.CLOSE], ProviderFault.TRUNCATED, 0, id="close before the head"),
        pytest.param([Fault.RESET], ProviderFault.TRUNCATED, 0, id="reset before the head"),
        pytest.param([HEAD, PIECE, Fault.RESET], ProviderFault.TRUNCATED, 0, id="reset midway"),
        pytest.param([HEAD, PIECE, Fault.CLOSE], ProviderFault.TRUNCATED, 0, id="close between chunks"),
        pytest.param([HEAD, b"9\r\npie", Fault.CLOSE], ProviderFault.TRUNCATED, 0, id="close in a chunk"),
        pytest.param([response(body=b"12")[:-1], Fault.CLOSE], ProviderFault.TRUNCATED, 0, id="short body"),
        pytest.param([b"\x16\x03garbage\r\n\r\n"], ProviderFault.BAD_RESPONSE, 0, id="garbage for a head"),
        pytest.param([HEAD, PIECE, b"zz\r\n"], ProviderFault.BAD_RESPONSE, 0, id="garbage for a chunk"),
        pytest.param([HEAD[:-2] + b"X: " + b"x" * 200_000], ProviderFault.BAD_RESPONSE, 0, id="huge head"),
    ],
)  # fmt: skip
async def test_each_way_to_fail_has_its_fault_and_time(
    client: httpx.AsyncClient, clock: MockClock, steps: list[Step], fault: ProviderFault, after_s: float
) -> None:
    """Whatever an upstream does, the call ends by its deadlines, says how, and leaves no connection."""
    async with serve_http(playing(*steps)) as server:
        with pytest.raises(ProviderError) as caught:
            await consume(client, server.url)
        assert caught.value.fault is fault
        assert trio.current_time() == pytest.approx(after_s, abs=0.5)
        await server.wait_until(lambda server: server.live_connections == 0)
    assert_pool_is_clean(client)


async def test_a_refused_connection_is_unreachable(client: httpx.AsyncClient) -> None:
    """Nobody listens."""
    async with refusing_port() as port:
        with pytest.raises(ProviderError) as caught:
            async with call(client, f"http://127.0.0.1:{port}"):
                pass
    assert caught.value.fault is ProviderFault.UNREACHABLE


async def test_an_unknown_name_is_unreachable(client: httpx.AsyncClient) -> None:
    """The name is in no directory."""
    fail_name_lookups()
    with pytest.raises(ProviderError) as caught:
        async with call(client, "http://backend.invalid"):
            pass
    assert caught.value.fault is ProviderFault.UNREACHABLE


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
async def test_a_name_that_no_host_can_have_is_unreachable(client: httpx.AsyncClient, host: str) -> None:
    """It has an empty label, or one too long: nobody can be asked about it."""
    with pytest.raises(ProviderError) as caught:
        async with call(client, f"http://{host}.invalid"):
            pass
    assert caught.value.fault is ProviderFault.UNREACHABLE


async def test_a_failed_tls_handshake_is_unreachable(client: httpx.AsyncClient) -> None:
    """There is no common ground for TLS."""
    async with failing_tls_port() as port:
        with pytest.raises(ProviderError) as caught:
            async with call(client, f"https://127.0.0.1:{port}"):
                pass
    assert caught.value.fault is ProviderFault.UNREACHABLE


async def test_a_tls_handshake_that_hangs_ends_with_connect_s(
    client: httpx.AsyncClient, clock: MockClock
) -> None:
    """TLS belongs to connecting, and has its deadline."""
    async with serve_http(playing(Fault.HANG)) as server:
        with pytest.raises(ProviderError) as caught:
            async with call(client, server.url.replace("http:", "https:")):
                pass
    assert caught.value.fault is ProviderFault.UNREACHABLE
    assert trio.current_time() == pytest.approx(2.0)


async def test_a_full_pool_is_waited_for_only_so_long(clock: MockClock) -> None:
    """When all connections are busy, a call gives up after the time it has for connecting."""
    async with (
        open_client(max_connections=1, trust_env=False) as client,
        serve_http(playing(HEAD, Fault.HANG)) as server,
        call(client, server.url),
    ):
        with pytest.raises(ProviderError) as caught:
            async with call(client, server.url):
                pass
    assert caught.value.fault is ProviderFault.TIMEOUT
    assert trio.current_time() == pytest.approx(2.0)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1/x"])
async def test_an_address_that_is_not_http_is_unavailable(client: httpx.AsyncClient, url: str) -> None:
    """A wrong setting is told as such."""
    with pytest.raises(ProviderError) as caught:
        async with call(client, url):
            pass
    assert caught.value.fault is ProviderFault.UNAVAILABLE


async def test_the_callers_own_time_does_not_count(client: httpx.AsyncClient, clock: MockClock) -> None:
    """A caller that takes its time between chunks, as speech does, meets no deadline."""
    async with (
        serve_http(playing(*streamed(*[b"x"] * 10))) as server,
        call(client, server.url) as answer,
    ):
        pieces = []
        async for piece in answer:
            pieces.append(piece)
            await trio.sleep(30)
    assert b"".join(pieces) == b"x" * 10


async def test_a_refusal_is_told_with_its_facts(client: httpx.AsyncClient) -> None:
    """A status that is no success is raised on entering, with what the body's codes say."""
    refusal = json_response({"error": {"code": "slow_down"}}, 503, X_Request_Id="r1", Retry_After="4")
    async with serve_http(playing(refusal)) as server:
        with pytest.raises(RefusedError) as caught:
            async with call(client, server.url):
                pass
    error = caught.value
    assert (error.fault, error.status) == (ProviderFault.OVERLOADED, 503)
    assert (error.request_id, error.retry_after_s) == ("r1", 4.0)
    assert error.codes == {"slow_down"}


REFUSAL_HEAD = b"HTTP/1.1 500 Whatever\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("steps", "after_s"),
    [
        pytest.param([REFUSAL_HEAD, Fault.HANG], 2, id="hang"),
        pytest.param([REFUSAL_HEAD, *[chunk(b"x"), Pause(0.5)] * 99], 2, id="slow drip"),
        pytest.param([REFUSAL_HEAD, *[chunk(b"x" * 8192)] * 99, Fault.HANG], 0, id="endless"),
        pytest.param([REFUSAL_HEAD, b"5\r\nx", Fault.RESET], 0, id="reset"),
    ],
)
async def test_the_body_of_a_refusal_is_bounded(
    client: httpx.AsyncClient, clock: MockClock, steps: list[Step], after_s: float
) -> None:
    """However long or slow or broken the body of an error is, its status is told soon."""
    async with serve_http(playing(*steps)) as server:
        with pytest.raises(RefusedError) as caught:
            async with call(client, server.url):
                pass
    assert caught.value.status == 500
    assert len(caught.value._body) <= MAX_ERROR_BODY_BYTES
    assert trio.current_time() == pytest.approx(after_s, abs=0.5)


async def test_leaving_early_closes_the_connection_and_leaves_no_rubbish(client: httpx.AsyncClient) -> None:
    """A caller that has heard enough leaves; warnings of abandoned generators would fail this test."""
    async with serve_http(playing(HEAD, PIECE, PIECE, Fault.HANG)) as server:
        async with call(client, server.url) as answer:
            await anext(answer)
        del answer
        gc.collect()
        await server.wait_until(lambda server: server.live_connections == 0)
    assert_pool_is_clean(client)


async def test_many_cancelled_calls_leave_a_clean_pool(client: httpx.AsyncClient) -> None:
    """Calls cancelled at any of their steps give back their connections, and the client still works."""
    steps: list[Step] = [HEAD, *[PIECE] * 4, Fault.HANG]
    moments = random.Random(4)
    async with serve_http(playing(*steps)) as server:
        for _ in range(25):
            await cancel_some(client, server, moments)
        await server.wait_until(lambda server: server.live_connections == 0)
        assert_pool_is_clean(client)
        server.handler = playing(response())
        async with call(client, server.url) as answer:
            assert answer.status == 200
    gc.collect()


async def cancel_some(client: httpx.AsyncClient, server: HttpServer, moments: random.Random) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(consume, client, server.url)
        for _ in range(moments.randrange(40)):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


def assert_pool_is_busy(client: httpx.AsyncClient) -> None:
    assert len(client._transport.busy) == 1  # type: ignore[attr-defined]  # as below


def assert_pool_is_clean(client: httpx.AsyncClient) -> None:
    assert client._transport.busy == set()  # type: ignore[attr-defined]  # the only place where a leak shows


@pytest.mark.parametrize("leaves_early", [False, True])
async def test_a_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, *, leaves_early: bool
) -> None:
    """Whoever can reach upstreams only through a proxy says so in the usual variables."""
    monkeypatch.setenv("NO_PROXY", "")
    async with serve_http(playing(*streamed(b"one"))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with open_client() as client, call(client, "http://backend.invalid/chat") as answer:
            if not leaves_early:
                assert [piece async for piece in answer] == [b"one"]
        del answer
        gc.collect()
    assert proxy.requests[0].path == "http://backend.invalid/chat"


async def test_exceptions_from_proxies_alone_are_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own connections serve where no proxy is named, whatever would not go through one."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost")
    async with open_client() as client, serve_http(playing(response())) as server:
        async with call(client, server.url):
            assert_pool_is_busy(client)
        assert_pool_is_clean(client)


async def test_what_came_before_the_nonsense_is_told_first(client: httpx.AsyncClient) -> None:
    """Though both came at once."""
    async with serve_http(playing(HEAD + PIECE + b"zz\r\n")) as server, call(client, server.url) as answer:
        assert await anext(answer) == b"piece"
        with pytest.raises(ProviderError) as caught:
            await anext(answer)
    assert caught.value.fault is ProviderFault.BAD_RESPONSE


async def test_an_empty_body_is_no_chunk(client: httpx.AsyncClient) -> None:
    """An answer without content is an empty iteration."""
    async with (
        serve_http(playing(HEAD, LAST_CHUNK)) as server,
        call(client, server.url) as answer,
    ):
        assert [piece async for piece in answer] == []
