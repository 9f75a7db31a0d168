"""A hook of the operator's between what users say and the chat backend."""

import pkgutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyPart, ReplyText
from voice_fsm.errors import ConfigError, ProviderFault, Upstream
from voice_fsm.upstream.faults import provider_error

log = structlog.get_logger()

Screen = Callable[[ChatRequest], Awaitable[ChatRequest | str]]
"""Looks at a question before the chat backend does. It returns what is to be asked, the same or changed, or
else a text, which is spoken while the backend is not asked at all."""

SCREEN_S: Final = 5.0
"""How long a screen may take."""


def load_screen(name: str, variable: str) -> Screen:
    """Import a screen by a name such as ``package.module:function``.

    Raises:
        ConfigError: there is none of this name; ``variable`` is the setting that named it.
    """
    try:
        screen = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(variable, f"names nothing that can be imported: {error}") from error
    if not callable(screen):
        raise ConfigError(variable, "must name an async function")
    checked: Screen = screen
    return checked


class ScreenedChat:
    """A chat backend that is asked only what a screen lets pass (`ChatProvider`)."""

    def __init__(self, provider: ChatProvider, screen: Screen) -> None:
        self.name = provider.name
        self.check = provider.check
        self.forget = provider.forget
        self._provider = provider
        self._screen = screen

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """See `ChatProvider`. A screen that fails or takes too long lets nothing pass."""
        verdict = await self._judge(request)
        if isinstance(verdict, str):
            async with _say(verdict) as said:
                yield said
        else:
            async with self._provider.reply(verdict) as parts:
                yield parts

    async def _judge(self, request: ChatRequest) -> ChatRequest | str:
        try:
            with trio.fail_after(SCREEN_S):
                return await self._screen(request)
        except Exception as error:
            log.exception("screen_failed", session_id=request.session_id)
            raise provider_error(Upstream.CHAT, ProviderFault.SERVER_ERROR) from error


@trio.as_safe_channel
async def _say(text: str) -> AsyncGenerator[ReplyPart]:
    await trio.lowlevel.checkpoint()
    yield ReplyText(text)
