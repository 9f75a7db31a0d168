"""An open WebSocket to an upstream, and a peer that does as it likes on the other end of a memory stream."""

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.eager import EagerStream
from voice_fsm.wire.frames import BINARY, PING, PONG, TEXT, FrameReader, Received, encode_close, encode_frame

LIMIT = 1 << 20


def pair() -> tuple[UpstreamSocket, trio.testing.MemoryReceiveStream, trio.testing.MemorySendStream]:
    """A connection, what it sends, and what it reads."""
    ours, theirs = trio.testing.memory_stream_pair()
    return UpstreamSocket(ours, b"", LIMIT), theirs.receive_stream, theirs.send_stream


def nothing(message: str | bytes) -> None:
    raise AssertionError(message)


async def test_what_comes_while_it_is_watched_is_overheard(autojump_clock: trio.testing.MockClock) -> None:
    """And a peer that answers pings is watched for as long as one likes."""
    connection, sent, to_read = pair()
    overheard: list[str | bytes] = []
    pings = 0

    async def peer() -> None:
        nonlocal pings
        reader = FrameReader(LIMIT)
        await to_read.send_all(encode_frame(TEXT, b"one") + encode_frame(BINARY, b"two"))
        while True:
            reader.feed(await sent.receive_some())
            assert reader.next() == Received(PING, b"")
            pings += 1
            await to_read.send_all(encode_frame(PONG, b""))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        with trio.move_on_after(95):
            await connection.watch(10, 3, overheard.append)
        nursery.cancel_scope.cancel()
    assert pings == 9
    assert overheard == ["one", b"two"]


async def test_what_an_eavesdropper_raises_ends_the_watch() -> None:
    """It is raised as it is."""
    connection, _, to_read = pair()
    await to_read.send_all(encode_frame(TEXT, b"one"))
    with pytest.raises(AssertionError, match="one"):
        await connection.watch(10, 3, nothing)


async def test_a_peer_that_does_not_answer_a_ping_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """After the interval and the patience."""
    connection, _, _ = pair()
    with pytest.raises(trio.TooSlowError):
        await connection.watch(10, 3, nothing)
    assert trio.current_time() == pytest.approx(13)


async def test_messages_that_came_together_are_there_at_once() -> None:
    """As far as nothing else has to be done first: a ping is answered by whoever waits for the next."""
    connection, sent, to_read = pair()
    assert connection.get_now() is None
    await to_read.send_all(
        encode_frame(TEXT, b"one")
        + encode_frame(BINARY, b"two")
        + encode_frame(PING, b"p")
        + encode_frame(TEXT, b"three")
        + encode_frame(TEXT, b"four")
    )
    assert await connection.get_message() == "one"
    assert [connection.get_now() for _ in range(3)] == [b"two", None, None]
    assert await connection.get_message() == "three"
    assert [connection.get_now() for _ in range(2)] == ["four", None]
    reader = FrameReader(LIMIT)
    reader.feed(await sent.receive_some())
    assert reader.next() == Received(PONG, b"p")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (encode_close(1001), 1001),
        (encode_frame(TEXT, b"\xff"), 1007),
        (b"\xf1\x00", 1002),
    ],
    ids=["close", "no text", "no frame"],
)
async def test_what_came_before_the_end_is_there_at_once_and_nothing_after(end: bytes, code: int) -> None:
    """The end itself is told to whoever waits."""
    connection, _, to_read = pair()
    await to_read.send_all(b"".join(encode_frame(TEXT, text) for text in (b"one", b"two")) + end)
    await to_read.send_all(encode_frame(TEXT, b"late"))
    assert await connection.get_message() == "one"
    assert [connection.get_now() for _ in range(2)] == ["two", None]
    with pytest.raises(ConnectionClosed):
        await connection.get_message()
    assert connection.get_now() is None
    assert connection.closed is not None
    assert connection.closed.code == code


