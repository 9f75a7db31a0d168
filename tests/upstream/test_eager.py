"""Streams that write at once what the socket takes."""

import socket
from contextlib import suppress

import pytest
import trio
import trio.testing

from voice_fsm.upstream.eager import EagerStream, write_now

MUCH = 8 * 1024 * 1024


async def open_pair() -> tuple[EagerStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream(*listener.socket.getsockname())
        return EagerStream(ours), await listener.accept()


async def test_no_other_task_runs_before_a_small_message_is_sent() -> None:
    """What the socket takes at once needs no turn of the scheduler."""
    stream, peer = await open_pair()
    ran: list[str] = []
    async with stream, peer, trio.open_nursery() as nursery:
        nursery.start_soon(_note, ran)
        await stream.send_all(b"hello")
        assert not ran
        assert await peer.receive_some(100) == b"hello"


async def _note(ran: list[str]) -> None:
    ran.append("other")
    await trio.lowlevel.checkpoint()


async def test_what_the_socket_does_not_take_is_waited_for() -> None:
    """All of it arrives, in order, though the peer reads late."""
    stream, peer = await open_pair()
    data = bytes(range(256)) * (MUCH // 256)
    received = bytearray()
    async with stream, peer, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        await trio.testing.wait_all_tasks_blocked()
        while len(received) < MUCH:
            received += await peer.receive_some(1 << 20)
    assert received == data


async def test_a_cancelled_send_is_not_begun() -> None:
    """A message that is given up before has left nothing on the wire."""
    stream, peer = await open_pair()
    async with stream, peer:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"never")
        assert scope.cancelled_caught
        await stream.send_all(b"hello")
        assert await peer.receive_some(100) == b"hello"


async def test_a_closed_stream_says_so() -> None:
    """Errors are those of Trio's own streams."""
    stream, peer = await open_pair()
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"hello")
    await peer.aclose()


async def test_a_broken_connection_is_told() -> None:
    """The peer has gone without reading."""
    stream, peer = await open_pair()
    async with stream:
        await stream.send_all(b"unread")
        await peer.aclose()  # with a reset, for there was something to read
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"hello")


async def test_a_stream_closed_as_data_comes_reads_nobody_elses() -> None:
    """Its descriptor's number is given to the next socket at once, and the reader has been woken already."""
    read: list[bytes] = []
    others: list[socket.socket] = []

    async def close_and_open_another(stream: EagerStream, moment: socket.socket) -> None:
        await trio.lowlevel.wait_readable(moment)
        stream.socket.close()
        others.extend(socket.socketpair())
        for other in others[-2:]:
            other.send(b"secret")

    async def receive(stream: EagerStream) -> None:
        with suppress(trio.ClosedResourceError):
            read.append(await stream.receive_some())

    for _ in range(20):
        stream, peer = await open_pair()
        near, far = socket.socketpair()
        async with peer, trio.open_nursery() as nursery:
            nursery.start_soon(close_and_open_another, stream, far)
            nursery.start_soon(receive, stream)
            await trio.testing.wait_all_tasks_blocked()
            near.send(b"now")  # who is ready first mostly runs first
            write_now(peer.socket, b"ours")
        others += [near, far]
    for other in others:
        other.close()
    assert set(read) <= {b"ours"}
    assert len(read) < 20
