"""A circuit breaker: an upstream that keeps failing is left alone for a while, by all sessions at once.

Only faults that tell of the upstream's health count. A refused request or a wrong key says nothing about the
next caller's chances, and a cancelled call nothing at all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream

log = structlog.get_logger()

FAILURES: Final = 5
"""So many calls in a row have to fail."""
PAUSE_S: Final = 10.0
"""How long the upstream is left alone then; after that one call at a time tries it."""

_ILL: Final = frozenset(
    {
        ProviderFault.UNREACHABLE,
        ProviderFault.TIMEOUT,
        ProviderFault.STALLED,
        ProviderFault.SERVER_ERROR,
        ProviderFault.OVERLOADED,
        ProviderFault.LOST,
    }
)


class Breaker:
    """Shared by all calls to one upstream of the process; ``tell`` is told of each that fails."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        failures: int = FAILURES,
        pause_s: float = PAUSE_S,
        tell: Callable[[ProviderError], None] = lambda _: None,
    ) -> None:
        self._upstream = upstream
        self._max_failures = failures
        self._pause_s = pause_s
        self._tell = tell
        self._failures = 0
        self._last_fault = ProviderFault.OVERLOADED
        self._closed_until_s = float("-inf")
        self._probe: object | None = None
        """Stands for the call under way that finds out whether the upstream is back."""

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make one call inside.

        Raises:
            ProviderError: on entering: the upstream is being left alone, for the fault that it had last.
        """
        probe = self._admit()
        try:
            yield
        except ProviderError as error:
            self._failed(error)
            raise
        else:
            self.healthy()
        finally:
            if probe is not None and probe is self._probe:
                self._probe = None

    def healthy(self) -> None:
        """The upstream has answered as it should; a call that lasts may say so before it ends."""
        if self.is_open:
            log.info("upstream_recovered", upstream=self._upstream)
        self._failures = 0
        self._probe = None

    @property
    def is_open(self) -> bool:
        """Whether the upstream is left alone, or but tried by one call at a time."""
        return self._failures >= self._max_failures

    def _admit(self) -> object | None:
        """Let a call through, or not; gives what stands for the one that finds out for all."""
        if not self.is_open:
            return None
        wait_s = self._closed_until_s - trio.current_time()
        if wait_s > 0 or self._probe is not None:
            raise ProviderError(
                self._upstream,
                self._last_fault,
                "This service has failed repeatedly and is given a moment to recover.",
                retry_after_s=max(wait_s, 0.0),
            )
        self._probe = object()
        return self._probe

    def _failed(self, error: ProviderError) -> None:
        self._tell(error)
        if error.fault not in _ILL:
            return
        self._failures += 1
        self._last_fault = error.fault
        if self.is_open:
            log.warning("upstream_paused", upstream=self._upstream, code=error.code, pause_s=self._pause_s)
            self._closed_until_s = trio.current_time() + self._pause_s
