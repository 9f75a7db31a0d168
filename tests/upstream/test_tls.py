"""TLS that is written to without waiting, against a peer that speaks Python's."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from voice_fsm.upstream.eager import EagerStream
from voice_fsm.upstream.tls import TlsStream
from voice_fsm.upstream.websocket import dial_tcp

HOST = "service.example.com"
IDN_HOST = "straße.example"
MUCH = bytes(range(256)) * 4 * 1024
Peer = trio.SSLStream[trio.SocketStream]


class Authority:
    """Whom both sides trust."""

    def __init__(self) -> None:
        ca = trustme.CA()
        self.theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(HOST, IDN_HOST).configure_cert(self.theirs)
        self.ours = ssl.create_default_context()
        ca.configure_trust(self.ours)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[EagerStream]:
    """A connection to a peer that does what ``serve`` says."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        tcp = await dial_tcp(*listener.socket.getsockname(), send_buffer_bytes=16_384)
        async with tcp, await listener.accept() as peer:
            nursery.start_soon(serve, peer)
            yield tcp
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(authority: Authority, host: str = HOST) -> AsyncIterator[tuple[TlsStream, Peer]]:
    """The two ends of a connection, hands shaken."""
    peers: list[Peer] = []
    agreed = trio.Event()

    async def shake_hands(tcp: trio.SocketStream) -> None:
        peers.append(trio.SSLStream(tcp, authority.theirs, server_side=True))
        await peers[0].do_handshake()
        agreed.set()

    async with listening(shake_hands) as tcp:
        ours = await TlsStream.open(tcp, authority.ours, host)
        await agreed.wait()
        yield ours, peers[0]


async def read(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await stream.receive_some()
        assert data
        received += data
    return bytes(received)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_much_goes_both_ways_at_once(authority: Authority, version: ssl.TLSVersion) -> None:
    """Neither direction waits for the other, though the socket takes little at a time."""
    authority.theirs.maximum_version = version
    async with connected(authority) as (ours, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, MUCH)
        nursery.start_soon(peer.send_all, MUCH)
        assert await read(ours, len(MUCH)) == MUCH
        assert await read(peer, len(MUCH)) == MUCH


async def test_no_other_task_runs_before_a_small_message_is_sent(authority: Authority) -> None:
    """What the socket takes at once needs no turn of the scheduler."""
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    async with connected(authority) as (ours, peer), trio.open_nursery() as nursery:
        nursery.start_soon(other)
        ours.push(b"hello, ")
        await ours.send_all(b"you")
        assert not ran
        assert await read(peer, 10) == b"hello, you"


async def test_what_the_socket_does_not_take_goes_out_with_what_comes_next(authority: Authority) -> None:
    """In order, also after a send that was cancelled while it waited."""
    async with connected(authority) as (ours, peer):
        ours.push(MUCH)
        assert not ours.is_flushed
        with trio.move_on_after(0):
            await ours.send_all(b"never")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, b"one, ")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, b"two")
            assert await read(peer, len(MUCH) + 8) == MUCH + b"one, two"
        assert ours.is_flushed


async def test_what_came_and_was_not_given_is_known(authority: Authority) -> None:
    """Part of a record, and a record behind it."""
    async with connected(authority) as (ours, peer):
        await peer.send_all(b"hello")
        assert await ours.receive_some(4) == b"hell"
        assert ours.has_unread
        assert await ours.receive_some() == b"o"
        assert not ours.has_unread


@pytest.mark.parametrize("politely", [True, False])
async def test_the_peers_end_is_an_end(authority: Authority, *, politely: bool) -> None:
    """With a word of TLS, or without."""
    async with connected(authority) as (ours, peer):
        await peer.send_all(b"hello")
        await (peer.aclose() if politely else peer.transport_stream.aclose())
        assert await ours.receive_some() == b"hello"
        assert await ours.receive_some() == b""
        assert await ours.receive_some() == b""


async def test_what_is_no_tls_is_broken(authority: Authority) -> None:
    """In the middle of the conversation."""
    async with connected(authority) as (ours, peer):
        await peer.transport_stream.send_all(b"HTTP/1.1 200 OK")
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()


async def test_a_name_is_checked_as_it_is_looked_up(authority: Authority) -> None:
    """By IDNA 2008, in which an eszett is a letter of its own."""
    async with connected(authority, IDN_HOST) as (ours, peer):
        await ours.send_all(b"hello")
        assert await peer.receive_some() == b"hello"


@pytest.mark.parametrize("host", ["", "a" * 64, "\0"])
async def test_what_is_no_name_is_broken(authority: Authority, host: str) -> None:
    """No certificate can have it."""

    async def serve(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(serve) as tcp:
        with pytest.raises(trio.BrokenResourceError):
            await TlsStream.open(tcp, authority.ours, host)


async def test_a_closed_stream_gives_nothing_more(authority: Authority) -> None:
    """Not even what it has."""
    async with connected(authority) as (ours, peer):
        await peer.send_all(b"hello")
        assert await ours.receive_some(4) == b"hell"
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()


async def test_a_reset_and_a_closed_stream_are_told(authority: Authority) -> None:
    """As Trio's own streams tell them."""
    async with connected(authority) as (ours, peer):
        await ours.send_all(b"unread")
        await peer.transport_stream.aclose()  # with a reset, for there was something to read
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"hello")
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"hello")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()


async def test_a_peer_that_is_not_trusted_learns_of_it(authority: Authority) -> None:
    """Its handshake fails too, with an alert."""
    failures: list[BaseException | None] = []

    async def shake_hands(tcp: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await trio.SSLStream(tcp, authority.theirs, server_side=True).receive_some()
        failures.append(caught.value.__cause__)

    with trio.fail_after(5):
        async with listening(shake_hands) as tcp:
            with pytest.raises(trio.BrokenResourceError):
                await TlsStream.open(tcp, Authority().ours, HOST)
            while not failures:
                await trio.testing.wait_all_tasks_blocked()
    assert "unknown ca" in str(failures[0])


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_without_tls_is_broken(authority: Authority, answer: bytes) -> None:
    """It hangs up, or answers in the clear."""

    async def serve(tcp: trio.SocketStream) -> None:
        await tcp.receive_some()
        if answer:
            await tcp.send_all(answer)
        await tcp.aclose()

    async with listening(serve) as tcp:
        with pytest.raises(trio.BrokenResourceError):
            await TlsStream.open(tcp, authority.ours, HOST)
