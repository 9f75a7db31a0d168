"""What the front end thinks the assistant should know, on its way to the chat backend."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import attrs

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyPart
from voice_fsm.runtime.client_tools import ClientTools

MAX_NOTES: Final = 20
"""The newest are kept."""
MAX_NOTE_CHARS: Final = 4000


class FrontEndNotes:
    """The notes of one session, oldest first."""

    def __init__(self) -> None:
        self._notes: dict[object, str] = {}

    def note(self, text: str, name: str | None = None) -> None:
        """Keep a note, in the place of an older one of the same name."""
        key = object() if name is None else name
        self._notes.pop(key, None)
        if text.strip():
            self._notes[key] = text[:MAX_NOTE_CHARS]
        while len(self._notes) > MAX_NOTES:
            del self._notes[next(iter(self._notes))]

    def texts(self) -> tuple[str, ...]:
        """All that are in force."""
        return tuple(self._notes.values())


class InformedChat:
    """A chat provider (`ChatProvider`) whose every question carries one session's notes and tools."""

    def __init__(self, chat: ChatProvider, notes: FrontEndNotes, tools: ClientTools) -> None:
        self.name = chat.name
        self.check = chat.check
        self.forget = chat.forget
        self._chat = chat
        self._notes = notes
        self._tools = tools

    def reply(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ReplyPart]]:
        """Ask, with the notes as they are now."""
        tools = self._tools.of_turn(request.turn_id)
        return self._chat.reply(attrs.evolve(request, context=self._notes.texts(), tools=tools))
