from collections.abc import AsyncIterator

import httpx
import pytest
from trio.testing import MockClock

from voice_fsm.upstream.http import open_client


@pytest.fixture
def clock() -> MockClock:
    """Time that jumps, but only when the sockets too have been quiet for a moment."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(trust_env=False) as client:
        yield client
