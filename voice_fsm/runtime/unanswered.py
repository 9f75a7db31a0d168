"""What the recogniser was given and has not answered for: a new link is given it again."""

from collections import deque

import attrs


@attrs.frozen
class Commit:
    """The client ended the utterance here."""


class Unanswered:
    """Audio and commits, in the order in which they were sent; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._items: deque[bytes | Commit] = deque()
        self.size_bytes = 0
        """Of all audio."""

    @property
    def has_commit(self) -> bool:
        """Whether there is an utterance that the client ended."""
        return any(isinstance(item, Commit) for item in self._items)

    def append(self, item: bytes | Commit) -> None:
        """Add what was sent last."""
        self._items.append(item)
        if not isinstance(item, Commit):
            self.size_bytes += len(item)

    def forget(self, size_bytes: int) -> None:
        """Forget the oldest audio, so much of it if there is, and the commits in it."""
        while size_bytes > 0 and self._items:
            item = self._items.popleft()
            if isinstance(item, Commit):
                continue
            if len(item) > size_bytes:
                self._items.appendleft(item[size_bytes:])
            forgotten_bytes = min(size_bytes, len(item))
            self.size_bytes -= forgotten_bytes
            size_bytes -= forgotten_bytes

    def forget_utterance(self) -> None:
        """Forget all up to the oldest commit; there has to be one."""
        while not isinstance(item := self._items.popleft(), Commit):
            self.size_bytes -= len(item)

    def take_all(self) -> list[bytes | Commit]:
        """Give all of it away, the oldest first."""
        items = list(self._items)
        self._items.clear()
        self.size_bytes = 0
        return items
