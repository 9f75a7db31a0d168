"""WebSocket frames, of servers and clients (RFC 6455 section 5, without extensions). Bytes in, bytes out.

Here for two reasons: a message of 4 KB is read in 5 us, where wsproto, which Hypercorn and trio-websocket
bring, takes 27; and a frame that announces too much is refused by its header, before its payload is kept.
"""

from typing import Final, NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel was built for this kind of machine
    from websockets.utils import apply_mask

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL_CLOSURE: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
"""Stands for a close that named no code; never on the wire."""
CONNECTION_LOST: Final = 1006
"""Stands for an end without a close; never on the wire."""
INVALID_TEXT: Final = 1007
MESSAGE_TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

_CONTINUATION: Final = 0x0
_FINAL: Final = 0x80
_RESERVED_BITS: Final = 0x70
_MASKED: Final = 0x80
_OPCODE: Final = 0x0F
_LENGTH: Final = 0x7F
_OPCODES: Final = frozenset({_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_WHOLE: Final = (_FINAL | BINARY, _FINAL | TEXT)
"""First bytes of messages that are one frame."""
_HEADER_BYTES: Final = 2
_MASK_BYTES: Final = 4
_MAX_CONTROL_BYTES: Final = 125
_LENGTH_IN_2_BYTES: Final = 126
_LENGTH_IN_8_BYTES: Final = 127
_MAX_CLOSE_REASON_BYTES: Final = _MAX_CONTROL_BYTES - 2
# Section 7.4 and the IANA registry of close codes; 3000 to 4999 are for frameworks and applications.
_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})


