import math
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed

from tests.fakes.sockets import (
    Handler,
    Handshake,
    accept,
    agreement,
    drip,
    in_memory,
    open_sockets,
    read_head,
    reject,
    reset,
    serve,
)
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.eager import EagerStream
from voice_fsm.upstream.websocket import (
    _UpgradeStream,
    background_nursery,
    closed_error,
    default_tls_context,
    derive_ws_url,
    dial_tcp,
    open_websocket,
)


async def echo(stream: trio.abc.Stream) -> None:
    async with accept(stream) as (_, websocket):
        while True:
            await websocket.send_message(await websocket.get_message())


async def agree_and_read_on(stream: trio.abc.Stream) -> None:
    """Accept, then read and never say a word, not even to a close frame."""
    await stream.send_all(agreement(await read_head(stream)))
    while await stream.receive_some():
        pass
    await trio.sleep_forever()


def answering(data: bytes, *, then_hang: bool = False) -> Handler:
    async def server(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(data)
        if then_hang:
            await trio.sleep_forever()

    return server


async def failure_of(handler: Handler) -> ProviderError:
    """Open a connection to a server that prevents it, and give the error."""
    async with serve(handler) as url:
        with pytest.raises(ProviderError) as caught, trio.fail_after(30):
            async with open_websocket(url, upstream=Upstream.STT):
                pytest.fail("opened")
    return caught.value


@asynccontextmanager
async def echoing() -> AsyncIterator[UpstreamSocket]:
    async with serve(echo) as url, open_websocket(url, upstream=Upstream.STT) as connection:
        yield connection


# --- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:9000", "ws://127.0.0.1:9000"),
        ("https://api.example.com", "wss://api.example.com"),
        ("HTTPS://api.example.com/", "wss://api.example.com"),
        ("ws://host/prefix/", "ws://host/prefix"),
        ("wss://host:8443/a/b", "wss://host:8443/a/b"),
        ("http://[::1]:80", "ws://[::1]:80"),
        (" https://host ", "wss://host"),
    ],
)
def test_a_websocket_address_is_derived_from_any_base_address(base_url: str, expected: str) -> None:
    """The scheme is translated; host, port and path prefix stay."""
    assert derive_ws_url(base_url) == expected


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.example.com",
        "ftp://host",
        "https://",
        "https:///path",
        "https://host:0",
        "https://host:99999",
        "https://host:port",
        "https://user:secret@host",
        "https://host?key=secret",
        "https://host#secret",
        "https://a..b",
        "https://[::1",
    ],
)
def test_what_is_no_base_address_is_refused_unquoted(base_url: str) -> None:
    """A wrong address fails early, and no part of it that may be a secret is repeated."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # what must not be in it is what counts
        derive_ws_url(base_url)
    assert "secret" not in str(caught.value)


# --- opening ----------------------------------------------------------------------------------------


async def test_the_handshake_carries_path_query_and_headers() -> None:
    """The server sees the address asked for, the caller's headers and our name."""
    seen: list[Handshake] = []

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream) as (handshake, _):
            seen.append(handshake)

    async with serve(server) as url:
        headers = [("xi-api-key", "key"), ("X-Other", "a b")]
        async with open_websocket(f"{url}/p/q?a=1&a=%20x", upstream=Upstream.TTS, headers=headers):
            pass
    assert (seen[0].path, seen[0].query) == ("/p/q", {"a": ["1", " x"]})
    assert seen[0].headers["xi-api-key"] == "key"
    assert seen[0].headers["x-other"] == "a b"
    assert seen[0].headers["user-agent"].startswith("voice-fsm/")


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("ws://example.com", b"example.com", b"/"),
        ("ws://example.com:80/a", b"example.com", b"/a"),
        ("ws://example.com:8080/a?b", b"example.com:8080", b"/a?b"),
        ("ws://[::1]:9/", b"[::1]:9", b"/"),
    ],
)
async def test_the_host_header_names_the_port_unless_it_is_the_usual_one(
    url: str, host: bytes, target: bytes
) -> None:
    """RFC 6455, section 4.1, points 4 and 5."""
    heads: list[bytes] = []

    async def server(stream: trio.abc.Stream) -> None:
        heads.append(await read_head(stream))
        await stream.send_all(agreement(heads[0]))

    async with in_memory(server) as dial, open_websocket(url, upstream=Upstream.STT, dial=dial):
        pass
    assert heads[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")
    assert b"\r\nHost: " + host + b"\r\n" in heads[0]


async def test_messages_go_both_ways_also_beyond_one_frame() -> None:
    """Text and binary, of any size up to the limit."""
    async with echoing() as connection:
        for message in ("", "hello", "é" * 100_000, b"\0\xff", bytes(300_000)):
            await connection.send_message(message)
            assert await connection.get_message() == message


async def test_a_frame_in_the_packet_of_the_agreement_is_not_lost() -> None:
    """A server may speak at once."""

    async def server(stream: trio.abc.Stream) -> None:
        await stream.send_all(agreement(await read_head(stream)) + b"\x81\x02hi")
        await trio.sleep_forever()

    async with serve(server) as url, open_websocket(url, upstream=Upstream.STT) as connection:
        assert await connection.get_message() == "hi"


async def test_an_agreement_may_come_byte_by_byte(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A slow network does not disturb the handshake."""

    async def server(stream: trio.abc.Stream) -> None:
        await drip(stream, agreement(await read_head(stream)) + b"\x81\x02hi", pause_s=0.1)
        await trio.sleep_forever()

    async with (
        in_memory(server) as dial,
        open_websocket("ws://host", upstream=Upstream.STT, dial=dial) as connection,
    ):
        assert await connection.get_message() == "hi"


async def test_the_sockets_options_suit_speech() -> None:
    """Small messages leave at once, and a host that vanished is noticed."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener, await dial_tcp(*listener.socket.getsockname()) as stream:
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


async def test_the_kernel_takes_no_more_than_asked_for() -> None:
    """What it has taken counts as sent, whether or not anybody is there."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    async with listeners[0], await dial_tcp(*address, send_buffer_bytes=16_384) as stream:
        # Linux doubles it, for what it needs itself.
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 32_768


# --- failures to open -------------------------------------------------------------------------------


async def test_a_refused_connection_is_unreachable() -> None:
    """Nobody listens."""
    before = open_sockets()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(url, upstream=Upstream.CHAT):
                pytest.fail("opened")
    assert (caught.value.code, caught.value.retryable) == ("chat_unreachable", True)
    assert open_sockets() == before


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    """The resolver's errors are operating system errors too."""

    async def dial(_host: str, _port: int) -> trio.abc.HalfCloseableStream:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ProviderError) as caught:
        async with open_websocket("ws://no.such.host", upstream=Upstream.STT, dial=dial):
            pytest.fail("opened")
    assert caught.value.fault is ProviderFault.UNREACHABLE


REFUSALS = [
    (401, ProviderFault.AUTH_FAILED),
    (403, ProviderFault.AUTH_FAILED),
    (404, ProviderFault.REJECTED),
    (302, ProviderFault.REJECTED),
    (429, ProviderFault.RATE_LIMITED),
    (500, ProviderFault.SERVER_ERROR),
    (503, ProviderFault.OVERLOADED),
]


@pytest.mark.parametrize(("status", "fault"), REFUSALS)
async def test_a_refused_handshake_is_told_by_its_status(status: int, fault: ProviderFault) -> None:
    """The status decides; when to come back and the request's name are handed on."""

    async def server(stream: trio.abc.Stream) -> None:
        headers = {"Retry-After": "7", "X-Request-Id": "r-1"}
        await reject(stream, status, headers=headers, body=b"No.")

    error = await failure_of(server)
    assert (error.fault, error.status, error.retry_after_s) == (fault, status, 7.0)
    assert error.request_id == "r-1"
    assert "No." not in str(error)


@pytest.mark.parametrize("then_hang", [False, True])
async def test_a_refusal_counts_before_its_body_has_ended(then_hang: bool) -> None:
    """Its body may end by hanging up, or never; it is not waited for long."""
    answer = b"HTTP/1.1 401 Unauthorized\r\n\r\n" + b'{"detail":'
    error = await failure_of(answering(answer, then_hang=then_hang))
    assert (error.fault, error.status) == (ProviderFault.AUTH_FAILED, 401)


async def test_a_refusals_body_may_say_more_than_its_status() -> None:
    """An exhausted quota comes as a 401 with a code."""

    async def server(stream: trio.abc.Stream) -> None:
        await reject(stream, 401, body=b'{"detail":{"status":"quota_exceeded"}}')

    assert (await failure_of(server)).fault is ProviderFault.QUOTA_EXCEEDED


async def test_a_flood_instead_of_a_refusals_body_is_cut_off() -> None:
    """No more of it is read than can hold a code."""
    sent_bytes = 0

    async def server(stream: trio.abc.Stream) -> None:
        nonlocal sent_bytes
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            await stream.send_all(bytes(1000))
            sent_bytes += 1000

    async with in_memory(server) as dial:
        with pytest.raises(ProviderError) as caught:
            async with open_websocket("ws://host", upstream=Upstream.STT, dial=dial):
                pytest.fail("opened")
    assert caught.value.fault is ProviderFault.SERVER_ERROR
    assert sent_bytes < 1_000_000


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x01 what is this\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        agreement(b"Sec-WebSocket-Key: another\r\n"),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: " + bytes(200_000),
    ],
    ids=["not HTTP", "no refusal", "wrong key", "no upgrade", "endless head"],
)
async def test_nonsense_for_an_answer_is_a_bad_response(answer: bytes) -> None:
    """What is neither agreement nor refusal ends the attempt at once."""
    error = await failure_of(answering(answer, then_hang=True))
    assert error.fault is ProviderFault.BAD_RESPONSE


