"""Just enough of WebSocket (RFC 6455) for a peer that trusts the other."""

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import Final

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK_BIT: Final = 0x80
_SHORT: Final = 125
_MEDIUM: Final = 126
_MEDIUM_MAX: Final = 0xFFFF


def accept_key(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324  # the protocol's own


def frame(opcode: int, payload: bytes, *, masked: bool = False) -> bytes:
    """One whole message; a mask of zeros leaves the payload as it is."""
    mask_bit = _MASK_BIT if masked else 0
    size = len(payload)
    if size <= _SHORT:
        head = struct.pack(">BB", 0x80 | opcode, mask_bit | size)
    elif size <= _MEDIUM_MAX:
        head = struct.pack(">BBH", 0x80 | opcode, mask_bit | _MEDIUM, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, mask_bit | (_MEDIUM + 1), size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload (unmasked) of each frame that is complete."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 2:
            size, head = buffer[1] & ~_MASK_BIT, 2
            if size == _MEDIUM:
                if len(buffer) < 4:
                    return
                size, head = int.from_bytes(buffer[2:4], "big"), 4
            elif size > _MEDIUM:
                if len(buffer) < 10:
                    return
                size, head = int.from_bytes(buffer[2:10], "big"), 10
            mask = b""
            if buffer[1] & _MASK_BIT:
                mask = bytes(buffer[head : head + 4])
                head += 4
            if len(buffer) < head + size:
                return
            opcode = buffer[0] & 0x0F
            payload = bytes(buffer[head : head + size])
            del buffer[: head + size]
            yield opcode, _unmask(payload, mask) if any(mask) else payload


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ repeated).to_bytes(size, "big")
