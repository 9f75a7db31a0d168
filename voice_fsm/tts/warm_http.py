"""A connection that is there before the request that needs it, for services without a WebSocket."""

import math
from contextlib import suppress
from typing import Final

import httpx
import trio

from voice_fsm.errors import ProviderError, Upstream
from voice_fsm.upstream.http import Deadlines, ask

_STAYS_WARM_S: Final = 20.0
"""The pool, or the service, closes connections that are idle for longer; ours does after 30 s."""


class WarmConnection:
    """Keeps one connection to a service in its client's pool, by asking for nothing in particular."""

    def __init__(
        self, nursery: trio.Nursery, client: httpx.AsyncClient, url: str, deadlines: Deadlines
    ) -> None:
        self._nursery = nursery
        self._client = client
        self._url = url
        self._deadlines = deadlines
        self._used_at_s = -math.inf

    def was_used(self) -> None:
        """A connection has gone back to the pool."""
        self._used_at_s = trio.current_time()

    def prewarm(self) -> None:
        """Connect in the background, unless a connection is there or on its way."""
        if trio.current_time() - self._used_at_s > _STAYS_WARM_S:
            self.was_used()
            self._nursery.start_soon(self._connect)

    async def _connect(self) -> None:
        # Whatever the answer, if any: the connection is all that is wanted.
        with suppress(ProviderError):
            request = self._client.build_request("HEAD", self._url)
            async with ask(self._client, request, upstream=Upstream.TTS, deadlines=self._deadlines):
                pass