async def hang_up(stream: trio.abc.Stream) -> None:
    await read_head(stream)


async def hang_up_half_way(stream: trio.abc.Stream) -> None:
    await stream.send_all(agreement(await read_head(stream))[:20])


async def break_off(stream: trio.abc.Stream) -> None:
    await read_head(stream)
    await reset(stream)


@pytest.mark.parametrize("server", [hang_up, hang_up_half_way, break_off])
async def test_hanging_up_during_the_handshake_is_unreachable(server: Handler) -> None:
    """trio-websocket alone would wait for ever."""
    assert (await failure_of(server)).fault is ProviderFault.UNREACHABLE


async def test_a_handshake_that_trio_websocket_gives_up_has_failed() -> None:
    """It then closes the stream, and (up to 0.12.2) leaves its caller waiting."""
    client, _ = trio.testing.memory_stream_pair()
    handshake = trio.CancelScope()
    upgrade = _UpgradeStream(client, Upstream.STT, handshake)
    await upgrade.aclose()
    assert handshake.cancel_called
    assert upgrade.failure.fault is ProviderFault.BAD_RESPONSE


async def test_a_peer_that_is_gone_before_the_handshake_is_unreachable() -> None:
    """Our request cannot even be sent."""

    async def dial(_host: str, _port: int) -> trio.abc.HalfCloseableStream:
        client, server = trio.testing.memory_stream_pair()
        await server.aclose()
        return client

    with pytest.raises(ProviderError) as caught, trio.fail_after(30):
        async with open_websocket("ws://host", upstream=Upstream.STT, dial=dial):
            pytest.fail("opened")
    assert caught.value.fault is ProviderFault.UNREACHABLE


