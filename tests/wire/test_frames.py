"""WebSocket frames as a server reads and writes them."""

import os
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from voice_fsm.wire.frames import (
    BINARY,
    CLOSE,
    INVALID_TEXT,
    MESSAGE_TOO_BIG,
    NO_CODE,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    FrameError,
    FrameReader,
    Received,
    decode_close,
    decode_text,
    encode_close,
    encode_frame,
)

LIMIT = 1 << 20
MASK = b"\x01\x02\x03\x04"

text = st.text().map(lambda data: TextMessage(data=data))
binary = st.one_of(st.binary(), st.integers(120, 70_000).map(os.urandom)).map(
    lambda data: BytesMessage(data=data)
)
ping = st.binary(max_size=125).map(lambda payload: Ping(payload=payload))


def parts(message: Event, data: st.DataObject) -> list[Event]:
    """Cut a message into fragments, pings between them."""
    if not isinstance(message, TextMessage | BytesMessage):
        return [message]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message.data)), max_size=3)))
    spans = list(pairwise([0, *cuts, len(message.data)]))
    pieces: list[Event] = []
    for number, (start, end) in enumerate(spans, 1):
        piece = message.data[start:end]
        pieces.append(type(message)(data=piece, message_finished=number == len(spans)))  # type: ignore[arg-type]  # str stays with text, bytes with binary
        pieces.append(Ping(payload=b"between"))
    return pieces


def as_received(event: Event) -> Received:
    if isinstance(event, TextMessage):
        return Received(TEXT, event.data.encode())
    if isinstance(event, BytesMessage):
        return Received(BINARY, bytes(event.data))
    assert isinstance(event, Ping)
    return Received(PING, bytes(event.payload))


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(st.lists(st.one_of(text, binary, ping), max_size=5), st.data())
def test_what_a_client_wrote_is_read_however_it_is_cut(messages: list[Event], data: st.DataObject) -> None:
    """Whole or in fragments, with pings between, in pieces of any size: the same messages come out."""
    client = Connection(ConnectionType.CLIENT)
    sent = b"".join(bytes(client.send(part)) for message in messages for part in parts(message, data))
    reader = FrameReader(LIMIT)
    read: list[Received] = []
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        reader.feed(sent[:size])
        sent = sent[size:]
        while (received := reader.next()) is not None:
            read.append(received)
    assert [frame for frame in read if frame != (PING, b"between")] == [as_received(m) for m in messages]
    assert reader.unread_bytes == 0


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_another_library_reads_what_is_written(length: int) -> None:
    """Each form of the length is written as wsproto reads it."""
    payload = os.urandom(length)
    client = Connection(ConnectionType.CLIENT, trailing_data=encode_frame(BINARY, payload))
    events = list(client.events())
    assert [event.data for event in events if isinstance(event, BytesMessage)] == [payload]


def test_another_library_reads_the_close() -> None:
    """A close carries its code and reason, a reason too long for it is cut between characters."""
    client = Connection(ConnectionType.CLIENT, trailing_data=encode_close(1012, "ü" * 100))
    assert list(client.events()) == [CloseConnection(code=1012, reason="ü" * 61)]
    assert encode_close(NO_CODE) == encode_frame(CLOSE, b"")


@pytest.mark.parametrize(
    ("wire", "close_code"),
    [
        (b"\xc1\x80" + MASK, PROTOCOL_ERROR),  # reserved bit 1: compression that was declined
        (b"\x91\x80" + MASK, PROTOCOL_ERROR),  # reserved bit 3
        (b"\x83\x80" + MASK, PROTOCOL_ERROR),  # opcode 3
        (b"\x8b\x80" + MASK, PROTOCOL_ERROR),  # opcode 11
        (b"\x81\x01a", PROTOCOL_ERROR),  # not masked
        (b"\x09\x80" + MASK, PROTOCOL_ERROR),  # a ping in fragments
        (b"\x89\xfe\x00\x7e" + MASK, PROTOCOL_ERROR),  # a ping of 126 bytes
        (b"\x80\x80" + MASK, PROTOCOL_ERROR),  # the continuation of nothing
        (b"\x01\x80" + MASK + b"\x81\x80" + MASK, PROTOCOL_ERROR),  # a message within a message
        (b"\x81\xfe\x00\x7d" + MASK, PROTOCOL_ERROR),  # 125, written in 2 bytes
        (b"\x81\xff" + (65_535).to_bytes(8, "big") + MASK, PROTOCOL_ERROR),  # 65,535, written in 8 bytes
        (b"\x81\xff" + (1 << 63).to_bytes(8, "big") + MASK, PROTOCOL_ERROR),  # a negative length
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"), MESSAGE_TOO_BIG),  # before one byte of it has come
        (b"\x02\x81" + MASK + b"\x01" + b"\x80\xff" + LIMIT.to_bytes(8, "big"), MESSAGE_TOO_BIG),
    ],
)
def test_what_breaks_the_protocol_is_refused_by_its_header(wire: bytes, close_code: int) -> None:
    """The close code says what was wrong."""
    reader = FrameReader(LIMIT)
    reader.feed(wire)
    with pytest.raises(FrameError) as caught:
        reader.next()
    assert caught.value.close_code == close_code


