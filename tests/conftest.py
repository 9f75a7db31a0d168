"""What holds for all tests."""

import os
import signal
from pathlib import Path
from typing import Final

import hypothesis
import pytest

# Tests share the machine's cores: how full a server's is says nothing, and turns nobody away.
os.environ["MAX_OCCUPANCY"] = "0"
# Nor does how long an example took.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
# A shell's background jobs ignore Ctrl-C, and what they start inherits that; a handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT: Final = Path(__file__).parent
LONG_FILES: Final = (
    "web/test_console_browser.py",
    "integration/test_barge_ins.py",
    "integration/test_speech_engine.py",
    "test_cli.py",
    "web/convai/test_official_clients.py",
    "stt/test_local.py",
    "web/test_page_end_to_end.py",
    "recording/test_replay.py",
    "integration/test_commands.py",
    "runtime/test_schedules.py",
    "fsm/test_model.py",
)
"""Each takes a worker for long; the last to begin would run alone at the end. Longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files."""
    rank = {ROOT / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
