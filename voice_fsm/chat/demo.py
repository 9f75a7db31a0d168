"""The demo assistant: a chat backend without a model or a network, for a first conversation.

It streams its replies at a pace that shows thinking, speaking and being interrupted.
"""

import re
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Final

import trio

from voice_fsm.chat.base import ChatRequest, ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.demo_skills import Answer, answer
from voice_fsm.fsm.history import unanswered
from voice_fsm.fsm.options import BackendOptions

_WORD_GROUP: Final = re.compile(r"(?:\S+\s*){1,3}")


def _said(request: ChatRequest, now: datetime) -> Answer:
    if request.cause == "silence":
        return Answer("silence", "Are you still there?")
    if request.cause != "asked":
        return answer(request.text, request.history, now)
    if question := unanswered(request.history):
        return answer(question, request.history, now)
    return Answer("asked", "What can I do for you?")


def server_time() -> datetime:
    """Now, in the time zone of this machine."""
    return datetime.now(UTC).astimezone()


class DemoChat:
    """A `ChatProvider` that answers by simple rules."""

    name = "demo"

    def __init__(
        self,
        *,
        think_s: float = 0.1,
        words_per_s: float = 40.0,
        clock: Callable[[], datetime] = server_time,
    ) -> None:
        """``think_s`` passes before the first word; ``clock`` tells the user's questions the local time."""
        self._think_s = think_s
        self._words_per_s = words_per_s
        self._clock = clock

    def check(self, chosen: BackendOptions) -> None:
        """Any choice is as good as another: there is no backend."""

    def forget(self, session_id: str) -> None:
        """Nothing is kept."""

    @trio.as_safe_channel
    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Answer with a few words at a time. Raises nothing."""
        said = _said(request, self._clock())
        await trio.sleep(self._think_s)
        yield ReplyMetadata({"engine": self.name, "skill": said.skill})
        for group in _WORD_GROUP.findall(said.text):
            yield ReplyText(group)
            await trio.sleep(len(group.split()) / self._words_per_s)
