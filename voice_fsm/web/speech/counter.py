"""How many may do a thing at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from voice_fsm.web.speech.refusals import RequestError

_RETRY_AFTER_S = 1.0


class Counter:
    """Lets ``limit`` in at a time; nobody waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.inside = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one for the block.

        Raises:
            RequestError: 429: there is no room.
        """
        if self.inside >= self._limit:
            raise RequestError(
                429,
                "too_many_concurrent_requests",
                f"This server does {self._limit} of these at a time. Try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
