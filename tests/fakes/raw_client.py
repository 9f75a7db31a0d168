"""A WebSocket client made of bytes, for what no well-behaved client would do."""

from typing import Final

import trio

UPGRADE: Final = (
    b"GET /v1/voice/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked_text(text: str) -> bytes:
    """A short text frame, masked with zeros."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


async def stall(stream: trio.SocketStream) -> None:
    """Ask for a long answer and read nothing of it."""
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    await stream.send_all(UPGRADE)
    await stream.receive_some()
    await stream.send_all(masked_text('{"type":"session.configure"}'))
    await stream.send_all(masked_text('{"type":"text.prompt","text":"Tell me a long story"}'))
