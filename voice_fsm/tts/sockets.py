"""Sockets that are open before the reply that they serve, and after it wait for another.

Each lives in a task of the provider's nursery. It is claimed by at most one reply at a time, and either given
back after it, to serve another, or closed.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final, Generic, TypeVar

import structlog
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import RefusedError, provider_error
from voice_fsm.upstream.websocket import open_websocket

log = structlog.get_logger()

K = TypeVar("K")
OpenSocket = Callable[[K], AbstractAsyncContextManager[UpstreamSocket]]

_PROBE_EVERY_S: Final = 10.0
_PONG_S: Final = 3.0
_GONE_S: Final = 0.5
"""How long a reply waits for its socket to be closed; the close itself takes 0.1 s at most."""


@asynccontextmanager
async def open_speech_socket(
    url: str,
    headers: Mapping[str, str],
    connect_s: float,
    explain: Callable[[RefusedError], ProviderError],
) -> AsyncIterator[UpstreamSocket]:
    """Open a socket within ``connect_s``.

    Raises:
        ProviderError: on entering; of a refusal, what ``explain`` makes of it.
    """
    connecting = trio.CancelScope(deadline=trio.current_time() + connect_s)
    with connecting:
        try:
            async with open_websocket(
                url, upstream=Upstream.TTS, headers=list(headers.items())
            ) as connection:
                connecting.deadline = math.inf
                yield connection
        except RefusedError as refusal:
            raise explain(refusal) from None
    if connecting.cancelled_caught:
        raise provider_error(Upstream.TTS, ProviderFault.TIMEOUT)


class SpeechSocket(Generic[K]):
    """One socket: being opened, idle, claimed, in use, gone."""

    def __init__(self, key: K, idle_s: float, overhear: "Overhear[K]") -> None:
        self.key = key
        """What all replies over it have in common."""
        self.born_s = trio.current_time()
        self.sent: deque[tuple[float, int]] = deque()
        """When text was sent over it, and how many characters."""
        self.unfinished: set[str] = set()
        """What was begun over it and has not ended, by its id."""
        self._idle_s = idle_s
        self._overhear = overhear
        self._connection: UpstreamSocket | None = None
        self._failure: Exception = provider_error(Upstream.TTS, ProviderFault.LOST)
        self._claimed = False
        self._in_use = False
        self._speak: Speak | None = None
        self._speaking = trio.CancelScope()
        self._is_silent = trio.Event()
        self._returned = trio.Event()
        self._settled = trio.Event()
        self._gone = trio.Event()
        self._life = trio.CancelScope()
        self._idle = trio.CancelScope()

    @property
    def is_usable(self) -> bool:
        """Whether it is open, or still being opened."""
        if self._connection is None:
            return not self._settled.is_set()
        return self._connection.closed is None and not self._gone.is_set()

    @property
    def was_lost(self) -> bool:
        """Whether it was open, and no longer is."""
        return self._connection is not None and not self.is_usable

    async def connection(self, speak: "Speak") -> UpstreamSocket:
        """Wait until it is open, and use it: its own task will ``speak``, and look after it no longer.

        Raises:
            ProviderError: it could not be opened.
        """
        if not self._settled.is_set():
            await self._settled.wait()
        if self._connection is None:
            raise self._failure
        self._in_use = True
        self._speak = speak
        self._speaking = trio.CancelScope()
        self._is_silent = trio.Event()
        self._idle.cancel()
        return self._connection

    @property
    def is_silent(self) -> bool:
        """Whether all has been said."""
        return self._is_silent.is_set()

    async def fall_silent(self) -> None:
        """Say nothing more of what is being said over it."""
        self._speaking.cancel()
        await self._is_silent.wait()

    def claim(self) -> None:
        """Keep it until it is given back or released, however old it gets."""
        self._claimed = True
        self._idle.deadline = math.inf

    def give_back(self) -> None:
        """Let it wait for another reply."""
        self._claimed = False
        self._idle.deadline = trio.current_time() + self._idle_s
        if self._in_use:
            self._in_use = False
            self._returned.set()

    async def release(self) -> None:
        """Close it at once, and wait until that is done."""
        self._life.cancel()
        with trio.move_on_after(_GONE_S, shield=True):
            await self._gone.wait()

    async def live(self, open_socket: OpenSocket[K]) -> None:
        """Be that socket."""
        try:
            with self._life:
                async with open_socket(self.key) as self._connection:
                    self._settled.set()
                    await self._serve(self._connection)
        except Exception as error:  # noqa: BLE001  # raised again where it is claimed, be it a fault of ours
            self._failure = error
            log.info("tts_socket_failed", error=type(error).__name__, code=getattr(error, "code", None))
        finally:
            self._settled.set()
            self._gone.set()

    async def _serve(self, connection: UpstreamSocket) -> None:
        """Be idle and in use by turns, until it has been idle for too long."""
        while True:
            if self._speak is not None:
                await self._say(self._speak, connection)
            elif self._in_use:
                await self._returned.wait()
                self._returned = trio.Event()
            elif await self._ends_idle(connection):
                return

    async def _say(self, speak: "Speak", connection: UpstreamSocket) -> None:
        try:
            with self._speaking:
                await speak(connection)
        finally:
            self._speak = None
            self._is_silent.set()

    async def _ends_idle(self, connection: UpstreamSocket) -> bool:
        """Wait to be used; true if it is too old by then, or no longer answers.

        What comes meanwhile belongs to replies that are over; left unread, it would keep a close from being
        seen.
        """
        idle_until_s = math.inf if self._claimed else trio.current_time() + self._idle_s
        with trio.CancelScope(deadline=idle_until_s) as self._idle:
            with suppress(ConnectionClosed, trio.TooSlowError):
                await connection.watch(_PROBE_EVERY_S, _PONG_S, partial(self._overhear, self))
            return True
        return trio.current_time() >= self._idle.deadline


Speak = Callable[[UpstreamSocket], Awaitable[None]]
"""Sends the text of a reply."""
Overhear = Callable[[SpeechSocket[K], str | bytes], None]
"""Told what comes over a socket that no reply reads; if it raises, the socket is closed."""


def _ignore(_socket: SpeechSocket[K], _message: str | bytes) -> None:
    pass


class SocketPool(Generic[K]):
    """All sockets of a provider that are not gone."""

    def __init__(
        self,
        nursery: trio.Nursery,
        open_socket: OpenSocket[K],
        *,
        max_idle: int,
        idle_s: float,
        suits: Callable[[SpeechSocket[K]], bool] = lambda _: True,
        overhear: Overhear[K] = _ignore,
    ) -> None:
        """``suits`` says whether a socket may serve another reply."""
        self._nursery = nursery
        self._open_socket = open_socket
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._suits = suits
        self._overhear = overhear
        self._idle: list[SpeechSocket[K]] = []

    @property
    def idle_count(self) -> int:
        """How many wait to be claimed, those still being opened included."""
        return len(self._idle)

    def prewarm(self, key: K) -> None:
        """Open one in the background, unless one is ready or about to be."""
        if len(self._idle) < self._max_idle and not self.has(key):
            self._idle.append(self._start(key))

    def has(self, key: K) -> bool:
        """Whether one is ready, or about to be."""
        return self._find(key) is not None

    def claim(self, key: K) -> SpeechSocket[K]:
        """Take the one that was idle last, or have a new one opened.

        The caller gives it back or releases it.
        """
        socket = self._find(key)
        if socket is None:
            socket = self._start(key)
        else:
            self._idle.remove(socket)
        socket.claim()
        return socket

    async def give_back(self, socket: SpeechSocket[K]) -> None:
        """Keep a claimed socket for another reply, unless enough are idle already."""
        if socket.is_usable and len(self._idle) < self._max_idle and self._suits(socket):
            self._idle.append(socket)
            socket.give_back()
        else:
            await socket.release()

    def _find(self, key: K) -> SpeechSocket[K] | None:
        for socket in reversed(self._idle):
            if socket.key == key and socket.is_usable and self._suits(socket):
                return socket
        return None

    def _start(self, key: K) -> SpeechSocket[K]:
        socket = SpeechSocket(key, self._idle_s, self._overhear)
        self._nursery.start_soon(self._run, socket)
        return socket

    async def _run(self, socket: SpeechSocket[K]) -> None:
        try:
            await socket.live(self._open_socket)
        finally:
            if socket in self._idle:
                self._idle.remove(socket)
