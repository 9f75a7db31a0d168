"""Speech over a pooled socket: text goes out as it is written, audio comes back as it is made."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
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
from voice_fsm.upstream.websocket import closed_error

K = TypeVar("K")

_FAREWELL_S: Final = 0.1
_MAX_BURST: Final = 16
"""Messages read in a row: about as many as come with one read of a socket."""
# Codes that say no more than that the peer has gone: it may well answer when it is asked again.
_PLAIN_CLOSE_CODES: Final = frozenset({None, 1000, 1001, 1005, 1006})


class Send(Protocol):
    """Sends messages, all at once."""

    async def __call__(self, *texts: str) -> None:
        """Send a message of each text.

        Raises:
            ConnectionClosed: as a connection's.
        """


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
        self._frames: _SocketFrames | None = None
        self._first = 0

    async def has_text(self) -> bool:
        """Wait for text, meanwhile opening a socket; there may be none."""
        self._socket = self._pool.claim(self._key)
        self._first = self._script.taken
        return await self._script.piece(self._first) is not None

    async def open(self) -> FrameSource:
        """Send the text, from where the script was when it was first sent, and give the answer.

        Raises:
            ProviderError: the socket cannot be opened.
        """
        if self._socket is None or self._socket.was_lost:
            await self.aclose()
            self._socket = self._pool.claim(self._key)
        self.untold.clear()
        self._script.taken = self._first
        dialogue, patience = self._start(self._socket, self.untold), Patience(self._deadlines)
        try:
            connection = await self._socket.connection(partial(_speak, dialogue, patience))
        except ProviderError:
            socket, self._socket = self._socket, None
            await socket.release()
            raise
        self._frames = _SocketFrames(connection, dialogue, patience)
        return self._frames

    async def aclose(self) -> None:
        """Let the socket wait for another reply, unless this one's answer is still to come over it."""
        if self._socket is None:
            return
        socket, self._socket = self._socket, None
        frames, self._frames = self._frames, None
        if frames is None or await frames.leave(socket):
            await self._pool.give_back(socket)
        else:
            await socket.release()


async def _speak(dialogue: Dialogue, patience: Patience, connection: UpstreamSocket) -> None:
    with suppress(ConnectionClosed):
        await dialogue.speak(connection.send_texts, patience)
        if dialogue.has_ended:  # all of its audio has come by now
            patience.end()


class _SocketFrames:
    """The frames of one dialogue."""

    def __init__(self, connection: UpstreamSocket, dialogue: Dialogue, patience: Patience) -> None:
        self._connection = connection
        self._dialogue = dialogue
        self._patience = patience
        self._is_heard = False
        self._failure: ProviderError | None = None
        """What went wrong, maybe after frames that were given and before anybody asked for more."""

    async def leave(self, socket: SpeechSocket[K]) -> bool:
        """End it; whether the socket can serve again."""
        if self._failure is not None or (self._dialogue.has_ended and not self._is_heard):
            return False
        if self._dialogue.has_ended and socket.is_silent:
            return True
        with trio.move_on_after(_FAREWELL_S, shield=True), suppress(ConnectionClosed):
            await socket.fall_silent()
            if self._dialogue.has_ended:
                return True
            farewell = self._dialogue.farewell()
            if farewell:
                await self._connection.send_texts(farewell)
            return farewell is not None
        return False

    async def next_frames(self) -> list[Frame]:
        """See `FrameSource`."""
        if self._failure is not None:
            raise self._failure
        try:
            return await self._next_frames()
        except ProviderError as error:
            self._failure = error
            raise

    async def _next_frames(self) -> list[Frame]:
        frames: list[Frame] = []
        while not frames and not self._dialogue.has_ended:
            message = self._connection.get_now()
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
                frame = self._dialogue.read(unread)
                if frame is not None:
                    frames.append(frame)
                unread = self._connection.get_now() if self._may_go_on(frames) else None
        except ProviderError as error:
            if not frames:
                raise
            self._failure = error
        if any(frame.audio for frame in frames):
            self._is_heard = True
            self._patience.audio_came()
        return frames

    def _may_go_on(self, frames: list[Frame]) -> bool:
        return not self._dialogue.has_ended and len(frames) < (_MAX_BURST if self._is_heard else 1)

    async def _next_message(self) -> str | bytes | None:
        try:
            return await self._patience.wait_for(self._connection.get_message)
        except ConnectionClosed as closed:
            raise self._error_of(closed) from None

    def _error_of(self, closed: ConnectionClosed) -> ProviderError:
        code = closed.reason.code if closed.reason is not None else None
        text = (closed.reason.reason or "") if closed.reason is not None else ""
        known = self._dialogue.error_of_close(code, text)
        if known is not None:
            return known
        if code in _PLAIN_CLOSE_CODES:
            return provider_error(Upstream.TTS, ProviderFault.TRUNCATED)
        return closed_error(Upstream.TTS, closed)
