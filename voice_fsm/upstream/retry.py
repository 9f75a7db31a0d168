"""Try a call again when that may help and nobody has noticed yet."""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import attrs
import httpx
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.http import Answer, Deadlines, open_answer

T = TypeVar("T")

_RETRY_STATUSES: Final = frozenset({408, 429, *range(500, 600)})
_NO_ANSWER_FAULTS: Final = frozenset({ProviderFault.UNREACHABLE, ProviderFault.TRUNCATED})
_JITTER: Final = 0.25


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how long to try again; small numbers, for somebody is waiting to hear an answer."""

    max_retries: int = 2
    first_delay_s: float = 0.25
    """Doubles with each retry, less up to a quarter of it at random."""
    longest_delay_s: float = 2.0
    """An upstream that asks for a longer pause is not tried again."""
    budget_s: float = 8.0
    """From the first attempt on: none starts later than this."""


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    chance: Callable[[], float] = random.random,
) -> T:
    """Make the attempt until it succeeds, as far as the policy goes. One that fails has delivered nothing.

    ``chance`` gives numbers from 0 to 1 for the jitter.

    Raises:
        ProviderError: the last attempt's.
    """
    last_start_s = trio.current_time() + policy.budget_s
    for retry in range(policy.max_retries):
        try:
            return await attempt()
        except ProviderError as error:
            delay_s = _delay_s(error, retry, policy, chance())
            if not may_retry(error) or delay_s > policy.longest_delay_s:
                raise
            if trio.current_time() + delay_s > last_start_s:
                raise
        await trio.sleep(delay_s)
    return await attempt()


async def open_answer_with_retries(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    upstream: Upstream,
    deadlines: Deadlines,
    policy: RetryPolicy,
) -> Answer:
    """Do as `open_answer` does, again where that may help; each attempt has the deadlines anew.

    Raises:
        ProviderError: the last attempt's.
    """
    attempt = partial(open_answer, client, request, upstream=upstream, deadlines=deadlines)
    return await with_retries(attempt, policy)


def may_retry(error: ProviderError) -> bool:
    """Whether the same call may well succeed at once: no connection, or a status that says so."""
    if error.fault is ProviderFault.QUOTA_EXCEEDED:
        return False
    if error.status is None:
        return error.fault in _NO_ANSWER_FAULTS
    return error.status in _RETRY_STATUSES


def _delay_s(error: ProviderError, retry: int, policy: RetryPolicy, chance: float) -> float:
    if error.retry_after_s is not None:
        return error.retry_after_s
    doubled_s: float = policy.first_delay_s * 2**retry
    return min(doubled_s, policy.longest_delay_s) * (1 - _JITTER * chance)
