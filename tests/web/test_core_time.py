"""What the system tells of a thread's use of its core."""

import time
from pathlib import Path

import pytest
import trio
import trio.testing

from voice_fsm.web import core_time
from voice_fsm.web.core_time import CoreTime, read_core_time, watch_core


def test_work_is_counted_and_sleep_is_not() -> None:
    """As the processor's clock has it, whoever else works on the machine."""
    began = read_core_time()
    while time.thread_time() < began.used_s + 0.02:
        pass
    worked = read_core_time()
    assert worked.used_s - began.used_s >= 0.02
    assert worked.passed_s - began.passed_s >= 0.02


def test_time_of_waiting_for_the_core_is_counted(tmp_path: Path) -> None:
    """The second figure, in nanoseconds."""
    schedstat = tmp_path / "schedstat"
    schedstat.write_text("90000000000 3000000000 17\n")
    assert read_core_time(schedstat).waited_s == 3


def test_where_the_system_does_not_tell_of_waiting_work_alone_is_counted(tmp_path: Path) -> None:
    """On macOS, say."""
    reading = read_core_time(tmp_path / "schedstat")
    assert reading.used_s == pytest.approx(time.thread_time(), abs=0.5)
    assert reading.waited_s == 0


async def test_each_measurement_covers_the_time_since_the_one_before(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left out, and nothing counted twice."""
    readings = iter([CoreTime(10, 4, 1), CoreTime(10.25, 4.1, 1), CoreTime(11.25, 4.8, 1.2)])
    monkeypatch.setattr(core_time, "read_core_time", lambda: next(readings))
    noted: list[tuple[float, float, float]] = []
    with trio.CancelScope() as watching:

        def note(used_s: float, waited_s: float, passed_s: float) -> None:
            noted.append((used_s, waited_s, passed_s))
            if len(noted) == 2:
                watching.cancel()

        await watch_core(note)
    assert noted == [pytest.approx((0.1, 0, 0.25)), pytest.approx((0.7, 0.2, 1.0))]
