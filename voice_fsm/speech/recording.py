"""A synthesis as it grows: made once, heard from its start by any number of listeners."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Literal, Self

import trio

from voice_fsm.tts.base import Speech, SpeechAudio

Origin = Literal["synthesis", "memory", "disk"]


class Recording:
    """What one synthesis has given so far, and who listens.

    `scope` is the maker's. It is cancelled when the last listener leaves before the end: nobody wants the
    rest.
    """

    def __init__(self) -> None:
        self.items: list[Speech] = []
        self.origin: Origin = "synthesis"
        self.scope = trio.CancelScope()
        self._listeners = 0
        self._error: Exception | None = None
        self._ended = False
        self.audio_bytes = 0
        self._news = trio.lowlevel.ParkingLot()

    @property
    def is_abandoned(self) -> bool:
        """Nobody listens, and the end will not be made."""
        return self.scope.cancel_called

    @property
    def is_complete(self) -> bool:
        """All is there."""
        return self._ended and self._error is None

    @property
    def is_heard(self) -> bool:
        """Somebody listens."""
        return self._listeners > 0

    def add(self, item: Speech) -> None:
        """Append the next item."""
        self.items.append(item)
        if isinstance(item, SpeechAudio):
            self.audio_bytes += len(item.data)
        self._news.unpark_all()

    def finish(self) -> None:
        """Nothing more comes, for all is there."""
        self._ended = True
        self._news.unpark_all()

    def fail(self, error: Exception) -> None:
        """Nothing more comes, for this reason. Without effect once it has ended."""
        if not self._ended:
            self._error = error
            self.finish()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Count a listener."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners and not self._ended:
                self.scope.cancel(reason="nobody listens any more")

    async def wait_audible(self) -> None:
        """Wait for the first audio, or the end.

        Raises:
            VoiceError: it failed before.
        """
        while not self.audio_bytes and not self._ended:
            await self._news.park()
        if not self.audio_bytes:
            self._raise_error()

    async def wait_beyond(self, position: int) -> bool:
        """Wait until there is an item at ``position``; false if there will be none.

        Raises:
            VoiceError: it failed before.
        """
        if position < len(self.items):
            await trio.lowlevel.checkpoint()
        while position >= len(self.items):
            if self._ended:
                self._raise_error()
                return False
            await self._news.park()
        return True

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)  # it is raised to each listener


class Listening:
    """One listener's way through a recording: an iterator of `Speech`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._position = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Speech:
        if not await self._recording.wait_beyond(self._position):
            raise StopAsyncIteration
        self._position += 1
        return self._recording.items[self._position - 1]


class AudioOnly:
    """The audio of an iterator of `Speech`."""

    def __init__(self, speech: AsyncIterator[Speech]) -> None:
        self._speech = speech

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            item = await anext(self._speech)
            if isinstance(item, SpeechAudio):
                return item.data
