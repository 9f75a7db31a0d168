"""Sockets opened ahead of the speech that will need them, so that no handshake is waited for.

Each lives in a task of the provider's nursery, is claimed by at most one reply, and is closed after it: the
service ends a socket's stream with the reply, so it could not serve another.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

import structlog
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.elevenlabs_wire import (
    Voice,
    credentials,
    error_of_close,
    error_of_refusal,
    opening_message,
    socket_url,
)
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import RefusedError, provider_error
from voice_fsm.upstream.websocket import open_websocket

log = structlog.get_logger()

OpenSocket = Callable[[Voice], AbstractAsyncContextManager[UpstreamSocket]]

_PROBE_EVERY_S: Final = 10.0
_PONG_S: Final = 3.0
_GONE_S: Final = 0.5
"""How long a reply waits for its socket to be closed; the close itself takes 0.1 s at most."""


@asynccontextmanager
async def open_socket(
    base_url: str, api_key: str, connect_s: float, voice: Voice
) -> AsyncIterator[UpstreamSocket]:
    """Open a socket and begin its stream, so that nothing but text is left to send.

    Raises:
        ProviderError: on entering.
    """
    connecting = trio.CancelScope(deadline=trio.current_time() + connect_s)
    with connecting:
        async with _agreed_websocket(socket_url(base_url, voice), api_key) as connection:
            try:
                await connection.send_message(opening_message(voice))
            except ConnectionClosed as closed:
                raise error_of_close(closed) from None
            connecting.deadline = math.inf
            yield connection
    if connecting.cancelled_caught:
        raise provider_error(Upstream.TTS, ProviderFault.TIMEOUT)


@asynccontextmanager
async def _agreed_websocket(url: str, api_key: str) -> AsyncIterator[UpstreamSocket]:
    headers = list(credentials(api_key).items())
    try:
        async with open_websocket(url, upstream=Upstream.TTS, headers=headers) as connection:
            yield connection
    except RefusedError as refusal:
        raise error_of_refusal(refusal) from None


class WarmSocket:
    """One socket: being opened, idle, claimed, gone."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self._connection: UpstreamSocket | None = None
        self._failure: Exception = provider_error(Upstream.TTS, ProviderFault.LOST)
        self._claimed = False
        self._settled = trio.Event()
        self._gone = trio.Event()
        self._life = trio.CancelScope()
        self._unused = trio.CancelScope()

    @property
    def is_usable(self) -> bool:
        """Whether it is open, or still being opened."""
        if self._connection is None:
            return not self._settled.is_set()
        return self._connection.closed is None and not self._gone.is_set()

    async def connection(self) -> UpstreamSocket:
        """Wait until it is open.

        Raises:
            ProviderError: it could not be opened.
        """
        await self._settled.wait()
        self._unused.cancel()
        if self._connection is None:
            raise self._failure
        return self._connection

    async def release(self) -> None:
        """Close it at once, and wait until that is done."""
        self._life.cancel()
        with trio.move_on_after(_GONE_S, shield=True):
            await self._gone.wait()

    def claim(self) -> None:
        """Keep it until it is released, however old it gets."""
        self._claimed = True
        self._unused.deadline = math.inf

    async def live(self, open_socket: OpenSocket, idle_s: float) -> None:
        """Be that socket."""
        try:
            with self._life:
                async with open_socket(self.voice) as self._connection:
                    self._settled.set()
                    await self._stay_warm(self._connection, idle_s)
                    if self._claimed:
                        await trio.sleep_forever()
        except Exception as error:  # noqa: BLE001  # raised again where it is claimed, be it a fault of ours
            self._failure = error
            log.info("tts_socket_failed", error=type(error).__name__, code=getattr(error, "code", None))
        finally:
            self._settled.set()
            self._gone.set()

    async def _stay_warm(self, connection: UpstreamSocket, idle_s: float) -> None:
        """Look after it until it is used, or too old to be claimed, or no longer answers."""
        if not self._claimed:
            self._unused.deadline = trio.current_time() + idle_s
        with self._unused, suppress(ConnectionClosed, trio.TooSlowError):
            await connection.watch(_PROBE_EVERY_S, _PONG_S)


class WarmSockets:
    """All sockets of the provider that are not gone."""

    def __init__(
        self, nursery: trio.Nursery, open_socket: OpenSocket, *, max_idle: int, idle_s: float
    ) -> None:
        self._nursery = nursery
        self._open_socket = open_socket
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._idle: list[WarmSocket] = []

    @property
    def idle_count(self) -> int:
        """How many wait to be claimed, those still being opened included."""
        return len(self._idle)

    def prewarm(self, voice: Voice) -> None:
        """Open one in the background, unless enough are idle already."""
        if len(self._idle) < self._max_idle:
            self._idle.append(self._start(voice))

    def has(self, voice: Voice) -> bool:
        """Whether one is ready, or about to be, for this voice."""
        return any(socket.voice == voice and socket.is_usable for socket in self._idle)

    def claim(self, voice: Voice) -> WarmSocket:
        """Take the youngest for this voice, or have a new one opened. The caller releases it."""
        for socket in reversed(self._idle):
            if socket.voice == voice and socket.is_usable:
                self._idle.remove(socket)
                socket.claim()
                return socket
        socket = self._start(voice)
        socket.claim()
        return socket

    def _start(self, voice: Voice) -> WarmSocket:
        socket = WarmSocket(voice)
        self._nursery.start_soon(self._run, socket)
        return socket

    async def _run(self, socket: WarmSocket) -> None:
        try:
            await socket.live(self._open_socket, self._idle_s)
        finally:
            if socket in self._idle:
                self._idle.remove(socket)
