"""One thread at a time into an engine that takes no more, in order of arrival."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

import trio

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Turnstile:
    """Whose turn it is to use the engine, and how long the others have waited."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._arrivals_s: dict[object, float] = {}

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the engine and keep it for the body."""
        visit = object()
        self._arrivals_s[visit] = trio.current_time()
        try:
            await self._lock.acquire()
        finally:
            del self._arrivals_s[visit]
        try:
            yield
        finally:
            self._lock.release()

    async def call(self, function: Callable[[*_Args], _T], *args: *_Args) -> _T:
        """Call ``function`` in the engine's thread, in one's turn. Once begun, it is not cancelled."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    @property
    def is_contended(self) -> bool:
        """Whether somebody waits for the engine."""
        return bool(self._arrivals_s)

    @property
    def longest_wait_s(self) -> float:
        """How long the one that waits longest has waited by now; 0 when nobody waits."""
        return max(0.0, trio.current_time() - min(self._arrivals_s.values(), default=math.inf))
