"""How long this thread used its core, and waited for it, as the system counts it.

A share of the time between two readings, and there is nothing to do at each turn of the event loop. What a
loop sees by itself, the time it was given to sleep, leaves out that others held the core when it awoke.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trio

EVERY_S: Final = 0.25
SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
"""Linux's: ns of running, ns of waiting while it could have run, and turns it had
(https://docs.kernel.org/scheduler/sched-stats.html)."""


@attrs.frozen
class CoreTime:
    """A reading; seconds since some moment."""

    passed_s: float
    used_s: float
    waited_s: float
    """For a core that others held; 0 where the system does not tell."""


def read_core_time(schedstat: Path = SCHEDSTAT) -> CoreTime:
    """Read the calling thread's."""
    return CoreTime(time.monotonic(), time.thread_time(), _waited_s(schedstat))


async def watch_core(note: Callable[[float, float, float], None]) -> None:
    """Tell for ever for how many seconds the thread used its core and waited for it, of how many."""
    before = read_core_time()
    while True:
        await trio.sleep(EVERY_S)
        now = read_core_time()
        note(now.used_s - before.used_s, now.waited_s - before.waited_s, now.passed_s - before.passed_s)
        before = now


def _waited_s(schedstat: Path) -> float:
    try:
        return int(schedstat.read_text().split()[1]) / 1e9
    except OSError:  # another system, or a kernel without it
        return 0.0
