"""One context of ElevenLabs' socket: the text of a reply, spoken as it is written."""

from typing import Final
from uuid import uuid4

import attrs
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.elevenlabs_wire import (
    SocketMessage,
    Voice,
    closing_message,
    error_of_close,
    keep_alive_message,
    read_socket_message,
    text_message,
)
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.reply import Frame, shifted
from voice_fsm.tts.script import Script
from voice_fsm.tts.socket_request import Send
from voice_fsm.tts.sockets import SpeechSocket
from voice_fsm.upstream.faults import provider_error

_MAX_UNFINISHED: Final = 5
"""A socket has so many contexts at a time. One that was closed counts until its final frame has come."""
_KEEP_ALIVE_EVERY_S: Final = 10.0
"""Half of the service's default patience, should it not heed ours."""


def suits(socket: SpeechSocket[Voice]) -> bool:
    """Whether a socket can take another context."""
    return len(socket.unfinished) < _MAX_UNFINISHED


def overhear(socket: SpeechSocket[Voice], message: str | bytes) -> None:
    """Note which context ends, while no reply reads the socket.

    Raises:
        ProviderError: TRUNCATED: an error ends the socket; BAD_RESPONSE.
    """
    _note(socket, read_socket_message(message))


def _note(socket: SpeechSocket[Voice], message: SocketMessage) -> None:
    """Take note of a message to another context, or to an unknown one."""
    if message.is_error:
        raise provider_error(Upstream.TTS, ProviderFault.TRUNCATED)
    if message.is_final:
        socket.unfinished.discard(message.context_id or "")


class Context:
    """A `Dialogue`, for all of a reply."""

    def __init__(self, voice: Voice, script: Script, socket: SpeechSocket[Voice], untold: list[str]) -> None:
        self.has_ended = False
        self._id = uuid4().hex
        self._voice = voice
        self._script = script
        self._socket = socket
        self._untold = untold
        self._may_end = False
        """Whether all text was sent."""
        self._is_begun = False
        self._is_closed = False
        self._audio_bytes = 0

    async def speak(self, send: Send, patience: Patience) -> None:
        """Send all pieces, each to be spoken at once; see `Dialogue`."""
        first = number = self._script.taken
        unsent: list[str] = []
        while not self._may_end:
            piece = await self._next_piece(send, number)
            if piece is None:
                self._may_end = True
                patience.expect_audio_to_the_end()
                unsent.append(closing_message(self._id))
            else:
                self._untold.append(piece)
                patience.expect_audio()
                unsent.append(text_message(self._id, piece, self._voice if number == first else None))
                number += 1
                if self._script.knows(number):
                    continue  # what follows goes with it
            self._socket.unfinished.add(self._id)
            await send(*unsent)
            unsent.clear()
            self._is_begun = True
            self._script.taken = number
        self._is_closed = True

    def read(self, message: str | bytes) -> Frame | None:
        """See `Dialogue`. What belongs to other contexts is dropped here, so that no two turns mix.

        An error of another context costs this one its socket, no more: it is not the reply's own.
        """
        said = read_socket_message(message)
        if not self._is_ours(said):
            _note(self._socket, said)
            return None
        frame = said.frame()
        if frame.alignment is not None:
            # Times restart with each message.
            begins_ms = self._voice.output_format.duration_ms(self._audio_bytes)
            frame = attrs.evolve(frame, alignment=shifted(frame.alignment, begins_ms))
        self._audio_bytes += len(frame.audio)
        if frame.is_final:
            self._socket.unfinished.discard(self._id)
            if not self._may_end:
                raise provider_error(Upstream.TTS, ProviderFault.TRUNCATED)
            self.has_ended = True
        return frame

    def error_of_close(self, code: int | None, reason: str) -> ProviderError | None:
        """See `Dialogue`."""
        return error_of_close(code, reason)

    def farewell(self) -> str:
        """See `Dialogue`. A message to a context that is over would begin it anew."""
        if not self._is_begun:
            self._socket.unfinished.discard(self._id)
        is_open = self._id in self._socket.unfinished and not self._is_closed
        return closing_message(self._id) if is_open else ""

    def _is_ours(self, message: SocketMessage) -> bool:
        """Whether it is of this context; one that does not tell is, if there is no other."""
        whose = message.context_id
        return self._socket.unfinished <= {self._id} if whose is None else whose == self._id

    async def _next_piece(self, send: Send, number: int) -> str | None:
        while not self._script.knows(number):
            with trio.move_on_after(_KEEP_ALIVE_EVERY_S):
                return await self._script.piece(number)
            await send(keep_alive_message(self._id))
        return await self._script.piece(number)
