"""The collector's settings, in a process of their own: they hold for all that comes after."""

import subprocess
import sys

SCRIPT = """
import gc
from voice_fsm.web.garbage import spare_the_collector

old = []
old.append(old)
spare_the_collector()
assert not any(known is old for known in gc.get_objects()), "looked at again and again"
assert gc.get_threshold()[0] == 10_000
new = []
new.append(new)
del new
assert gc.collect() > 0, "cycles are still freed"
"""


def test_what_was_loaded_at_the_start_is_never_looked_at_again() -> None:
    """And what sessions leave behind is still freed."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=30)
