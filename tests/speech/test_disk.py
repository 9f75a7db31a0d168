import os
import time
from pathlib import Path

import pytest
import structlog

from voice_fsm.speech.disk import DiskStore
from voice_fsm.speech.entry import encode
from voice_fsm.tts.base import SpeechAudio, SpokenText

ITEMS = (SpokenText("Hello."), SpeechAudio(b"\1\2" * 400))
ENTRY_BYTES = len(encode("0", ITEMS))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "speech"


@pytest.fixture
def store(directory: Path) -> DiskStore:
    return DiskStore(directory, 10 * ENTRY_BYTES)


def used_at(directory: Path, key: str, time_s: float) -> None:
    os.utime(directory / f"{key}.speech", (time_s, time_s))


def test_another_process_reads_what_this_one_wrote(directory: Path, store: DiskStore) -> None:
    """An entry is found by whoever has the same directory, which only its owner can read."""
    assert store.read("a") is None
    store.write("a", ITEMS)
    assert DiskStore(directory, 1).read("a") == ITEMS
    assert directory.stat().st_mode & 0o077 == 0
    assert [path.name for path in directory.iterdir()] == ["a.speech"]


def test_what_was_used_longest_ago_goes_first(directory: Path, store: DiskStore) -> None:
    """Reading counts as use; what is left takes no more than the limit."""
    for number in range(10):
        store.write(f"{number}", ITEMS)
        used_at(directory, f"{number}", 1000 + number)
    assert store.read("0") == ITEMS
    store.write("new", ITEMS)
    kept = {path.stem for path in directory.iterdir()}
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 10 * ENTRY_BYTES
    assert {"0", "new", "9"} <= kept
    assert "1" not in kept


def test_a_limit_that_was_lowered_holds_with_the_first_write(directory: Path, store: DiskStore) -> None:
    """What an earlier process left counts."""
    for number in range(10):
        store.write(f"{number}", ITEMS)
    DiskStore(directory, 3 * ENTRY_BYTES).write("new", ITEMS)
    assert len(list(directory.iterdir())) <= 3


def test_what_is_larger_than_all_is_not_kept(directory: Path) -> None:
    """Nothing is thrown out for it."""
    DiskStore(directory, ENTRY_BYTES - 1).write("a", ITEMS)
    assert not directory.exists()


def test_a_damaged_entry_is_dropped(directory: Path, store: DiskStore) -> None:
    """It is as if it had never been there, and the operator is told."""
    store.write("a", ITEMS)
    (directory / "a.speech").write_bytes(b"voice-fsm speech 1\n\0 and then nothing of use")
    with structlog.testing.capture_logs() as logs:
        assert store.read("a") is None
    assert [line["event"] for line in logs] == ["cache_entry_dropped"]
    assert list(directory.iterdir()) == []


def test_what_dead_writers_left_is_removed(directory: Path, store: DiskStore) -> None:
    """An unfinished file of an hour ago goes; a new one may be somebody's at this moment."""
    directory.mkdir(parents=True)
    old, new = directory / "x.tmp", directory / "y.tmp"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 3700,) * 2)
    store.write("a", ITEMS)
    assert {path.name for path in directory.iterdir()} == {"y.tmp", "a.speech"}


def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    """Nothing is kept, nothing fails, and the operator is told."""
    (tmp_path / "file").write_text("not a directory")
    store = DiskStore(tmp_path / "file", 10_000)
    with structlog.testing.capture_logs() as logs:
        store.write("a", ITEMS)
        assert store.read("a") is None
    assert [line["event"] for line in logs] == ["cache_unwritable", "cache_unreadable"]


def test_a_rename_that_fails_leaves_nothing(directory: Path, store: DiskStore) -> None:
    """The unfinished file goes with the attempt."""
    (directory / "a.speech").mkdir(parents=True)
    with structlog.testing.capture_logs() as logs:
        store.write("a", ITEMS)
    assert [line["event"] for line in logs] == ["cache_unwritable"]
    assert [path.name for path in directory.iterdir()] == ["a.speech"]
