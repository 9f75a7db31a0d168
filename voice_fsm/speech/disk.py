"""Entries as files of one directory, which several processes may share. All calls block.

Why not a library: diskcache, the usual one, has had no release since 2023 and reads what it finds with pickle
(CVE-2025-69872). What is needed is small, for audio under the hash of its request never changes:

- A file is written under a name of its own and then renamed, which is atomic: readers, other processes and
  the next start see all of it or nothing. It is not forced to the disk: what a power failure leaves is found
  out by its digest, and dropped.
- The time of a file is when it was last used. When the files take more than they may, the oldest go.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from voice_fsm.speech.entry import NotAnEntryError, decode, encode
from voice_fsm.tts.base import Speech

log = structlog.get_logger()

_SUFFIX: Final = ".speech"
_UNFINISHED: Final = ".tmp"
_UNFINISHED_FOR_S: Final = 3600.0
"""From this age on, an unfinished file is one whose writer has died."""
_TRIM_TO: Final = 0.9
_TRIM_EVERY: Final = 1 / 16
"""Part of the limit that a process writes before it looks at the whole directory again."""


class DiskStore:
    """Files below ``directory``, which is made when it is first needed.

    They take ``max_bytes``, and between two looks at the directory a sixteenth more for each process.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._untrimmed_bytes = max_bytes
        """Written since the last look; at first, a look is due."""

    def read(self, key: str) -> tuple[Speech, ...] | None:
        """Find an entry; one that is damaged is dropped."""
        path = self._path(key)
        try:
            items = decode(key, path.read_bytes())
        except FileNotFoundError:
            return None
        except NotAnEntryError:
            log.warning("cache_entry_dropped", file=path.name)
            with suppress(OSError):
                path.unlink()
            return None
        except OSError as error:
            log.warning("cache_unreadable", error=error.strerror)
            return None
        with suppress(OSError):  # another process may have trimmed it
            os.utime(path)
        return items

    def write(self, key: str, items: Sequence[Speech]) -> None:
        """Keep an entry, if there is room for it; that there is none is logged, and no error."""
        data = encode(key, items)
        if len(data) > self._max_bytes:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self._path(key), data)
            self._untrimmed_bytes += len(data)
            if self._untrimmed_bytes > self._max_bytes * _TRIM_EVERY:
                self._trim()
        except OSError as error:
            log.warning("cache_unwritable", error=error.strerror)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}{_SUFFIX}"

    def _replace(self, path: Path, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._directory, suffix=_UNFINISHED, delete=False) as file:
            try:
                file.write(data)
                file.flush()
                Path(file.name).replace(path)
            except OSError:
                Path(file.name).unlink(missing_ok=True)
                raise

    def _trim(self) -> None:
        self._untrimmed_bytes = 0
        entries = sorted(self._entries())
        total_bytes = sum(size for _, size, _ in entries)
        if total_bytes <= self._max_bytes:
            return
        for _, size, path in entries:
            if total_bytes <= self._max_bytes * _TRIM_TO:
                return
            with suppress(FileNotFoundError):
                path.unlink()
            total_bytes -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Time, size and path of each entry; what writers that died have left is removed on the way."""
        abandoned_before_s = time.time() - _UNFINISHED_FOR_S
        with os.scandir(self._directory) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    found = file.stat()
                    if file.name.endswith(_SUFFIX):
                        yield found.st_mtime, found.st_size, Path(file.path)
                    elif file.name.endswith(_UNFINISHED) and found.st_mtime < abandoned_before_s:
                        Path(file.path).unlink()
