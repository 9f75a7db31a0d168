"""What the recogniser was given and has not answered for: a new link is given it again.

Of 16-bit PCM all but the newest is kept as mu-law, in half the memory. It is heard a second time only when a
link broke in the middle of an utterance, and telephone quality will do for that.
"""

from collections import deque
from typing import Final

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_decode, ulaw_encode

BLOCK_MS: Final = 300
"""Audio that is joined, and made mu-law: few large pieces take less time and memory than many small ones."""


@attrs.frozen
class Commit:
    """The client ended the utterance here."""


@attrs.frozen
class _Exact:
    audio: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.audio)


@attrs.frozen
class _Companded:
    ulaw: bytes

    @property
    def audio(self) -> bytes:
        return ulaw_decode(self.ulaw)

    @property
    def size_bytes(self) -> int:
        return 2 * len(self.ulaw)


class Unanswered:
    """Audio and commits, in the order in which they were sent; the oldest is forgotten first."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._is_pcm = audio_format.codec == "pcm"
        self._block_bytes = audio_format.size_bytes(BLOCK_MS)
        self._items: deque[_Exact | _Companded | Commit] = deque()
        self._forgotten_bytes = 0
        """Of the oldest item, which goes when all of it is."""
        self._newest: list[bytes] = []
        """Audio after all of ``_items``: less than a block."""
        self._newest_bytes = 0
        self.size_bytes = 0
        """Of all audio, as it came."""

    @property
    def has_commit(self) -> bool:
        """Whether there is an utterance that the client ended."""
        return any(isinstance(item, Commit) for item in self._items)

    def append(self, item: bytes | Commit) -> None:
        """Add what was sent last: a commit, or audio of whole samples."""
        if isinstance(item, Commit):
            self._items += [*self._take_newest(), item]
            return
        self._newest.append(item)
        self._newest_bytes += len(item)
        self.size_bytes += len(item)
        if self._newest_bytes >= self._block_bytes:
            for block in self._take_newest():
                self._items.append(_Companded(ulaw_encode(block.audio)) if self._is_pcm else block)

    def forget(self, size_bytes: int) -> None:
        """Forget the oldest audio, so much of it if there is, and the commits in it."""
        if size_bytes > self.size_bytes - self._newest_bytes:
            self._items += self._take_newest()
        while size_bytes > 0 and self._items:
            left_bytes = self._oldest_bytes
            forgotten_bytes = min(size_bytes, left_bytes)
            if forgotten_bytes < left_bytes:
                self._forgotten_bytes += forgotten_bytes
            else:
                self._drop_oldest()
            size_bytes -= forgotten_bytes
            self.size_bytes -= forgotten_bytes

    def forget_utterance(self) -> None:
        """Forget all up to the oldest commit; there has to be one."""
        while not isinstance(self._items[0], Commit):
            self.size_bytes -= self._oldest_bytes
            self._drop_oldest()
        self._drop_oldest()

    def take_all(self) -> list[bytes | Commit]:
        """Give all of it away, the oldest first, as it came or nearly so."""
        self._items += self._take_newest()
        items = [item if isinstance(item, Commit) else item.audio for item in self._items]
        if items and not isinstance(oldest := items[0], Commit):
            items[0] = oldest[self._forgotten_bytes :]
        self._items.clear()
        self._forgotten_bytes = self.size_bytes = 0
        return items

    @property
    def _oldest_bytes(self) -> int:
        """How much is left of the oldest item."""
        item = self._items[0]
        return 0 if isinstance(item, Commit) else item.size_bytes - self._forgotten_bytes

    def _drop_oldest(self) -> None:
        self._items.popleft()
        self._forgotten_bytes = 0

    def _take_newest(self) -> list[_Exact]:
        newest, self._newest, self._newest_bytes = self._newest, [], 0
        return [_Exact(b"".join(newest))] if newest else []