async def test_a_credential_that_cannot_be_sent_is_refused_without_being_quoted() -> None:
    """A line break in a key would otherwise end up in an error of h11's."""
    async with serve(echo) as url:
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(url, upstream=Upstream.STT, headers=[("k", "sec\nret")]):
                pytest.fail("opened")
    assert caught.value.fault is ProviderFault.AUTH_FAILED
    assert "ret" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_the_callers_deadline_ends_a_handshake_that_goes_nowhere() -> None:
    """A server that accepts TCP and says nothing."""

    async def server(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await trio.sleep_forever()

    async with serve(server) as url:
        with trio.move_on_after(0.05) as deadline:
            async with open_websocket(url, upstream=Upstream.STT):
                pytest.fail("opened")
    assert deadline.cancelled_caught


# --- TLS --------------------------------------------------------------------------------------------


@asynccontextmanager
async def secured(host: str) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """Serve with a certificate for ``host``; gives the address and what trusts it."""
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host).configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    async with serve(echo, tls=theirs) as url:
        yield url, ours


async def test_a_trusted_server_is_spoken_to_over_tls() -> None:
    """wss, with a certificate for the address."""
    async with secured("127.0.0.1") as (url, tls):
        assert url.startswith("wss:")
        async with open_websocket(url, upstream=Upstream.STT, tls=tls) as connection:
            await connection.send_message("secret")
            assert await connection.get_message() == "secret"