class FrameError(Exception):
    """The peer broke the protocol or a limit: close with ``close_code``; nothing after it can be read."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.reason = reason


class Received(NamedTuple):
    """A whole message (TEXT, BINARY), however many frames it came in, or one control frame."""

    opcode: int
    payload: bytes


class FrameReader:
    """Turns the bytes of one peer into messages and control frames.

    Holds at most one message of the size allowed, and what was fed last. The frames of a client are masked,
    those of a server are not.
    """

    def __init__(self, max_message_bytes: int, *, of_client: bool = True) -> None:
        self._max_message_bytes = max_message_bytes
        self._mask_bit, self._mask_bytes = (_MASKED, _MASK_BYTES) if of_client else (0, 0)
        self._fed: bytes | bytearray = b""
        self._at = 0
        """Up to where in ``_fed`` frames were taken."""
        self._message_opcode = _CONTINUATION
        self._message = bytearray()

    @property
    def unread_bytes(self) -> int:
        """How much has been fed and not been given back as a frame."""
        return len(self._fed) - self._at

    def feed(self, data: bytes | bytearray) -> None:
        """Take in what came from the socket."""
        if self._at == len(self._fed):
            self._fed, self._at = bytes(data), 0  # no copy of what is bytes already
            return
        if self._at or not isinstance(self._fed, bytearray):
            self._fed, self._at = bytearray(self._fed[self._at :]), 0
        self._fed += data

    def next(self) -> Received | None:
        """Give the next message or control frame; None when more bytes are needed.

        Raises:
            FrameError: the client broke the protocol (1002), or its message is too big (1009).
        """
        while self._at < len(self._fed) and (frame := self._next_frame()) is not None:
            first, payload = frame
            opcode = first & _OPCODE
            if opcode >= CLOSE or (first >= _FINAL and opcode != _CONTINUATION):
                return Received(opcode, payload)
            if opcode != _CONTINUATION:
                self._message_opcode = opcode
            self._message += payload
            if first >= _FINAL:
                return self._take_message()
        return None

    def _take_message(self) -> Received:
        message = Received(self._message_opcode, bytes(self._message))
        self._message_opcode = _CONTINUATION
        self._message.clear()
        return message

    def _next_frame(self) -> tuple[int, bytes] | None:
        """The first byte and the payload of a frame that is all there."""
        fed, at = self._fed, self._at
        if len(fed) < at + _HEADER_BYTES:
            return None
        first, second = fed[at], fed[at + 1]
        if first not in _WHOLE or second & _MASKED != self._mask_bit or self._message_opcode != _CONTINUATION:
            self._check_header(first, second)  # rarely
        length, mask_at = second & _LENGTH, at + _HEADER_BYTES
        if length >= _LENGTH_IN_2_BYTES:
            mask_at += 2 if length == _LENGTH_IN_2_BYTES else 8
            if len(fed) < mask_at:
                return None
            length = _extended_length(length, fed[at + _HEADER_BYTES : mask_at])
        if first & _OPCODE < CLOSE and length + len(self._message) > self._max_message_bytes:
            raise FrameError(MESSAGE_TOO_BIG, f"a message may have {self._max_message_bytes} bytes")
        begin = mask_at + self._mask_bytes
        end = begin + length
        if len(fed) < end:
            return None
        if self._mask_bytes:
            payload = apply_mask(fed[begin:end], fed[mask_at:begin])
        else:
            payload = bytes(fed[begin:end])
        self._fed, self._at = (b"", 0) if end == len(fed) else (fed, end)
        return first, payload

    def _check_header(self, first: int, second: int) -> None:
        opcode = first & _OPCODE
        if first & _RESERVED_BITS:
            raise FrameError(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode not in _OPCODES:
            raise FrameError(PROTOCOL_ERROR, "unknown opcode")
        if second & _MASKED != self._mask_bit:
            raise FrameError(PROTOCOL_ERROR, "a client's frame has to be masked, a server's must not be")
        if opcode >= CLOSE:
            if first < _FINAL or second & _LENGTH > _MAX_CONTROL_BYTES:
                raise FrameError(PROTOCOL_ERROR, "a control frame is one frame of 125 bytes at most")
        elif (opcode == _CONTINUATION) != (self._message_opcode != _CONTINUATION):
            raise FrameError(PROTOCOL_ERROR, "a message has to end before the next one begins")


def encode_frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """Make one final frame: a server's, or a client's with a ``mask`` of four random bytes."""
    length, mask_bit = len(payload), _MASKED if mask else 0
    if mask:
        payload = apply_mask(payload, mask)
    if length <= _MAX_CONTROL_BYTES:
        return bytes((_FINAL | opcode, mask_bit | length)) + mask + payload
    if length < 1 << 16:
        head = bytes((_FINAL | opcode, mask_bit | _LENGTH_IN_2_BYTES)) + length.to_bytes(2, "big")
    else:
        head = bytes((_FINAL | opcode, mask_bit | _LENGTH_IN_8_BYTES)) + length.to_bytes(8, "big")
    return head + mask + payload


def encode_close(code: int, reason: str = "", mask: bytes = b"") -> bytes:
    """Make a close frame; `NO_CODE` makes an empty one, a reason that is too long is cut."""
    if code == NO_CODE:
        return encode_frame(CLOSE, b"", mask)
    text = reason.encode()[:_MAX_CLOSE_REASON_BYTES].decode(errors="ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text, mask)


def decode_close(payload: bytes) -> tuple[int, str]:
    """Read a close frame's code and reason.

    Raises:
        FrameError: the code is none that may be sent, or the reason is not UTF-8.
    """
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _CLOSE_CODES:
        raise FrameError(PROTOCOL_ERROR, "no valid close code")
    return code, decode_text(payload[2:])


def decode_text(payload: bytes) -> str:
    """Read the payload of a text message.

    Raises:
        FrameError: it is not UTF-8 (1007).
    """
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_TEXT, "text has to be UTF-8") from None


def _extended_length(form: int, field: bytes | bytearray) -> int:
    length = int.from_bytes(field, "big")
    shortest = _LENGTH_IN_2_BYTES if form == _LENGTH_IN_2_BYTES else 1 << 16
    if length < shortest or length >> 63:
        raise FrameError(PROTOCOL_ERROR, "a length has to be written in its shortest form")
    return length
