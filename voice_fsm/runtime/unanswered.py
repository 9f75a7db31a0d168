"""What the recogniser was given and has not answered for: a new link is given it again.

Of 16-bit PCM all but the newest is kept as mu-law, in half the memory. It is heard a second time only when a
link broke in the middle of an utterance, and telephone quality will do for that.
"""

from collections import deque
from typing import Final, Self

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

    def without(self, size_bytes: int) -> Self:
        return attrs.evolve(self, audio=self.audio[size_bytes:])


@attrs.frozen
class _Companded:
    ulaw: bytes

    @property
    def audio(self) -> bytes:
        return ulaw_decode(self.ulaw)

    @property
    def size_bytes(self) -> int:
        return 2 * len(self.ulaw)

    def without(self, size_bytes: int) -> Self:
        return attrs.evolve(self, ulaw=self.ulaw[size_bytes // 2 :])


class Unanswered:
    """Audio and commits, in the order in which they were sent; the oldest is forgotten first."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._is_pcm = audio_format.codec == "pcm"
        self._block_bytes = audio_format.size_bytes(BLOCK_MS)
        self._items: deque[_Exact | _Companded | Commit] = deque()
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
            item = self._items.popleft()
            if isinstance(item, Commit):
                continue
            forgotten = min(size_bytes, item.size_bytes)
            if forgotten < item.size_bytes:
                self._items.appendleft(item.without(forgotten))
            size_bytes -= forgotten
            self.size_bytes -= forgotten

    def forget_utterance(self) -> None:
        """Forget all up to the oldest commit; there has to be one."""
        while not isinstance(item := self._items.popleft(), Commit):
            self.size_bytes -= item.size_bytes

    def take_all(self) -> list[bytes | Commit]:
        """Give all of it away, the oldest first, as it came or nearly so."""
        self._items += self._take_newest()
        items = [item if isinstance(item, Commit) else item.audio for item in self._items]
        self._items.clear()
        self.size_bytes = 0
        return items

    def _take_newest(self) -> list[_Exact]:
        newest, self._newest, self._newest_bytes = self._newest, [], 0
        return [_Exact(b"".join(newest))] if newest else []
