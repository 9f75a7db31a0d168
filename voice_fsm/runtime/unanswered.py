"""What the recogniser was given and has not answered for: a new link is given it again.

It is heard a second time only when a link broke in the middle of an utterance, so 16-bit PCM may be kept as
mu-law, in half the memory: telephone quality will do for that.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from voice_fsm.audio.samples import ulaw_decode, ulaw_encode

WORTH_IT_BYTES: Final = 8192
"""Of PCM: a quarter of a second at 16 kHz. Few large pieces take less time and memory."""


@attrs.frozen
class Commit:
    """The client ended the utterance here."""


@attrs.frozen
class _Companded:
    ulaw: bytes

    def __len__(self) -> int:
        """Of the PCM, in bytes."""
        return 2 * len(self.ulaw)


class Unanswered:
    """Audio and commits, in the order in which they were sent; the oldest is forgotten first."""

    def __init__(self, tell_exact: Callable[["Unanswered"], None] | None = None) -> None:
        """``tell_exact`` is told of each audio that `compand` may make smaller."""
        self._tell_exact = tell_exact
        self._items: deque[bytes | _Companded | Commit] = deque()
        self.size_bytes = 0
        """Of all audio, as it came."""

    @property
    def has_commit(self) -> bool:
        """Whether there is an utterance that the client ended."""
        return any(isinstance(item, Commit) for item in self._items)

    def append(self, item: bytes | Commit) -> None:
        """Add what was sent last."""
        self._items.append(item)
        if isinstance(item, Commit):
            return
        self.size_bytes += len(item)
        if self._tell_exact is not None:
            self._tell_exact(self)

    def compand(self) -> None:
        """Make mu-law of the PCM after the newest commit, if it is not mu-law yet and worth it."""
        exact: list[bytes] = []
        while self._items and isinstance(item := self._items[-1], bytes):
            exact.append(item)
            self._items.pop()
        if sum(map(len, exact)) >= WORTH_IT_BYTES:
            self._items.append(_Companded(ulaw_encode(b"".join(reversed(exact)))))
        else:
            self._items += reversed(exact)

    def forget(self, size_bytes: int) -> None:
        """Forget the oldest audio, so much of it if there is, and the commits in it."""
        while size_bytes > 0 and self._items:
            item = self._items.popleft()
            if isinstance(item, Commit):
                continue
            if len(item) > size_bytes:
                self._items.appendleft(
                    item[size_bytes:] if isinstance(item, bytes) else _Companded(item.ulaw[size_bytes // 2 :])
                )
            forgotten_bytes = min(size_bytes, len(item))
            self.size_bytes -= forgotten_bytes
            size_bytes -= forgotten_bytes

    def forget_utterance(self) -> None:
        """Forget all up to the oldest commit; there has to be one."""
        while not isinstance(item := self._items.popleft(), Commit):
            self.size_bytes -= len(item)

    def take_all(self) -> list[bytes | Commit]:
        """Give all of it away, the oldest first, as it came or nearly so."""
        items = [ulaw_decode(item.ulaw) if isinstance(item, _Companded) else item for item in self._items]
        self._items.clear()
        self.size_bytes = 0
        return items
