"""ElevenLabs' speech over a WebSocket: text goes out as it is written, audio comes back as it is made."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.elevenlabs_wire import (
    END_OF_TEXT,
    KEEP_ALIVE,
    Voice,
    credentials,
    error_of_close,
    error_of_refusal,
    opening_message,
    read_socket_frame,
    socket_url,
    text_message,
)
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.reply import Frame, FrameSource, shifted
from voice_fsm.tts.script import Script
from voice_fsm.tts.sockets import SocketPool, SpeechSocket
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import RefusedError, provider_error
from voice_fsm.upstream.http import Deadlines
from voice_fsm.upstream.websocket import background_nursery, open_websocket

_KEEP_ALIVE_EVERY_S: Final = 10.0
"""Half of the service's default patience, should it not heed ours."""


@asynccontextmanager
async def open_socket(
    base_url: str, api_key: str, connect_s: float, voice: Voice
) -> AsyncIterator[UpstreamSocket]:
    """Open a socket and begin its stream, so that nothing but text is left to send.

    Raises:
        ProviderError: on entering.
    """
    connecting = trio.CancelScope(deadline=trio.current_time() + connect_s)
    with connecting:
        async with _agreed_websocket(socket_url(base_url, voice), api_key) as connection:
            try:
                await connection.send_message(opening_message(voice))
            except ConnectionClosed as closed:
                raise error_of_close(closed) from None
            connecting.deadline = math.inf
            yield connection
    if connecting.cancelled_caught:
        raise provider_error(Upstream.TTS, ProviderFault.TIMEOUT)


@asynccontextmanager
async def _agreed_websocket(url: str, api_key: str) -> AsyncIterator[UpstreamSocket]:
    headers = list(credentials(api_key).items())
    try:
        async with open_websocket(url, upstream=Upstream.TTS, headers=headers) as connection:
            yield connection
    except RefusedError as refusal:
        raise error_of_refusal(refusal) from None


class SocketRequest:
    """The speech of a whole reply, asked for piece by piece."""

    def __init__(
        self, script: Script, voice: Voice, sockets: SocketPool[Voice], deadlines: Deadlines
    ) -> None:
        self.untold: list[str] = []
        """Text that the next frame says, if it does not tell so itself."""
        self._script = script
        self._voice = voice
        self._sockets = sockets
        self._deadlines = deadlines
        self._socket: SpeechSocket[Voice] | None = None

    async def has_text(self) -> bool:
        """Wait for the first text, meanwhile opening a socket; there may be none."""
        self._socket = self._sockets.claim(self._voice)
        return await self._script.piece(0) is not None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FrameSource]:
        """Send the text, all of it again if this is not the first attempt, and give the answer.

        Raises:
            ProviderError: on entering.
        """
        if self._socket is None or not self._socket.is_usable:
            await self.aclose()
            self._socket = self._sockets.claim(self._voice)
        self.untold.clear()
        try:
            connection = await self._socket.connection()
            patience = Patience(self._deadlines)
            async with background_nursery() as nursery:
                nursery.start_soon(self._send_text, connection, patience)
                yield _SocketFrames(connection, patience, self._voice.output_format)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            await self._socket.release()
            self._socket = None

    async def _send_text(self, connection: UpstreamSocket, patience: Patience) -> None:
        number = 0
        with suppress(ConnectionClosed):  # whoever receives will be told why
            while (piece := await self._next_piece(connection, number)) is not None:
                number += 1
                self.untold.append(piece)
                patience.expect_audio()
                await connection.send_message(text_message(piece))
            patience.expect_audio_to_the_end()
            await connection.send_message(END_OF_TEXT)

    async def _next_piece(self, connection: UpstreamSocket, number: int) -> str | None:
        while True:
            with trio.move_on_after(_KEEP_ALIVE_EVERY_S):
                return await self._script.piece(number)
            await connection.send_message(KEEP_ALIVE)


class _SocketFrames:
    """The frames of one answer, with all times from its start."""

    def __init__(self, connection: UpstreamSocket, patience: Patience, output_format: AudioFormat) -> None:
        self._connection = connection
        self._patience = patience
        self._format = output_format
        self._audio_bytes = 0
        self._ended = False

    async def next_frame(self) -> Frame | None:
        if self._ended:
            return None
        try:
            message = await self._patience.wait_for(self._connection.get_message)
        except ConnectionClosed as closed:
            raise error_of_close(closed) from None
        frame = self._on_the_clock(read_socket_frame(message))
        if frame.audio:
            self._patience.audio_came()
        self._audio_bytes += len(frame.audio)
        self._ended = frame.is_final
        if self._ended and not self._patience.is_for_the_end:
            raise provider_error(Upstream.TTS, ProviderFault.TRUNCATED)
        return frame

    def _on_the_clock(self, frame: Frame) -> Frame:
        """Let the frame's times go on from where its audio, or the audio that it goes before, begins."""
        if frame.alignment is None:
            return frame
        begins_ms = self._format.duration_ms(self._audio_bytes)
        return attrs.evolve(frame, alignment=shifted(frame.alignment, begins_ms))
