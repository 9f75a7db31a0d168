"""Who is let in, and who is turned away."""

import pytest

from voice_fsm.web.occupancy import Occupancy
from voice_fsm.web.seats import NoSeat, Seats


def test_a_full_core_takes_nobody_in_and_keeps_whom_it_has() -> None:
    """Until there is room again."""
    seats = Seats(10, Occupancy(0.5))
    with seats.seat():
        seats.note_core(60, 0, 60)
        with pytest.raises(NoSeat) as refused, seats.seat():
            pytest.fail("seated")
        assert (refused.value.code, refused.value.retryable) == ("overloaded", True)
        assert seats.taken == 1
        seats.note_core(0, 0, 60)
        with seats.seat():
            assert seats.taken == 2


def test_an_empty_house_lets_the_first_in() -> None:
    """Other programs may keep the core busy; nobody here would be better off without them."""
    seats = Seats(10, Occupancy(0.1))
    seats.note_core(60, 0, 60)
    with seats.seat(), pytest.raises(NoSeat), seats.seat():
        pytest.fail("seated")


def test_those_who_have_just_come_take_room_before_they_do_anything() -> None:
    """A rush does not get in because nothing of it has been measured yet."""
    seats = Seats(1000, Occupancy(0.1))

    def come(admitted: int = 0) -> int:
        try:
            with seats.seat():
                return come(admitted + 1)
        except NoSeat:
            return admitted

    assert 0 < come() < 20


def test_what_a_session_takes_is_learnt_from_those_who_are_there() -> None:
    """The measurement is shared out among them."""
    seats = Seats(1000, Occupancy(0.5))
    with seats.seat(), seats.seat():
        for _ in range(100):
            seats.note_core(0.1, 0, 1)
        assert seats.occupancy.cost == pytest.approx((0.1 + 10 * 0.01) / 12, rel=0.01)
