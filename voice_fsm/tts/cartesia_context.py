"""One context of Cartesia's socket: text that is spoken as one utterance."""

import json
from typing import Final
from uuid import uuid4

import trio

from voice_fsm.errors import ProviderError
from voice_fsm.tts.cartesia_wire import (
    Transcript,
    Voice,
    audio_in,
    cancellation,
    error_of_message,
    generation,
    read_message,
)
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.reply import Frame
from voice_fsm.tts.script import Script
from voice_fsm.tts.socket_request import Send

_LULL_S: Final = 0.7
"""How long a context waits for more text. The service forgets one a second after its last audio."""


class Context:
    """A `Dialogue`; a reply whose text comes slowly takes several, one after the other."""

    def __init__(self, voice: Voice, script: Script, untold: list[str]) -> None:
        self.has_ended = False
        self._id = uuid4().hex
        self._voice = voice
        self._script = script
        self._untold = untold
        self._first = script.taken
        self._transcript = Transcript()

    async def speak(self, send: Send, patience: Patience) -> None:
        """Send the pieces that come without a lull between them; see `Dialogue`."""
        number = self._first
        while (piece := await self._next_piece(number)) is not None:
            number += 1
            self._untold.append(piece)
            self._transcript.add(f"{piece} ")
            patience.expect_audio()
            await send(self._text(f"{piece} ", goes_on=True))
            self._script.taken = number
        patience.expect_audio_to_the_end()
        await send(self._text("", goes_on=False))

    def read(self, message: str | bytes) -> Frame | None:
        """See `Dialogue`. What belongs to other contexts is dropped here, so that no two turns mix."""
        event = read_message(message)
        if event.get("context_id") not in (None, self._id):
            return None
        match event.get("type"):
            case "chunk":
                return Frame(audio_in(event))
            case "timestamps":
                return Frame(alignment=self._transcript.align(event))
            case "done":  # also if the service forgot the context before we ended it
                self.has_ended = True
                return Frame(is_final=True)
            case "error":
                raise error_of_message(event, self._voice)
        return None

    def error_of_close(self, code: int | None, reason: str) -> ProviderError | None:  # noqa: ARG002
        """See `Dialogue`. The service's codes are those of the protocol."""
        return None

    def farewell(self) -> str:
        """See `Dialogue`."""
        return json.dumps(cancellation(self._id))

    async def _next_piece(self, number: int) -> str | None:
        if number == self._first:
            return await self._script.piece(number)
        with trio.move_on_after(_LULL_S):
            return await self._script.piece(number)
        return None

    def _text(self, transcript: str, *, goes_on: bool) -> str:
        return json.dumps(generation(self._voice, self._id, transcript, goes_on=goes_on))
