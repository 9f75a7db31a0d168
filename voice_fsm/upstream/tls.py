"""The client's end of TLS, written to without waiting.

Trio's `SSLStream` locks, and lets all other tasks run, at each record. Here records are made and read by
OpenSSL between two buffers in memory, which never waits, and an `EagerStream` does the rest.
"""

import ssl
from typing import Final

import idna
import trio

from voice_fsm.upstream.eager import EagerStream

_RECORD_BYTES: Final = 16 * 1024


class TlsStream(trio.abc.Stream):
    """TLS on a TCP stream; `open` agrees on it. The peer may end it without a word, as HTTP's do."""

    def __init__(self, tcp: EagerStream, context: ssl.SSLContext, host: str) -> None:
        self._tcp = tcp
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    @classmethod
    async def open(cls, tcp: EagerStream, context: ssl.SSLContext, host: str) -> "TlsStream":
        """Shake hands with the host, which has to be the one that its certificate names.

        Raises:
            trio.BrokenResourceError: there is no agreement, or the host is not trusted.
        """
        try:
            stream = cls(tcp, context, host if host.isascii() else idna.encode(host, uts46=True).decode())
        except (ValueError, TypeError) as error:  # no certificate can have this name
            raise trio.BrokenResourceError from error
        await stream._shake_hands()
        return stream

    @property
    def is_flushed(self) -> bool:
        """Whether the socket has taken all that was handed over."""
        return self._tcp.is_flushed

    @property
    def has_unread(self) -> bool:
        """Whether something has come that `receive_some` has not given yet."""
        return self._tls.pending() > 0 or self._incoming.pending > 0

    def push(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over data, as `EagerStream.push` does.

        Raises:
            trio.BrokenResourceError: the peer takes no more.
            trio.ClosedResourceError: the stream is closed.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        self._tcp.push(self._outgoing.read())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, what was handed over before first."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.push(data)
        await self._tcp.send_all(b"")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` might not have to."""
        await self._tcp.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data, a record at most."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._tcp.socket.fileno() < 0:
            raise trio.ClosedResourceError
        while True:
            try:
                return self._tls.read(max_bytes or _RECORD_BYTES)
            except ssl.SSLWantReadError:
                await self._receive()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Close the socket, without a word."""
        await self._tcp.aclose()

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._receive()
            except ssl.SSLError as error:
                self._tcp.push(self._outgoing.read())  # tells the peer why
                raise trio.BrokenResourceError from error
            else:
                break
        await self._tcp.send_all(self._outgoing.read())

    async def _receive(self) -> None:
        if self._outgoing.pending:
            self._tcp.push(self._outgoing.read())
        data = await self._tcp.receive_some()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
