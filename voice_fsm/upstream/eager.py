"""Sockets read and written with as few turns of the scheduler, and as few system calls, as it takes.

Trio's own `send` lets all other tasks run before it returns, also when the kernel took everything at once, as
it nearly always does: each message costs a second step of its task, and another look at all sockets. Its
`recv` tries to read before it waits, in vain where a message is awaited.
"""

import os
from typing import Final

import trio

_READ_BYTES: Final = 64 * 1024


def write_now(socket: trio.socket.SocketType, data: bytes | bytearray | memoryview) -> int:
    """Write what the socket takes at once; gives how many bytes that were, maybe none.

    No checkpoint, and not while another task is sending.

    Raises:
        OSError: the connection is broken, or closed.
    """
    try:
        return os.write(socket.fileno(), data)
    except BlockingIOError:
        return 0


async def read_when_ready(socket: trio.socket.SocketType, max_bytes: int) -> bytes:
    """Wait for data, and read it; empty at the end of the stream.

    Raises:
        OSError: the connection is broken.
        trio.ClosedResourceError: it is closed here, now or before.
    """
    descriptor = socket.fileno()
    if descriptor < 0:
        raise trio.ClosedResourceError
    while True:
        await trio.lowlevel.wait_readable(descriptor)  # ends with an error if it is closed meanwhile
        try:
            return os.read(descriptor, max_bytes)
        except BlockingIOError:
            pass  # somebody else has read it, or the kernel thought better of it


class EagerStream(trio.abc.HalfCloseableStream):
    """A TCP stream whose `send_all` is a checkpoint only where it has to wait, or has been cancelled."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; one task at a time."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            sent_bytes = write_now(self.socket, data)
        except OSError:
            sent_bytes = 0  # the stream itself says what that means
        if sent_bytes < len(data):
            await self._stream.send_all(memoryview(data)[sent_bytes:])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` might not have to."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data."""
        try:
            return await read_when_ready(self.socket, max_bytes or _READ_BYTES)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()
