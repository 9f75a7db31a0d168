"""When a core counts as full, and what those who have just come are taken to need."""

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.web.occupancy import GUESSED_COST, Occupancy

LIMIT = 0.75
EVERY_S = 0.25


def let_pass(
    occupancy: Occupancy, seconds: float, share: float, sessions: int, *, others: float = 0.0
) -> None:
    """Have so many sessions use a share of the core for some time, while others have theirs."""
    for _ in range(round(seconds / EVERY_S)):
        occupancy.note(share * EVERY_S, others * EVERY_S, EVERY_S, sessions)


def rush(occupancy: Occupancy, clients: int = 1000) -> int:
    """How many of those who come at once are let in."""
    admitted = 0
    while not occupancy.is_full and admitted < clients:
        occupancy.admit()
        admitted += 1
    return admitted


def test_a_load_beyond_the_limit_makes_the_core_full_until_a_tenth_is_free_again() -> None:
    """So that clients are not let in and turned away by turns; one line tells of each change."""
    occupancy = Occupancy(LIMIT)
    full: list[bool] = []
    with structlog.testing.capture_logs() as logs:
        for share in (0.7, 0.8, 0.7, 0.6):
            let_pass(occupancy, 60, share, 200)
            full.append(occupancy.is_full)
    assert full == [False, True, True, False]
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("overloaded", "warning"),
        ("calm_again", "info"),
    ]
    assert logs[0]["occupancy_percent"] == 75


def test_one_pause_is_no_full_core() -> None:
    """A collection of garbage, or a neighbour on the machine, passes."""
    occupancy = Occupancy(LIMIT)
    let_pass(occupancy, 20, 0.3, 100)
    occupancy.note(0.5, 0, 0.5, 100)
    assert not occupancy.is_full


def test_a_rush_gets_the_room_that_is_left_at_what_sessions_took_so_far() -> None:
    """100 take 30 %, so that 45 % are left for some 150 more; none of them need have been measured."""
    occupancy = Occupancy(LIMIT)
    let_pass(occupancy, 20, 0.3, 100)
    assert rush(occupancy) == pytest.approx(150, rel=0.3)


def test_a_rush_that_needs_little_is_let_in_once_that_is_seen() -> None:
    """Newcomers count as such only until they have shown what they do."""
    occupancy = Occupancy(LIMIT)
    let_pass(occupancy, 20, 0.1, 100)
    admitted = rush(occupancy)
    let_pass(occupancy, 30, 0.2, 100 + admitted)
    assert not occupancy.is_full
    assert occupancy.expected == pytest.approx(0.2, abs=0.01)


def test_a_rush_to_a_fresh_process_gets_as_much_as_the_guess_allows() -> None:
    """Nothing has been measured yet."""
    assert rush(Occupancy(LIMIT)) == pytest.approx(LIMIT / GUESSED_COST, abs=1)


def test_one_session_is_not_taken_for_the_measure_of_all() -> None:
    """It may be a dear one."""
    occupancy = Occupancy(LIMIT)
    let_pass(occupancy, 20, 0.3, 1)
    assert 5 < rush(occupancy) < 20


def test_what_others_hold_is_not_to_be_had_but_no_session_is_blamed_for_it() -> None:
    """100 use 20 % and wait as long: the 35 % that are left are for some 175 more."""
    occupancy = Occupancy(LIMIT)
    let_pass(occupancy, 20, 0.2, 100, others=0.2)
    assert occupancy.share == pytest.approx(0.4, abs=0.01)
    assert 120 < rush(occupancy) < 180
    let_pass(occupancy, 60, 0.2, 100, others=0.8)
    assert occupancy.is_full


def test_nobody_is_let_in_between_two_waves() -> None:
    """For whom the next would have no room; turns of many sessions may come together."""
    occupancy = Occupancy(LIMIT)
    full: list[bool] = []
    for _ in range(10):
        let_pass(occupancy, 4, 0.9, 200)
        let_pass(occupancy, 4, 0.5, 200)
        full.append(occupancy.is_full)
    assert all(full)


def test_newcomers_who_have_gone_need_no_room() -> None:
    """Clients that come and go at once do not keep others out."""
    occupancy = Occupancy(LIMIT)
    for _ in range(20):
        for _ in range(10):
            occupancy.admit()
        let_pass(occupancy, EVERY_S, 0.1, 1)
    assert not occupancy.is_full


def test_without_a_limit_no_core_is_full() -> None:
    """The operator's choice; the measurement goes on."""
    occupancy = Occupancy()
    assert rush(occupancy, 100) == 100
    let_pass(occupancy, 20, 1.0, 100)
    assert not occupancy.is_full
    assert occupancy.share == pytest.approx(1, abs=0.01)


SECONDS = st.floats(0.01, 10)
MEASURED = st.tuples(SECONDS, SECONDS, SECONDS, st.integers(0, 1000))


@given(st.lists(st.one_of(st.none(), MEASURED)), st.floats(0.01, 1))
def test_whatever_is_measured_stays_in_bounds(
    happened: list[tuple[float, float, float, int] | None], limit: float
) -> None:
    """The share is one, those who have just come only add to it, and beyond the limit nobody is let in."""
    occupancy = Occupancy(limit)
    for measured in happened:
        if measured is None:
            occupancy.admit()
        else:
            occupancy.note(*measured)
        assert 0 <= occupancy.share <= 1
        assert occupancy.share <= occupancy.crest <= occupancy.expected
        assert occupancy.is_full or occupancy.expected <= limit
