"""A reply that is asked for before it is known whether it will be wanted."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import structlog
import trio

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyPart
from voice_fsm.errors import VoiceError
from voice_fsm.runtime.groups import first_error
from voice_fsm.runtime.succession import Leaving, await_all_gone

log = structlog.get_logger()

MAX_PARTS: Final = 256
"""Of the reply that wait for its turn; the chat call waits with the rest."""


class Speculation:
    """A chat call and what came of it. Nobody is told of it but the turn that takes it over."""

    def __init__(self, chat: ChatProvider, request: ChatRequest) -> None:
        self.scope = trio.CancelScope()
        self.gone = trio.Event()
        self._chat = chat
        self._request = request
        self._error: VoiceError | None = None
        self._write, self._read = trio.open_memory_channel[ReplyPart](MAX_PARTS)

    @property
    def has_failed(self) -> bool:
        """Whether nothing is to be had of it, so that one has to ask again."""
        return self._error is not None and not self._read.statistics().current_buffer_used

    async def run(self, predecessors: Sequence[Leaving]) -> None:
        """Ask once those before have gone, and keep the reply."""
        try:
            with self.scope, self._write:
                self._error = await await_all_gone(predecessors) or await self._ask()
                if self._error is not None:
                    log.info("speculation_failed", code=self._error.code)
        finally:
            self.gone.set()

    async def _ask(self) -> VoiceError | None:
        error: VoiceError | None = None
        try:
            async with self._chat.reply(self._request) as parts:
                async for part in parts:
                    await self._write.send(part)
        except* VoiceError as group:
            error = first_error(group)
        return error

    @trio.as_safe_channel
    async def reply(self) -> AsyncGenerator[ReplyPart]:
        """Like `ChatProvider.reply`; leaving it does not end the call, cancelling `scope` does."""
        async for part in self._read:
            yield part
        if self._error is not None:
            raise self._error
