"""Speech over a socket of Deepgram: each piece of text is flushed, and is over when that is confirmed."""

from collections import deque
from typing import Final

import trio

from voice_fsm.errors import ProviderError
from voice_fsm.tts.deepgram_wire import FLUSH, Voice, error_of_close, read_event, text_message
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.reply import Frame
from voice_fsm.tts.script import Script
from voice_fsm.tts.socket_request import Send
from voice_fsm.tts.sockets import SpeechSocket

_WINDOW_S: Final = 60.0
_MAX_CHARS: Final = 2200
"""A socket takes 2400 characters a minute."""
_MAX_FLUSHES: Final = 18
"""A socket takes 20 flushes a minute."""
_USEFUL_CHARS: Final = 250
_MAX_AGE_S: Final = 50 * 60.0
"""The service ends a socket after an hour."""


def suits(socket: SpeechSocket[Voice]) -> bool:
    """Whether a socket can take another reply, or the begin of one."""
    return trio.current_time() - socket.born_s < _MAX_AGE_S and _has_room(socket, _USEFUL_CHARS)


def _has_room(socket: SpeechSocket[Voice], chars: int) -> bool:
    while socket.sent and socket.sent[0][0] < trio.current_time() - _WINDOW_S:
        socket.sent.popleft()
    return len(socket.sent) < _MAX_FLUSHES and sum(sent for _, sent in socket.sent) + chars <= _MAX_CHARS


class Utterance:
    """A `Dialogue`; a reply with more text than a socket takes at a time goes on over another.

    The audio itself does not tell which text it says. So a socket that was left midway is not used again.
    """

    def __init__(self, script: Script, socket: SpeechSocket[Voice]) -> None:
        self.has_ended = False
        self._script = script
        self._socket = socket
        self._unspoken: deque[str] = deque()
        """Pieces that were sent, and whose audio is not over."""
        self._is_told = False
        """Whether the first of them was announced."""
        self._is_all_sent = False

    async def speak(self, send: Send, patience: Patience) -> None:
        """Send as many pieces as the socket may take; see `Dialogue`."""
        first = number = self._script.taken
        while (piece := await self._script.piece(number)) is not None:
            if number > first and not _has_room(self._socket, len(piece) + 1):
                break
            number += 1
            self._unspoken.append(piece)
            self._socket.sent.append((trio.current_time(), len(piece) + 1))
            patience.expect_audio()
            await send(text_message(f"{piece} "), FLUSH)
            self._script.taken = number
        self._is_all_sent = True
        patience.expect_audio_to_the_end()
        self._end_if_due()

    def read(self, message: str | bytes) -> Frame | None:
        """See `Dialogue`."""
        if isinstance(message, bytes):
            if self._is_told or not self._unspoken:
                return Frame(message)
            self._is_told = True
            return Frame(message, text=self._unspoken[0])
        if read_event(message).get("type") == "Flushed" and self._unspoken:
            self._unspoken.popleft()
            self._is_told = False
            self._end_if_due()
        return None

    def error_of_close(self, code: int | None, reason: str) -> ProviderError | None:  # noqa: ARG002
        """See `Dialogue`."""
        return error_of_close(reason)

    def farewell(self) -> None:
        """See `Dialogue`."""

    def _end_if_due(self) -> None:
        self.has_ended = self._is_all_sent and not self._unspoken