async def test_texts_that_go_together_are_messages_of_their_own() -> None:
    """The peer reads them one by one, out of one write."""
    connection, sent, _ = pair()
    await connection.send_texts("one", "two")
    reader = FrameReader(LIMIT)
    reader.feed(await sent.receive_some())
    assert [reader.next() for _ in range(3)] == [Received(TEXT, b"one"), Received(TEXT, b"two"), None]


async def test_who_waits_comes_first() -> None:
    """A message is not taken away from a task that has a ping to answer before it."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = UpstreamSocket(ours, b"", LIMIT)
    got: list[str | bytes] = []

    async def read() -> None:
        got.append(await connection.get_message())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await theirs.send_all(encode_frame(PING, b"") + encode_frame(TEXT, b"one"))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.get_now() is None
        await theirs.receive_some()
    assert got == ["one"]


async def test_two_readers_take_turns() -> None:
    """Each message goes to one of them."""
    connection, _, to_read = pair()
    got: list[str | bytes] = []

    async def read() -> None:
        got.append(await connection.get_message())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await to_read.send_all(encode_frame(TEXT, b"a") + encode_frame(TEXT, b"b"))
    assert got == ["a", "b"]


async def test_a_message_cut_off_by_cancellation_ends_the_connection() -> None:
    """What the peer would read after half a frame is no message."""
    ours, _ = trio.testing.lockstep_stream_pair()
    connection = UpstreamSocket(ours, b"", LIMIT)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.send_message, "hello")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert connection.closed is not None
    with pytest.raises(ConnectionClosed):
        await connection.send_message("again")


async def test_a_close_from_a_peer_that_has_gone_keeps_its_code() -> None:
    """Our answer to it cannot be sent any more."""
    connection, sent, to_read = pair()
    await to_read.send_all(encode_close(1011, "oops"))
    await sent.aclose()
    with pytest.raises(ConnectionClosed):
        await connection.get_message()
    assert connection.closed is not None
    assert (connection.closed.code, connection.closed.reason) == (1011, "oops")


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe8\xff"], ids=["half a code", "no text"])
async def test_a_close_that_cannot_be_read_is_a_fault_of_the_peer(payload: bytes) -> None:
    """It ends the connection all the same."""
    connection, _, to_read = pair()
    await to_read.send_all(encode_frame(0x8, payload))
    with pytest.raises(ConnectionClosed) as caught:
        await connection.get_message()
    assert caught.value.reason is not None
    assert caught.value.reason.code in {1002, 1007}


async def test_what_is_sent_at_once_arrives_whole_and_in_order() -> None:
    """A peer that does not read ends it; what it did not take is sent when it reads again, then the rest."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = EagerStream(await trio.open_tcp_stream(*listener.socket.getsockname()))
        peer = await listener.accept()
    async with stream, peer, trio.open_nursery() as nursery:
        connection = UpstreamSocket(stream, b"", LIMIT)
        messages = [b"%d " % number * 5000 for number in range(2000)]
        count = 0
        while connection.send_now(messages[count]):
            count += 1
        assert not connection.is_flushed  # the last was taken in part
        nursery.start_soon(connection.send_text, messages[count])
        await trio.testing.wait_all_tasks_blocked()
        reader, read = FrameReader(LIMIT), list[bytes]()
        while len(read) <= count:
            reader.feed(await peer.receive_some(1 << 20))
            while (received := reader.next()) is not None:
                read.append(received.payload)
        assert read == messages[: count + 1]
        assert connection.is_flushed
        assert connection.send_now(b"again")


async def test_nothing_is_sent_at_once_where_that_cannot_be() -> None:
    """Over a stream that always waits; on a connection that is closed or broken."""
    connection, _, _ = pair()
    assert not connection.send_now(b"hello")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = EagerStream(await trio.open_tcp_stream(*listener.socket.getsockname()))
        peer = await listener.accept()
    async with stream:
        connection = UpstreamSocket(stream, b"", LIMIT)
        assert connection.send_now(b"unread")
        await peer.aclose()
        with pytest.raises(ConnectionClosed):
            await connection.get_message()
        assert not connection.send_now(b"hello")
