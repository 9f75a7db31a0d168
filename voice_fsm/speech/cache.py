"""Finished syntheses, in memory and behind it on disk."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import cachetools
import trio

from voice_fsm.speech.disk import DiskStore
from voice_fsm.speech.entry import size_bytes
from voice_fsm.speech.recording import Origin
from voice_fsm.tts.base import Speech

_DISK_THREADS: Final = 4


class SpeechCache:
    """What was spoken lately, by key; what was used longest ago makes room.

    Args:
        memory_bytes: For all in memory; 0 for none.
        disk: What lies behind it.
    """

    def __init__(self, memory_bytes: int, disk: DiskStore | None = None) -> None:
        self._memory: cachetools.LRUCache[str, tuple[Speech, ...]] = cachetools.LRUCache(
            memory_bytes, getsizeof=size_bytes
        )
        self._disk = disk
        self._threads = trio.CapacityLimiter(_DISK_THREADS)

    @property
    def memory_bytes(self) -> int:
        """What is taken of memory now."""
        return int(self._memory.currsize)

    async def find(self, key: str) -> tuple[Origin, tuple[Speech, ...]] | None:
        """The synthesis under a key, and where it was; ``None`` if it is not there."""
        items = self._memory.get(key)
        if items is not None:
            await trio.lowlevel.checkpoint()
            return "memory", items
        if self._disk is None:
            await trio.lowlevel.checkpoint()
            return None
        items = await trio.to_thread.run_sync(self._disk.read, key, limiter=self._threads)
        if items is None:
            return None
        self._remember(key, items)
        return "disk", items

    async def keep(self, key: str, items: Sequence[Speech]) -> None:
        """Keep a synthesis that is complete."""
        self._remember(key, tuple(items))
        if self._disk is None:
            await trio.lowlevel.checkpoint()
        else:
            await trio.to_thread.run_sync(partial(self._disk.write, key, items), limiter=self._threads)

    def _remember(self, key: str, items: tuple[Speech, ...]) -> None:
        if size_bytes(items) <= self._memory.maxsize:
            self._memory[key] = items