async def test_a_server_is_asked_for_the_certificate_of_its_name() -> None:
    """Whatever address the name leads to."""
    async with secured("service.example.com") as (url, tls):

        async def dial(host: str, _port: int) -> EagerStream:
            assert host == "service.example.com"
            return await dial_tcp("127.0.0.1", int(url.rpartition(":")[2]))

        async with open_websocket(
            "wss://service.example.com", upstream=Upstream.STT, tls=tls, dial=dial
        ) as connection:
            await connection.send_message("hello")
            assert await connection.get_message() == "hello"


async def test_an_untrusted_server_is_unreachable() -> None:
    """Its certificate is signed by nobody we know."""
    async with secured("127.0.0.1") as (url, _):
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(url, upstream=Upstream.STT):
                pytest.fail("opened")
    assert caught.value.fault is ProviderFault.UNREACHABLE
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_server_with_anothers_certificate_is_unreachable() -> None:
    """The name in the certificate has to be the one that was dialled."""
    async with secured("other.example.com") as (url, tls):
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(url, upstream=Upstream.STT, tls=tls):
                pytest.fail("opened")
    assert caught.value.fault is ProviderFault.UNREACHABLE


async def test_a_server_without_tls_is_unreachable_by_wss() -> None:
    """It answers our TLS greeting with HTTP."""

    async def server(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(server) as url:
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(url.replace("ws:", "wss:"), upstream=Upstream.STT):
                pytest.fail("opened")
    assert caught.value.fault is ProviderFault.UNREACHABLE


def test_the_default_tls_context_checks_names_and_knows_authorities() -> None:
    """It is made once: making it takes the time of many turns."""
    context = default_tls_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509_ca"] > 50
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert default_tls_context() is context


# --- the end of a connection ------------------------------------------------------------------------


async def test_the_bodys_errors_leave_as_they_are() -> None:
    """No exception group, although tasks run beside the body."""
    with pytest.raises(ZeroDivisionError):
        async with echoing():
            _ = 1 / 0


async def test_leaving_says_goodbye() -> None:
    """The server gets a close frame with 1000."""
    codes: list[int] = []

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream) as (_, websocket):
            with pytest.raises(ConnectionClosed):
                await websocket.get_message()
            assert websocket.closed is not None
            codes.append(websocket.closed.code)

    async with serve(server) as url:
        async with open_websocket(url, upstream=Upstream.STT):
            pass
        with trio.CancelScope() as scope:
            async with open_websocket(url, upstream=Upstream.STT):
                scope.cancel()
        with pytest.raises(KeyError):
            async with open_websocket(url, upstream=Upstream.STT):
                raise KeyError
    assert codes == [1000, 1000, 1000]


