"""Speech over a pooled socket: text goes out as it is written, audio comes back as it is made."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Generic, Protocol, TypeVar

import trio
from trio_websocket import ConnectionClosed

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.reply import Frame, FrameSource
from voice_fsm.tts.script import Script
from voice_fsm.tts.sockets import SocketPool, SpeechSocket
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.http import Deadlines
from voice_fsm.upstream.websocket import background_nursery, closed_error

K = TypeVar("K")

_FAREWELL_S: Final = 0.1
_MAX_BURST: Final = 16
"""Messages read in a row: about as many as come with one read of a socket."""
# Codes that say no more than that the peer has gone: it may well answer when it is asked again.
_PLAIN_CLOSE_CODES: Final = frozenset({None, 1000, 1001, 1005, 1006})

Send = Callable[[str], Awaitable[None]]


class Dialogue(Protocol):
    """What is said on a socket for some of a reply's text, from the script's next piece on."""

    has_ended: bool
    """Whether all text was sent and all that it asks for has come, so that nothing of it comes any more."""

    async def speak(self, send: Send, patience: Patience) -> None:
        """Send text as it is written, and its end; tell the script how much of it was taken.

        Raises:
            ConnectionClosed: that is for the reader to explain.
        """

    def read(self, message: str | bytes) -> Frame | None:
        """Read a message; ``None``: it is of no interest.

        Raises:
            ProviderError: it is an error, or is not understood.
        """

    def error_of_close(self, code: int | None, reason: str) -> ProviderError | None:
        """Say what a close by the service means, where it means more than its code does."""

    def farewell(self) -> str | None:
        """What to send when it is left midway, after which the socket can serve again; it may be empty.

        ``None``: it cannot.
        """


StartDialogue = Callable[[SpeechSocket[K], list[str]], Dialogue]
"""Begins one; it puts the text that the next frame says into the list, if frames do not tell themselves."""


class SocketRequest(Generic[K]):
    """The speech of some or all of a reply's text."""

    def __init__(
        self,
        script: Script,
        pool: SocketPool[K],
        key: K,
        start: StartDialogue[K],
        deadlines: Deadlines,
    ) -> None:
        self.untold: list[str] = []
        self._script = script
        self._pool = pool
        self._key = key
        self._start = start
        self._deadlines = deadlines
        self._socket: SpeechSocket[K] | None = None
        self._first = 0

    async def has_text(self) -> bool:
        """Wait for text, meanwhile opening a socket; there may be none."""
        self._socket = self._pool.claim(self._key)
        self._first = self._script.taken
        return await self._script.piece(self._first) is not None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FrameSource]:
        """Send the text, from where the script was when it was first sent, and give the answer.

        Raises:
            ProviderError: on entering.
        """
        if self._socket is None or self._socket.was_lost:
            await self.aclose()
            self._socket = self._pool.claim(self._key)
        self.untold.clear()
        self._script.taken = self._first
        dialogue = self._start(self._socket, self.untold)
        try:
            connection = await self._socket.connection()
            frames = _SocketFrames(connection, dialogue, Patience(self._deadlines))
            async with background_nursery() as nursery:
                nursery.start_soon(self._speak, frames)
                yield frames
        except ProviderError:
            await self._drop()
            raise
        finally:
            await self._leave(dialogue)

    async def aclose(self) -> None:
        """Let the socket wait for another reply, if it was not used."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await self._pool.give_back(socket)

    async def _speak(self, frames: "_SocketFrames") -> None:
        with suppress(ConnectionClosed):
            await frames.dialogue.speak(frames.connection.send_message, frames.patience)
            frames.text_is_sent()

    async def _leave(self, dialogue: Dialogue) -> None:
        if self._socket is None:
            return
        if dialogue.has_ended or await self._say_farewell(dialogue):
            await self.aclose()
        else:
            await self._drop()

    async def _say_farewell(self, dialogue: Dialogue) -> bool:
        farewell = dialogue.farewell()
        if not farewell or self._socket is None:
            return farewell is not None
        with trio.move_on_after(_FAREWELL_S, shield=True), suppress(ConnectionClosed, ProviderError):
            connection = await self._socket.connection()
            await connection.send_message(farewell)
            return True
        return False

    async def _drop(self) -> None:
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await socket.release()


class _SocketFrames:
    """The frames of one dialogue."""

    def __init__(self, connection: UpstreamSocket, dialogue: Dialogue, patience: Patience) -> None:
        self.connection = connection
        self.dialogue = dialogue
        self.patience = patience
        self._is_heard = False
        self._failure: ProviderError | None = None
        """What came after the frames that were given last."""

    def text_is_sent(self) -> None:
        """Wait no longer if all of its audio has come by now."""
        if self.dialogue.has_ended:
            self.patience.end()

    async def next_frames(self) -> list[Frame]:
        """See `FrameSource`."""
        if self._failure is not None:
            raise self._failure
        frames: list[Frame] = []
        while not frames and not self.dialogue.has_ended:
            message = self.connection.get_now()
            if message is None:
                message = await self._next_message()
            if message is not None:
                frames = self._read_burst(message)
        return frames

    def _read_burst(self, message: str | bytes) -> list[Frame]:
        """Read this message and those that came with it."""
        frames: list[Frame] = []
        unread: str | bytes | None = message
        try:
            while unread is not None:
                frame = self.dialogue.read(unread)
                if frame is not None:
                    frames.append(frame)
                unread = self.connection.get_now() if self._may_go_on(frames) else None
        except ProviderError as error:
            if not frames:
                raise
            self._failure = error
        if any(frame.audio for frame in frames):
            self._is_heard = True
            self.patience.audio_came()
        return frames

    def _may_go_on(self, frames: list[Frame]) -> bool:
        return not self.dialogue.has_ended and len(frames) < (_MAX_BURST if self._is_heard else 1)

    async def _next_message(self) -> str | bytes | None:
        try:
            return await self.patience.wait_for(self.connection.get_message)
        except ConnectionClosed as closed:
            raise self._error_of(closed) from None

    def _error_of(self, closed: ConnectionClosed) -> ProviderError:
        code = closed.reason.code if closed.reason is not None else None
        text = (closed.reason.reason or "") if closed.reason is not None else ""
        known = self.dialogue.error_of_close(code, text)
        if known is not None:
            return known
        if code in _PLAIN_CLOSE_CODES:
            return provider_error(Upstream.TTS, ProviderFault.TRUNCATED)
        return closed_error(Upstream.TTS, closed)
