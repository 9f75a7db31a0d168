"""The clock of these tests, which talk over real sockets."""

import pytest
from trio.testing import MockClock

from tests.integration.rig import Pools, watch_pools


@pytest.fixture
def autojump_clock() -> MockClock:
    """Jump only after some milliseconds in which nothing came: the kernel's own work takes real time."""
    return MockClock(autojump_threshold=0.01)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Pools:
    """Watch the HTTP clients of all services that the test opens."""
    return watch_pools(monkeypatch)