@pytest.mark.parametrize(("cancelled", "expected_s"), [(False, 1.0), (True, 0.1)])
async def test_a_peer_that_does_not_answer_the_close_is_not_waited_for_long(
    autojump_clock: trio.testing.MockClock, cancelled: bool, expected_s: float
) -> None:
    """Least of all when we were cancelled: somebody waits for us to be gone."""
    async with in_memory(agree_and_read_on) as dial:
        with trio.CancelScope() as scope:
            async with open_websocket("ws://host", upstream=Upstream.STT, dial=dial):
                started_at = trio.current_time()
                if cancelled:
                    scope.cancel()
        assert trio.current_time() - started_at == pytest.approx(expected_s)


async def test_cancelling_cuts_the_goodbye_short(autojump_clock: trio.testing.MockClock) -> None:
    """A deadline that passes while we wait for the peer's close frame is kept."""
    async with in_memory(agree_and_read_on) as dial:
        started_at = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            async with open_websocket("ws://host", upstream=Upstream.STT, dial=dial):
                pass
        assert scope.cancelled_caught
        assert trio.current_time() - started_at == pytest.approx(0.3)


async def test_a_stalled_peer_does_not_hold_a_cancelled_sender() -> None:
    """The peer reads nothing, our message fills every buffer, and still we are gone at once."""

    async def server(stream: trio.abc.Stream) -> None:
        await stream.send_all(agreement(await read_head(stream)))
        await trio.sleep_forever()

    async with serve(server) as url:
        with trio.fail_after(30), trio.move_on_after(0.2) as scope:
            async with open_websocket(url, upstream=Upstream.STT) as connection:
                await connection.send_message(bytes(50_000_000))
        assert scope.cancelled_caught


async def test_a_ping_during_the_goodbye_does_no_harm() -> None:
    """trio-websocket's reader dies of it; nobody is to notice."""

    async def server(stream: trio.abc.Stream) -> None:
        await stream.send_all(agreement(await read_head(stream)))
        await stream.receive_some()  # our close frame
        await stream.send_all(b"\x89\x00" + b"\x88\x02\x03\xe8")
        await trio.sleep_forever()

    async with serve(server) as url:
        with trio.fail_after(30):
            async with open_websocket(url, upstream=Upstream.STT):
                pass


async def test_pings_are_answered_while_a_message_is_waited_for() -> None:
    """And no message comes of it."""
    pongs = trio.Event()

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream) as (_, websocket):
            await websocket.ping()
            pongs.set()

    async with (
        serve(server) as url,
        open_websocket(url, upstream=Upstream.STT) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(connection.get_message)
        with trio.fail_after(30):
            await pongs.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (1000, ProviderFault.LOST),
        (1001, ProviderFault.LOST),
        (1002, ProviderFault.BAD_RESPONSE),
        (1008, ProviderFault.REJECTED),
        (1011, ProviderFault.SERVER_ERROR),
        (1013, ProviderFault.OVERLOADED),
        (4321, ProviderFault.LOST),
    ],
)
async def test_a_close_by_the_peer_comes_after_its_messages_and_has_a_fault(
    code: int, fault: ProviderFault
) -> None:
    """What was sent before is still read; then the close code tells."""

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream) as (_, websocket):
            await websocket.send_message("last words")
            await websocket.aclose(code, "secret reason")

    async with serve(server) as url, open_websocket(url, upstream=Upstream.TTS) as connection:
        assert await connection.get_message() == "last words"
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        error = closed_error(Upstream.TTS, caught.value)
        assert (error.fault, error.status) == (fault, code)
        assert "secret" not in str(error)


async def test_a_broken_connection_is_lost() -> None:
    """RST without a close frame: 1006, for reader and writer alike."""

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream):
            await reset(stream)

    async with serve(server) as url, open_websocket(url, upstream=Upstream.STT) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        error = closed_error(Upstream.STT, caught.value)
        assert (error.fault, error.status) == (ProviderFault.LOST, 1006)
        with pytest.raises(ConnectionClosed):
            await connection.send_message("anybody?")


