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
        if socket.fileno() != descriptor:  # closed after we were woken; the number may be another's by now
            raise trio.ClosedResourceError
        try:
            return os.read(descriptor, max_bytes)
        except BlockingIOError:
            pass  # somebody else has read it, or the kernel thought better of it


class EagerStream(trio.abc.HalfCloseableStream):
    """A TCP stream that is written to without waiting, as far as the socket takes it.

    `send_all` is a checkpoint only where it has to wait, or has been cancelled. What is cancelled while it
    waits has been handed over nevertheless: it goes out with what is sent next.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self._unsent: bytes | memoryview = b""
        """What the socket has not taken yet, in order."""

    @property
    def is_flushed(self) -> bool:
        """Whether the socket has taken all that was handed over."""
        return not self._unsent

    def push(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over data; what the socket does not take at once goes out with the next call, or `send_all`.

        It may not change until then.

        Raises:
            trio.BrokenResourceError: the peer takes no more.
            trio.ClosedResourceError: the stream is closed.
        """
        if data:
            self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)
        if not self._unsent:
            return
        try:
            self._unsent = self._unsent[write_now(self.socket, self._unsent) :] or b""
        except OSError as error:
            closed_here = self.socket.fileno() < 0
            raise (trio.ClosedResourceError if closed_here else trio.BrokenResourceError) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, what was handed over before first."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.push(data)
        while self._unsent:
            await trio.lowlevel.wait_writable(self.socket)
            self.push(b"")

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
        await self.send_all(b"")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()
