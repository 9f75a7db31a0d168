"""What holds for all tests."""

import os

from hypothesis import Phase, settings

# Tests share the machine's cores: how late a server of theirs is says nothing, and turns nobody away.
os.environ["MAX_LATENESS_MS"] = "0"

# For wrong code, of which only whether it is found is asked: the same examples each time, none made smaller.
settings.register_profile(
    "mutants",
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
