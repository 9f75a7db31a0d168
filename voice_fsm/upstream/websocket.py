"""WebSocket connections to upstreams: opened, held and closed so that nothing is left behind.

    async with open_websocket(url, upstream=Upstream.STT, headers=[("xi-api-key", key)]) as connection:
        await connection.send_message(...)
        await connection.get_message()

The handshake is trio-websocket's; the frames after it are `UpstreamSocket`'s. What version 0.12.2 leaves to
its user is done here:

- it waits for ever when the peer hangs up in the middle of the opening handshake, and loses the status of
  a refusal whose body is ended by hanging up: `_UpgradeStream` reads the answer along with it;
- its reader task can fail: `_shake_hands` ends such failures, and the attempt with them.
"""

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.metadata import version
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

import attrs
import certifi
import h11
import structlog
import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.connection import READ_BYTES, UpstreamSocket
from voice_fsm.upstream.eager import EagerStream
from voice_fsm.upstream.faults import provider_error, refused
from voice_fsm.upstream.tls import TlsStream

log = structlog.get_logger()

Dial = Callable[[str, int], Awaitable[trio.abc.HalfCloseableStream]]
"""Opens the stream to a host and port, an `EagerStream` if TLS is to be spoken on it; raises OSError."""

_GOODBYE_S: Final = 1.0
"""How long the peer may take to answer our close frame."""
_HASTY_GOODBYE_S: Final = 0.1
"""The same when we are cancelled and somebody waits for us to be gone."""
_UNACKNOWLEDGED_S: Final = 15.0
"""How long sent bytes may stay unacknowledged before the peer's host counts as gone."""
_REFUSAL_S: Final = 1.0
_MAX_REFUSAL_BYTES: Final = 32 * 1024
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
_WS_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

_USER_AGENT: Final = f"voice-fsm/{version('voice-fsm')}"
_REDIRECTION: Final = 300
_UPGRADE_REQUEST: Final = h11.Request(
    method="GET", target="/", headers=[("Host", "-"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
)
"""Tells h11 only what kind of answer to expect; the real request is trio-websocket's."""

_CLOSE_FAULTS: Final = {
    1002: ProviderFault.BAD_RESPONSE,
    1003: ProviderFault.BAD_RESPONSE,
    1007: ProviderFault.BAD_RESPONSE,
    1008: ProviderFault.REJECTED,
    1009: ProviderFault.BAD_RESPONSE,
    1010: ProviderFault.BAD_RESPONSE,
    1011: ProviderFault.SERVER_ERROR,
    1012: ProviderFault.OVERLOADED,
    1013: ProviderFault.OVERLOADED,
}


def derive_ws_url(base_url: str) -> str:
    """Turn an upstream's base address (http, https, ws or wss) into the WebSocket one, path prefix kept.

    The result has no trailing slash, so that a path can be put after it.

    Raises:
        ValueError: it is no such address; the message does not quote it, for it may hold credentials.
    """
    parts = urlsplit(base_url.strip())
    scheme = _WS_SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ValueError("a base address begins with http://, https://, ws:// or wss://")
    if not parts.hostname or not _is_host(parts.hostname) or parts.port == 0:
        raise ValueError("a base address names a host, and a port if it is not the usual one")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a base address has no user, no query and no fragment")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"


@cache
def default_tls_context() -> ssl.SSLContext:
    """Make the TLS context that trusts the system's authorities and certifi's; it is made once (90 ms).

    Nothing is negotiated anew in the middle of a connection: while it is, nothing can be sent.
    """
    context = ssl.create_default_context()
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial_tcp(host: str, port: int, *, send_buffer_bytes: int | None = None) -> EagerStream:
    """Open a TCP stream (Trio sets TCP_NODELAY) which notices within a quarter minute that the host is gone.

    ``send_buffer_bytes`` is how much the kernel may take that the host has not; ``None``: as it thinks fit.

    Raises:
        OSError: no address of this host answers.
    """
    try:
        stream = await trio.open_tcp_stream(host, port)
    except UnicodeError as error:  # such as an empty label, or one too long
        raise OSError("no host can have this name") from error
    if send_buffer_bytes is not None:
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, send_buffer_bytes)
    if hasattr(trio.socket, "TCP_USER_TIMEOUT"):  # pragma: no branch  # Linux only
        patience_ms = int(_UNACKNOWLEDGED_S * 1000)
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_USER_TIMEOUT, patience_ms)
    return EagerStream(stream)


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    upstream: Upstream,
    headers: Sequence[tuple[str, str]] = (),
    max_message_bytes: int = 16 * 1024 * 1024,
    tls: ssl.SSLContext | None = None,
    dial: Dial = dial_tcp,
) -> AsyncIterator[UpstreamSocket]:
    """Open a WebSocket; entering waits for the handshake, leaving closes it in bounded time.

    The caller sets the deadline of entering. In the context, `ConnectionClosed` tells that the connection
    ended; `closed_error` turns it into a `ProviderError`. Exceptions of the body leave ungrouped.

    Raises:
        ProviderError: on entering: UNREACHABLE, BAD_RESPONSE, or what the refusal's status says, as a
            `RefusedError` with ``retry_after_s`` and the codes of its body.
    """
    request = _Request(upstream, urlsplit(url), _encode_headers(headers, upstream), max_message_bytes)
    async with _open_stream(request, tls, dial) as stream:
        early = await _shake_hands(stream, request)
        connection = UpstreamSocket(stream, early, max_message_bytes)
        try:
            yield connection
        finally:
            await _say_goodbye(connection)


