"""An open WebSocket to an upstream: our own frames on a stream whose handshake trio-websocket has done.

No task, no queue and no lock that anybody waits for lie between caller and socket: a message of 4 KB is sent
with half the CPU that trio-websocket's own path takes, and one is received without a task switch. What
follows from it: pings are answered, and the peer's closing is noticed, while somebody is in `get_message` or
`watch`. Keep a task in one of them.

What trio-websocket raises and says, `ConnectionClosed` and its `CloseReason`, is raised and said here too.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio
from trio_websocket import CloseReason, ConnectionClosed

from voice_fsm.upstream.eager import EagerStream
from voice_fsm.upstream.tls import TlsStream
from voice_fsm.wire.frames import (
    BINARY,
    CLOSE,
    CONNECTION_LOST,
    NORMAL_CLOSURE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    Received,
    decode_close,
    decode_text,
    encode_close,
    encode_frame,
)

READ_BYTES: Final = 64 * 1024
_MASK_BYTES: Final = 4


class UpstreamSocket:
    """One connection. Any task may send; whoever reads while another does waits for it.

    Sending or receiving on one that is closed raises `ConnectionClosed`; what came before the peer's close is
    received first. A send that is cancelled in the middle of its message closes it.
    """

    def __init__(self, stream: trio.abc.Stream, early: bytes, max_message_bytes: int) -> None:
        self._stream = stream
        self._eager = stream if isinstance(stream, EagerStream | TlsStream) else None
        """The stream, if it can be written to without waiting: every one that leads to another process."""
        self._frames = FrameReader(max_message_bytes, of_client=False)
        self._frames.feed(early)
        self._sending = trio.Lock()
        self._reading = trio.Lock()
        self._held: Received | None = None
        """What was taken from ``_frames`` and has to be dealt with before anything else."""
        self._heard = False
        self._said_goodbye = False
        self._is_over = False
        """Whether nothing more can be read."""
        self.closed: CloseReason | None = None
        """Why, once it is."""

    async def send_message(self, message: str | bytes) -> None:
        """Send text or binary.

        Raises:
            ConnectionClosed: it is closed, or breaks.
        """
        if isinstance(message, str):
            await self.send_text(message.encode())
        else:
            await self._send((BINARY, message))

    async def send_text(self, text: bytes) -> None:
        """Send text that is UTF-8 already.

        Raises:
            ConnectionClosed: as `send_message`.
        """
        await self._send((TEXT, text))

    async def send_texts(self, *texts: str) -> None:
        """Send a message of each text, all in one write.

        Raises:
            ConnectionClosed: as `send_message`.
        """
        await self._send(*[(TEXT, text.encode()) for text in texts])

    def send_now(self, text: bytes) -> bool:
        """Send text (UTF-8) without waiting; ``False``: that cannot be, and nothing was sent.

        The end of a message that the socket does not take at once is left to the next sender, or to `flush`.
        """
        if self._eager is None or not self._eager.is_flushed or self._sending.locked():
            return False
        if self.closed is not None or self._said_goodbye:
            return False
        try:
            self._eager.push(encode_frame(TEXT, text, os.urandom(_MASK_BYTES)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # the next sender will be told why
        return True

    @property
    def is_flushed(self) -> bool:
        """Whether the socket has taken all that was sent."""
        return self._eager is None or self._eager.is_flushed

    async def flush(self) -> None:
        """Wait until the socket has taken what was sent.

        Raises:
            ConnectionClosed: it is closed, or breaks.
        """
        await self._transmit(b"")

    async def get_message(self) -> str | bytes:
        """Wait for the next message; one that has come already is given without a checkpoint.

        Raises:
            ConnectionClosed: there will be none.
        """
        await _acquire(self._reading)
        try:
            return await self._next_message()
        finally:
            self._reading.release()

    def get_now(self) -> str | bytes | None:
        """Give the next message if it has come already; ``None``: `get_message` has to be waited for."""
        if self._is_over or self._held is not None or self._reading.locked():
            return None
        try:
            self._held = received = self._frames.next()
            if received is None or received.opcode >= CLOSE:
                return None
            message = _decode(received)
        except FrameError:
            return None  # whoever waits will be told
        self._held = None
        return message

    async def watch(self, every_s: float, patience_s: float, overhear: Callable[[str | bytes], None]) -> None:
        """Look after a connection that nobody uses: ping the peer now and then, and answer its pings.

        Messages that come meanwhile are for ``overhear``; what that raises is raised here.

        Raises:
            ConnectionClosed: it was closed.
            trio.TooSlowError: the peer did not answer within ``patience_s``.
        """
        while True:
            with trio.move_on_after(every_s):
                await self._overhear(overhear)
            self._heard = False
            await self._transmit(encode_frame(PING, b"", os.urandom(_MASK_BYTES)))
            with trio.move_on_after(patience_s):
                await self._overhear(overhear, until_heard=True)
            if not self._heard:
                raise trio.TooSlowError

    async def aclose(self) -> None:
        """Do the closing handshake, for as long as the caller's deadline allows; the stream stays open."""
        if self.closed is None:
            with suppress(ConnectionClosed):
                await self._say_goodbye(NORMAL_CLOSURE)
                while True:
                    await self.get_message()

    # --- reading ------------------------------------------------------------------------------------

    async def _next_message(self) -> str | bytes:
        while True:
            received = await self._next_frame()
            if received.opcode == TEXT or received.opcode == BINARY:  # noqa: PLR1714  # a set would be hashed
                return await self._decoded(received)
            await self._answer(received)

    async def _overhear(self, overhear: Callable[[str | bytes], None], *, until_heard: bool = False) -> None:
        """Read what comes, for ever or ``until_heard``: until anything has."""
        await _acquire(self._reading)
        try:
            while not (self._heard and until_heard):
                received = await self._next_frame()
                if received.opcode in {TEXT, BINARY}:
                    overhear(await self._decoded(received))
                else:
                    await self._answer(received)
        finally:
            self._reading.release()

    async def _next_frame(self) -> Received:
        while not self._is_over:
            try:
                received = self._held or self._frames.next()
            except FrameError as error:
                await self._end_with(error.close_code, error.reason)
            else:
                if received is not None:
                    self._held = None
                    return received
                await self._read()
        await trio.lowlevel.checkpoint()
        raise ConnectionClosed(self.closed)

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if data:
            self._heard = True
            self._frames.feed(data)
        else:
            await self._end_with(CONNECTION_LOST)

    async def _decoded(self, received: Received) -> str | bytes:
        try:
            return _decode(received)
        except FrameError as error:
            await self._end_with(error.close_code, error.reason)
        raise ConnectionClosed(self.closed)

    async def _answer(self, control: Received) -> None:
        if control.opcode == CLOSE:
            try:
                await self._end_with(*decode_close(control.payload))
            except FrameError as error:
                await self._end_with(error.close_code, error.reason)
        elif control.opcode == PING and not self._said_goodbye:
            await self._transmit(encode_frame(PONG, control.payload, os.urandom(_MASK_BYTES)))

    # --- writing ------------------------------------------------------------------------------------

    async def _send(self, *messages: tuple[int, bytes]) -> None:
        if self.closed is not None or self._said_goodbye:
            await trio.lowlevel.checkpoint()
            raise ConnectionClosed(self.closed)
        frames = [encode_frame(opcode, payload, os.urandom(_MASK_BYTES)) for opcode, payload in messages]
        await self._transmit(b"".join(frames))

    async def _transmit(self, frame: bytes) -> None:
        await _acquire(self._sending)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._send_whole(frame)
        finally:
            self._sending.release()

    async def _send_whole(self, frame: bytes) -> None:
        is_whole = False
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_all(frame)
                is_whole = True
        finally:
            if not is_whole:
                self._note_end(CONNECTION_LOST)
        if not is_whole:
            raise ConnectionClosed(self.closed)

    # --- the end ------------------------------------------------------------------------------------

    async def _end_with(self, code: int, reason: str = "") -> None:
        """Read no more; say goodbye if that is still possible, and let the socket go."""
        self._is_over = True
        self._note_end(code, reason)
        with suppress(ConnectionClosed):
            if code != CONNECTION_LOST:
                await self._say_goodbye(code, reason)
        await trio.aclose_forcefully(self._stream)

    async def _say_goodbye(self, code: int, reason: str = "") -> None:
        if not self._said_goodbye:
            self._said_goodbye = True
            await self._transmit(encode_close(code, reason, os.urandom(_MASK_BYTES)))

    def _note_end(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = CloseReason(code, reason)


def _decode(received: Received) -> str | bytes:
    return received.payload if received.opcode == BINARY else decode_text(received.payload)


async def _acquire(lock: trio.Lock) -> None:
    """Take a lock that is nearly always free: its `acquire` would cost a turn of the scheduler."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
