from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.retry import RetryPolicy, may_retry, with_retries

POLICY = RetryPolicy(max_retries=2, first_delay_s=1.0, longest_delay_s=3.0, budget_s=10.0)


def failure(
    fault: ProviderFault = ProviderFault.UNREACHABLE,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
) -> ProviderError:
    return ProviderError(Upstream.TTS, fault, "no", status=status, retry_after_s=retry_after_s)


@attrs.define
class Attempts:
    """Fails as often as it has errors, then succeeds."""

    errors: list[ProviderError]
    takes_s: float = 0.0
    started_at_s: list[float] = attrs.field(factory=list)

    async def __call__(self) -> str:
        self.started_at_s.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def no_chance() -> float:
    return 0.0


async def test_the_first_success_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """Failures are tried again with doubling pauses until one attempt succeeds."""
    attempts = Attempts([failure(), failure()])
    assert await with_retries(attempts, POLICY, chance=no_chance) == "done"
    assert attempts.started_at_s == [0.0, 1.0, 3.0]


async def test_the_last_error_is_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    """After the last retry its error is raised."""
    last = failure(ProviderFault.OVERLOADED, status=503)
    with pytest.raises(ProviderError) as caught:
        await with_retries(Attempts([failure(), failure(), last]), POLICY)
    assert caught.value is last


async def test_chance_shortens_a_pause_by_a_quarter_at_most(autojump_clock: trio.testing.MockClock) -> None:
    """Callers that failed together do not come back together."""
    attempts = Attempts([failure()])
    await with_retries(attempts, POLICY, chance=lambda: 1.0)
    assert attempts.started_at_s == [0.0, 0.75]


async def test_a_short_retry_after_is_honoured(autojump_clock: trio.testing.MockClock) -> None:
    """The upstream's own pause replaces ours, to the letter."""
    attempts = Attempts([failure(ProviderFault.RATE_LIMITED, status=429, retry_after_s=2.5)])
    await with_retries(attempts, POLICY, chance=lambda: 1.0)
    assert attempts.started_at_s == [0.0, 2.5]


async def test_a_long_retry_after_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody waits that long in a conversation: the error is told at once, though the budget is larger."""
    attempts = Attempts([failure(ProviderFault.RATE_LIMITED, status=429, retry_after_s=3.1)])
    with pytest.raises(ProviderError):
        await with_retries(attempts, POLICY)
    assert attempts.started_at_s == [0.0]
    assert trio.current_time() == 0.0


async def test_no_attempt_starts_after_the_budget(autojump_clock: trio.testing.MockClock) -> None:
    """Slow failures use up the budget, whatever the number of retries left."""
    attempts = Attempts([failure(), failure()], takes_s=6.0)
    with pytest.raises(ProviderError):
        await with_retries(attempts, POLICY, chance=no_chance)
    assert attempts.started_at_s == [0.0, 7.0]


async def test_no_retries_means_one_attempt() -> None:
    """A policy without retries makes one attempt."""
    attempts = Attempts([failure()])
    with pytest.raises(ProviderError):
        await with_retries(attempts, attrs.evolve(POLICY, max_retries=0))
    assert len(attempts.started_at_s) == 1


async def test_cancelling_ends_the_pause(autojump_clock: trio.testing.MockClock) -> None:
    """A barge-in during a pause is not held up."""
    with trio.move_on_after(0.5) as scope:
        await with_retries(Attempts([failure()]), POLICY, chance=no_chance)
    assert scope.cancelled_caught
    assert trio.current_time() == 0.5


async def test_other_errors_pass_at_once() -> None:
    """A mistake of our own is not tried again."""

    async def mistaken() -> str:
        raise ZeroDivisionError

    attempt: Callable[[], Awaitable[str]] = mistaken
    with pytest.raises(ZeroDivisionError):
        await with_retries(attempt, POLICY)


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (failure(ProviderFault.UNREACHABLE), True),
        (failure(ProviderFault.TRUNCATED), True),
        (failure(ProviderFault.TRUNCATED, status=200), False),
        (failure(ProviderFault.TIMEOUT), False),
        (failure(ProviderFault.TIMEOUT, status=408), True),
        (failure(ProviderFault.RATE_LIMITED, status=429), True),
        (failure(ProviderFault.QUOTA_EXCEEDED, status=429), False),
        (failure(ProviderFault.SERVER_ERROR, status=500), True),
        (failure(ProviderFault.OVERLOADED, status=503), True),
        (failure(ProviderFault.AUTH_FAILED, status=401), False),
        (failure(ProviderFault.REJECTED, status=422), False),
        (failure(ProviderFault.BAD_RESPONSE, status=200), False),
        (failure(ProviderFault.LOST, status=1011), False),
    ],
)
def test_only_what_passes_quickly_is_tried_again(error: ProviderError, may: bool) -> None:
    """No connection, 408, 429 and 5xx may pass; a refusal, a used-up quota or our own deadline do not."""
    assert may_retry(error) is may
