from contextlib import ExitStack

import pytest
import trio
from trio.testing import MockClock

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.breaker import Breaker


async def fail(breaker: Breaker, fault: ProviderFault = ProviderFault.SERVER_ERROR) -> str:
    with pytest.raises(ProviderError) as caught, breaker.call():
        raise ProviderError(Upstream.CHAT, fault, "It failed.")
    return caught.value.message


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(Upstream.CHAT, failures=3, pause_s=10)


async def test_an_upstream_that_keeps_failing_is_left_alone(
    autojump_clock: MockClock, breaker: Breaker
) -> None:
    """After so many failures in a row calls fail at once, for the same reason, with the time to wait."""
    for _ in range(3):
        assert await fail(breaker) == "It failed."
    with pytest.raises(ProviderError) as caught, breaker.call():
        pytest.fail("nobody may call now")
    assert caught.value.code == "chat_server_error"
    assert caught.value.message != "It failed."
    assert caught.value.retry_after_s == pytest.approx(10)


async def test_one_call_tries_whether_it_is_back(autojump_clock: MockClock, breaker: Breaker) -> None:
    """After the pause a single probe goes through; its success lets all in, its failure pauses again."""
    for _ in range(3):
        await fail(breaker)
    await trio.sleep(10)
    with trio.move_on_after(1):
        with breaker.call():
            assert await fail(breaker) != "It failed.", "a second probe"
            await trio.sleep_forever()
    assert await fail(breaker) == "It failed."
    assert await fail(breaker) != "It failed."
    await trio.sleep(10)
    with breaker.call():
        pass
    assert await fail(breaker) == "It failed."
    assert await fail(breaker) == "It failed."


async def test_a_success_between_failures_counts(breaker: Breaker) -> None:
    """Only failures in a row tell of illness; a long call may report its health before it ends."""
    for _ in range(5):
        await fail(breaker)
        await fail(breaker)
        with breaker.call():
            pass
    await fail(breaker)
    await fail(breaker)
    with breaker.call():
        breaker.healthy()
        assert await fail(breaker) == "It failed."


async def test_a_probe_that_has_told_is_none_any_more(autojump_clock: MockClock, breaker: Breaker) -> None:
    """However long it lasts: should the upstream fall ill again meanwhile, one other call finds out."""
    for _ in range(3):
        await fail(breaker)
    await trio.sleep(10)
    first, second = ExitStack(), ExitStack()
    first.enter_context(breaker.call())
    breaker.healthy()
    for _ in range(3):
        assert await fail(breaker) == "It failed."
    await trio.sleep(10)
    second.enter_context(breaker.call())
    refusal = ProviderError(Upstream.CHAT, ProviderFault.REJECTED, "Refused.")
    assert not first.__exit__(ProviderError, refusal, None)
    assert await fail(breaker) != "It failed.", "a third call, while the second finds out"
    second.close()
    assert await fail(breaker) == "It failed."


@pytest.mark.parametrize("fault", [ProviderFault.REJECTED, ProviderFault.AUTH_FAILED])
async def test_a_refusal_is_no_illness(breaker: Breaker, fault: ProviderFault) -> None:
    """What the upstream refuses to one caller it may grant to the next."""
    for _ in range(9):
        assert await fail(breaker, fault) == "It failed."


async def test_a_cancelled_probe_gives_its_place_to_the_next(
    autojump_clock: MockClock, breaker: Breaker
) -> None:
    """A barge-in during the probe neither opens nor blocks anything."""
    for _ in range(3):
        await fail(breaker)
    await trio.sleep(10)
    with trio.move_on_after(1):
        with breaker.call():
            await trio.sleep_forever()
    with breaker.call():
        pass
