"""The clock of these tests, whose providers talk to fakes over real sockets."""

import pytest
from trio.testing import MockClock


@pytest.fixture
def autojump_clock() -> MockClock:
    """Jump only after two milliseconds in which nothing came: the kernel's own work takes real time."""
    return MockClock(autojump_threshold=0.002)
