"""When a process counts as overloaded, and what becomes of clients that come then."""

import pytest
import trio
import trio.lowlevel
import trio.testing

from voice_fsm.web.lateness import EVERY_S, Lateness
from voice_fsm.web.seats import NoSeat, Seats

LIMIT_S = 0.02


async def test_a_process_that_runs_late_is_overloaded_until_it_is_on_time_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The clock runs on under a sleeper, as it does where others hold the core."""
    lateness = Lateness(LIMIT_S)

    async def be_late(times: int, by_s: float) -> None:
        for _ in range(times):
            await trio.sleep(EVERY_S * 0.99)
            autojump_clock.jump(EVERY_S * 0.01 + by_s)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lateness.measure)
        await trio.sleep(10)
        assert lateness.now_s == pytest.approx(0)
        await be_late(60, 0.03)
        assert lateness.is_high
        await trio.sleep(10)
        assert not lateness.is_high
        nursery.cancel_scope.cancel()


def test_one_long_pause_is_no_overload() -> None:
    """A collection of garbage, or a neighbour on the machine, passes."""
    lateness = Lateness(LIMIT_S)
    lateness.note(0.3)
    assert not lateness.is_high


def test_between_calm_and_the_limit_all_stays_as_it_is() -> None:
    """So that clients are not let in and turned away by turns."""
    lateness = Lateness(LIMIT_S)
    high_at: list[bool] = []
    for late_s in (0.015, 0.025, 0.015, 0.005):
        for _ in range(100):
            lateness.note(late_s)
        high_at.append(lateness.is_high)
    assert high_at == [False, True, True, False]


def test_without_a_limit_nothing_is_too_late() -> None:
    """The operator's choice."""
    lateness = Lateness(None)
    for _ in range(100):
        lateness.note(10)
    assert not lateness.is_high


def test_an_overloaded_process_takes_nobody_in_and_keeps_whom_it_has() -> None:
    """Until it is on time again."""
    lateness = Lateness(LIMIT_S)
    seats = Seats(10, lateness)
    with seats.seat():
        lateness.is_high = True
        with pytest.raises(NoSeat) as refused, seats.seat():
            pytest.fail("seated")
        assert (refused.value.code, refused.value.retryable) == ("overloaded", True)
        assert seats.taken == 1
        lateness.is_high = False
        with seats.seat():
            assert seats.taken == 2


def test_an_empty_house_lets_the_first_in() -> None:
    """Other programs may keep the core busy; nobody here would be better off without them."""
    lateness = Lateness(0.01)
    lateness.is_high = True
    seats = Seats(10, lateness)
    with seats.seat(), pytest.raises(NoSeat), seats.seat():
        pytest.fail("seated")