@asynccontextmanager
async def background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that serve the body: cancelled when it ends, and never grouping its exceptions.

    The tasks may not raise. Should one nevertheless, the body is cancelled and the group leaves.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:  # noqa: BLE001  # raised again outside of the nursery
            failure = error
        nursery.cancel_scope.cancel(reason="the body has ended")
    if failure is not None:
        raise failure


def closed_error(upstream: Upstream, closed: ConnectionClosed) -> ProviderError:
    """Make the error of a connection that the peer ended while more was expected, by its close code."""
    code = closed.reason.code if closed.reason is not None else None
    fault = ProviderFault.LOST if code is None else _CLOSE_FAULTS.get(code, ProviderFault.LOST)
    return provider_error(upstream, fault, status=code)


@attrs.frozen
class _Request:
    """What is asked of whom."""

    upstream: Upstream
    address: SplitResult
    headers: list[tuple[bytes, bytes]] = attrs.field(repr=False)
    max_message_bytes: int

    @property
    def host(self) -> str:
        return self.address.hostname or ""

    @property
    def port(self) -> int:
        return self.address.port or _DEFAULT_PORTS[self.address.scheme]

    @property
    def host_header(self) -> str:
        """The host, and the port unless it is the usual one (RFC 6455, section 4.1)."""
        return self.address.netloc.removesuffix(f":{_DEFAULT_PORTS[self.address.scheme]}")

    @property
    def target(self) -> str:
        query = f"?{self.address.query}" if self.address.query else ""
        return f"{self.address.path or '/'}{query}"


@asynccontextmanager
async def _open_stream(
    request: _Request, tls: ssl.SSLContext | None, dial: Dial
) -> AsyncIterator[trio.abc.Stream]:
    try:
        stream: trio.abc.Stream = await dial(request.host, request.port)
    except OSError as error:
        raise provider_error(request.upstream, ProviderFault.UNREACHABLE) from error
    try:
        if request.address.scheme == "wss":
            stream = await _start_tls(cast(EagerStream, stream), request, tls or default_tls_context())
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def _start_tls(tcp: EagerStream, request: _Request, tls: ssl.SSLContext) -> TlsStream:
    try:
        return await TlsStream.open(tcp, tls, request.host)
    except trio.BrokenResourceError as error:
        raise provider_error(request.upstream, ProviderFault.UNREACHABLE) from error


async def _shake_hands(stream: trio.abc.Stream, request: _Request) -> bytes:
    """Have trio-websocket do the opening handshake; gives what the peer sent right behind its answer.

    Raises:
        ProviderError: the peer did not agree.
    """
    handshake = trio.CancelScope()
    upgrade = _UpgradeStream(stream, request.upstream, handshake)
    agreed = False
    try:
        with handshake:
            async with trio.open_nursery() as nursery:
                await wrap_client_stream(
                    nursery,
                    upgrade,  # type: ignore[arg-type]  # asks for sockets, needs but a stream
                    request.host_header,
                    request.target,
                    extra_headers=request.headers,
                )
                agreed = True
                handshake.cancel()
    except* Exception as group:  # noqa: BLE001  # a dead reader is a failed handshake, whatever it died of
        log.debug("websocket_handshake_failed", errors=[type(error).__name__ for error in group.exceptions])
    await trio.lowlevel.checkpoint_if_cancelled()
    if not agreed:
        raise upgrade.failure
    return upgrade.early