def test_a_message_of_the_largest_size_is_read() -> None:
    """The limit is inclusive, also for a message in fragments."""
    client = Connection(ConnectionType.CLIENT)
    reader = FrameReader(LIMIT)
    reader.feed(bytes(client.send(BytesMessage(data=bytes(LIMIT)))))
    assert reader.next() == (BINARY, bytes(LIMIT))
    reader.feed(bytes(client.send(BytesMessage(data=bytes(LIMIT - 1), message_finished=False))))
    assert reader.next() is None
    reader.feed(bytes(client.send(BytesMessage(data=b"\0"))))
    assert reader.next() == (BINARY, bytes(LIMIT))


def test_fragments_of_nothing_take_no_memory() -> None:
    """A client may send empty fragments for ever; nothing of them is kept."""
    reader = FrameReader(LIMIT)
    reader.feed(b"\x01\x80" + MASK + (b"\x00\x80" + MASK) * 1000)
    assert reader.next() is None
    assert reader.unread_bytes == 0
    reader.feed(b"\x80\x80" + MASK)
    assert reader.next() == (TEXT, b"")


def test_a_pong_is_given_like_a_ping() -> None:
    """Control frames are the caller's affair."""
    client = Connection(ConnectionType.CLIENT)
    reader = FrameReader(LIMIT)
    reader.feed(bytes(client.send(Pong(payload=b"x"))))
    assert reader.next() == (PONG, b"x")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", (NO_CODE, "")),
        (b"\x03\xe8", (1000, "")),
        (b"\x03\xf4bye", (1012, "bye")),
        (b"\x0f\xa1", (4001, "")),
    ],
)
def test_a_close_is_read(payload: bytes, expected: tuple[int, str]) -> None:
    """Code and reason; a close may be empty."""
    assert decode_close(payload) == expected


@pytest.mark.parametrize(
    "payload", [b"\x03", b"\x03\xe7", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\x07\xd0", b"\x13\x88"]
)
def test_a_close_with_a_code_that_may_not_be_sent_is_refused(payload: bytes) -> None:
    """Half a code, 999, 1005, 1006, 1015, 2000, 5000."""
    with pytest.raises(FrameError) as caught:
        decode_close(payload)
    assert caught.value.close_code == PROTOCOL_ERROR


@pytest.mark.parametrize("payload", [b"\xff", b"\xed\xa0\x80", b"ab\xc3"])
def test_text_that_is_not_utf_8_is_refused(payload: bytes) -> None:
    """A stray byte, a surrogate, half a character."""
    with pytest.raises(FrameError) as caught:
        decode_text(payload)
    assert caught.value.close_code == INVALID_TEXT


def test_a_servers_frames_are_read_unmasked_and_a_clients_written_masked() -> None:
    """What one end writes the other reads; a mask where none belongs is a fault."""
    unmasked, masked = encode_frame(TEXT, b"hello"), encode_frame(TEXT, b"hello", MASK)
    assert masked != unmasked
    for frame, of_client in ((unmasked, False), (masked, True)):
        reader = FrameReader(LIMIT, of_client=of_client)
        reader.feed(frame)
        assert reader.next() == Received(TEXT, b"hello")
    reader = FrameReader(LIMIT, of_client=False)
    reader.feed(masked)
    with pytest.raises(FrameError):
        reader.next()