async def test_a_connection_that_the_peer_ended_holds_no_socket() -> None:
    """It is closed at once, not when the body has come to its end."""

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream) as (_, websocket):
            await websocket.aclose()

    async with serve(server) as url:
        listening = open_sockets()
        async with open_websocket(url, upstream=Upstream.STT) as connection:
            with pytest.raises(ConnectionClosed):
                await connection.get_message()
            with trio.fail_after(30):
                while open_sockets() != listening:
                    await trio.testing.wait_all_tasks_blocked()


def test_a_connection_that_ended_without_a_reason_is_lost() -> None:
    """A reader that died leaves none."""
    error = closed_error(Upstream.STT, ConnectionClosed(None))
    assert (error.fault, error.status) == (ProviderFault.LOST, None)


@pytest.mark.parametrize(
    "frame", [b"\xff\xff\xff\xff", b"\x81\x02\xff\xff"], ids=["reserved bits", "not UTF-8"]
)
async def test_garbage_on_an_open_connection_ends_it(frame: bytes) -> None:
    """A protocol error is a close of the connection, not a crash."""

    async def server(stream: trio.abc.Stream) -> None:
        await stream.send_all(agreement(await read_head(stream)) + frame)
        await trio.sleep_forever()

    async with serve(server) as url, open_websocket(url, upstream=Upstream.STT) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert closed_error(Upstream.STT, caught.value).fault is ProviderFault.BAD_RESPONSE


async def test_a_message_beyond_the_limit_ends_the_connection() -> None:
    """Memory stays bounded, whatever the peer sends."""

    async def server(stream: trio.abc.Stream) -> None:
        async with accept(stream) as (_, websocket):
            await websocket.send_message(bytes(1_000_000))
            await websocket.get_message()

    async with (
        serve(server) as url,
        open_websocket(url, upstream=Upstream.STT, max_message_bytes=1000) as connection,
    ):
        with pytest.raises(ConnectionClosed) as caught, trio.fail_after(30):
            await connection.get_message()
        assert closed_error(Upstream.STT, caught.value).fault is ProviderFault.BAD_RESPONSE


async def test_cancellation_at_any_moment_leaves_no_socket() -> None:
    """A hundred connections, each cancelled at a random step of opening, talking or closing."""
    chance = random.Random(7)

    async def connect(url: str) -> None:
        async with open_websocket(url, upstream=Upstream.STT) as connection:
            await connection.send_message("hello")
            await connection.get_message()

    async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    before = open_sockets()
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    async with serve(echo) as url:
        for _ in range(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, chance.randrange(80), nursery.cancel_scope)
                await connect(url)
                nursery.cancel_scope.cancel()
    assert open_sockets() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before


class CancelsWithTheAnswer(trio.abc.HalfCloseableStream):
    """A stream on whose first bytes a scope is cancelled, before any other task can run."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self._scope = scope

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._scope.cancel()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_cancellation_in_the_moment_of_success_is_kept() -> None:
    """The handshake is done, the news of it is on its way, and the deadline passes."""
    scope = trio.CancelScope()
    async with in_memory(echo) as memory:

        async def dial(host: str, port: int) -> trio.abc.HalfCloseableStream:
            return CancelsWithTheAnswer(await memory(host, port), scope)

        with scope:
            async with open_websocket("ws://host", upstream=Upstream.STT, dial=dial):
                pytest.fail("opened")
    assert scope.cancelled_caught


# --- the nursery beside a body ----------------------------------------------------------------------


async def test_background_tasks_end_with_the_body() -> None:
    """They serve it, and are cancelled when it is through."""
    ended = trio.Event()

    async def serve_for_ever() -> None:
        try:
            await trio.sleep(math.inf)
        finally:
            ended.set()

    async with background_nursery() as nursery:
        nursery.start_soon(serve_for_ever)
        await trio.testing.wait_all_tasks_blocked()
    assert ended.is_set()


async def test_a_background_task_that_fails_takes_the_body_with_it() -> None:
    """This is a mistake of ours, and it is not hidden."""

    async def fail() -> None:
        raise ZeroDivisionError

    async def body() -> None:
        async with background_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
