"""Files of recordings: their names, their size, their age. Blocks: for a thread."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from voice_fsm.recording.lines import TextKept

_ID_CHARS: Final = 64
"""How much of a session's id is in the name of its file."""
_OURS: Final = re.compile(r"\d{8}T\d{6}Z_[A-Za-z0-9-]+_[0-9a-f]{6}\.(jsonl|wav(\.part)?)")
"""Names such as `create_file` gives; no other file is ever removed."""
_DAY_S: Final = 86_400


@attrs.frozen(kw_only=True)
class RecorderConfig:
    """Where to record, what, and how much."""

    directory: Path
    text: TextKept = "plain"
    max_file_bytes: int = 10_000_000
    """Where a recording ends, though its session goes on."""
    max_total_bytes: int = 1_000_000_000
    """Beyond it the oldest files are removed."""
    keep_days: float = 7.0


def make_directory(directory: Path) -> None:
    """Make the directory, for this user alone, if there is none, and try to write to it.

    Raises:
        OSError: it cannot be made or written to.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    probe = directory / f".probe-{secrets.token_hex(4)}"
    probe.touch()
    probe.unlink()


def label(session_id: str) -> str:
    """As much of a session's id as can be in the name of a file."""
    return re.sub(r"[^A-Za-z0-9-]", "-", session_id)[:_ID_CHARS]


def create_file(directory: Path, started: datetime, session_id: str | None, suffix: str = ".jsonl") -> Path:
    """Make an empty file, for this user alone, with a name of time, session and chance.

    Raises:
        OSError: it cannot be made.
    """
    name = f"{started:%Y%m%dT%H%M%SZ}_{label(session_id or 'unconfigured')}_{secrets.token_hex(3)}{suffix}"
    path = directory / name
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return path


def append(path: Path, text: str) -> None:
    """Add ASCII text to a file that exists.

    The file is open only meanwhile: a session that is cut off leaves nothing to close.

    Raises:
        OSError: it cannot be written, or was removed.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
        file.write(text.encode("ascii"))


def tidy(config: RecorderConfig, now_s: float) -> int:
    """Remove what is too old, then the oldest of what is too much; ``now_s`` is Unix time.

    Returns:
        How many files were removed.
    """
    removed, kept_bytes = 0, 0
    for path, changed_s, size in sorted(_recordings(config.directory), key=lambda found: -found[1]):
        kept_bytes += size
        if now_s - changed_s > config.keep_days * _DAY_S or kept_bytes > config.max_total_bytes:
            with suppress(OSError):  # another process may have been first
                path.unlink()
                removed += 1
    return removed


def _recordings(directory: Path) -> Iterator[tuple[Path, float, int]]:
    """Each file of ours, when it was changed last, in Unix time, and its size in bytes."""
    for path in directory.iterdir():
        if _OURS.fullmatch(path.name):
            with suppress(OSError):  # as above
                facts = path.stat()
                yield path, facts.st_mtime, facts.st_size
