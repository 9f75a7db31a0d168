"""Writing to sockets without a turn of the scheduler.

Trio's own `send` lets all other tasks run before it returns, also when the kernel took everything at once, as
it nearly always does: each message costs a second step of its task, and another look at all sockets.
"""

import os

import trio


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

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for data."""
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()
