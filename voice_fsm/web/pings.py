"""When each WebSocket client is pinged, by one task for all: one for each took 4 KB a connection."""

from collections import OrderedDict
from typing import Protocol

import trio


class Pingable(Protocol):
    """A connection whose client is pinged."""

    async def ping(self) -> None:
        """Ping the client; never waits for it."""


class Pings:
    """Pings each connection again and again, at its own time."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s: OrderedDict[Pingable, float] = OrderedDict()
        """Those due first come first, since all wait equally long."""

    def add(self, connection: Pingable) -> None:
        """Ping this one too, for the first time after one interval."""
        self._due_s[connection] = trio.current_time() + self._every_s

    def discard(self, connection: Pingable) -> None:
        """Do not ping it any more."""
        self._due_s.pop(connection, None)

    async def run(self) -> None:
        """Ping; never returns."""
        while True:
            connection, due_s = next(iter(self._due_s.items()), (None, trio.current_time() + self._every_s))
            await trio.sleep_until(due_s)
            if connection is not None and self._due_s.pop(connection, None) is not None:
                self.add(connection)
                await connection.ping()
