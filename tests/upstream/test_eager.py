"""Streams that write at once what the socket takes."""

import pytest
import trio
import trio.testing

from voice_fsm.upstream.eager import EagerStream

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