async def _say_goodbye(connection: UpstreamSocket) -> None:
    """Do the closing handshake, briefly; the stream's owner cuts off what is left open."""
    hasty = trio.current_effective_deadline() == -math.inf
    with trio.move_on_after(_HASTY_GOODBYE_S if hasty else _GOODBYE_S, shield=hasty):
        await connection.aclose()


class _UpgradeStream(trio.abc.Stream):
    """The stream as trio-websocket sees it: the answer to the upgrade request, and nothing after that.

    If that is no agreement, ``failure`` says why and the handshake is cancelled.
    """

    def __init__(self, stream: trio.abc.Stream, upstream: Upstream, handshake: trio.CancelScope) -> None:
        self.failure = provider_error(upstream, ProviderFault.BAD_RESPONSE)
        self._stream = stream
        self._upstream = upstream
        self._handshake = handshake
        self._agreed = False
        self.early = b""
        """What came right behind the answer."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._give_up(provider_error(self._upstream, ProviderFault.UNREACHABLE))
            raise

    async def wait_send_all_might_not_block(self) -> None:  # pragma: no cover  # asked for, never called
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, _max_bytes: int | None = None) -> bytes | bytearray:
        if self._agreed:
            await trio.sleep_forever()
        try:
            answer, self.early = await _read_agreement(self._stream, self._upstream)
        except ProviderError as failure:
            self._give_up(failure)
            raise trio.BrokenResourceError from None
        self._agreed = True
        return answer

    async def aclose(self) -> None:
        """Close; before the handshake is over this means that trio-websocket found fault with the answer."""
        self._handshake.cancel()
        await self._stream.aclose()

    def _give_up(self, failure: ProviderError) -> None:
        self.failure = failure
        self._handshake.cancel()


async def _read_agreement(stream: trio.abc.Stream, upstream: Upstream) -> tuple[bytes, bytes]:
    """Read until the peer has switched protocols, as far as HTTP goes; gives its answer, and what is behind.

    Raises:
        ProviderError: it did not.
    """
    http = h11.Connection(h11.CLIENT)
    http.send(_UPGRADE_REQUEST)
    received = bytearray()
    try:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    raise provider_error(upstream, ProviderFault.UNREACHABLE)
                received += data
                http.receive_data(bytes(data))
            elif isinstance(event, h11.Response):
                raise await _refusal(event, http, stream, upstream)
            else:
                early, _ = http.trailing_data
                return bytes(received[: len(received) - len(early)]), early
    except h11.RemoteProtocolError:
        raise provider_error(upstream, ProviderFault.BAD_RESPONSE) from None
    except trio.BrokenResourceError as error:
        raise provider_error(upstream, ProviderFault.UNREACHABLE) from error


async def _refusal(
    response: h11.Response, http: h11.Connection, stream: trio.abc.Stream, upstream: Upstream
) -> ProviderError:
    if response.status_code < _REDIRECTION:
        return provider_error(upstream, ProviderFault.BAD_RESPONSE, status=response.status_code)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    body = bytearray()
    with trio.move_on_after(_REFUSAL_S), suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
        while len(body) < _MAX_REFUSAL_BYTES:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(READ_BYTES)))
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
    return refused(upstream, response.status_code, headers, bytes(body[:_MAX_REFUSAL_BYTES]))


def _encode_headers(headers: Sequence[tuple[str, str]], upstream: Upstream) -> list[tuple[bytes, bytes]]:
    if not all(value.isascii() and value.isprintable() for _, value in headers):
        raise provider_error(upstream, ProviderFault.AUTH_FAILED)
    return [
        (name.encode(), value.strip().encode()) for name, value in (("User-Agent", _USER_AGENT), *headers)
    ]


def _is_host(name: str) -> bool:
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False
