"""One after the other: nobody calls an upstream for a session before those who did have gone."""

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream

PREDECESSOR_S: Final = 10.0
"""How long a turn waits for those before it to be gone."""


class Leaving(Protocol):
    """Work that has been told to stop."""

    @property
    def gone(self) -> trio.Event:
        """Set when nothing of it runs any more."""


async def await_all_gone(predecessors: Sequence[Leaving]) -> ProviderError | None:
    """Wait until they are; gives an error if that takes too long."""
    if not predecessors:
        return None
    with trio.move_on_after(PREDECESSOR_S):
        for predecessor in predecessors:
            await predecessor.gone.wait()
        return None
    return ProviderError(
        Upstream.CHAT, ProviderFault.STALLED, "The turn before could not be stopped in time."
    )
