"""Chat: what the user said in, the assistant's reply out, as it streams.

To add a provider: one file beside this one with a class that satisfies `ChatProvider`, and its case in
``runtime/services.py``.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs

from voice_fsm.fsm.history import Exchange, TurnCause
from voice_fsm.fsm.options import BackendOptions


@attrs.frozen(kw_only=True)
class Tool:
    """Something that the front end can do or look up for the assistant."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "object", "properties": {}})
    """JSON schema of its arguments, which are an object."""


@attrs.frozen
class ToolResult:
    """What came of a call; data of the front end, or a sentence that says why there is none."""

    text: str
    is_error: bool = False


class Tools(Protocol):
    """The tools of one turn's front end."""

    @property
    def offered(self) -> tuple[Tool, ...]:
        """All that may be called."""

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Have a tool called, and wait for what comes of it. What goes wrong is a result too."""


@attrs.frozen(kw_only=True)
class ChatRequest:
    """One turn's question."""

    session_id: str
    turn_id: int
    text: str
    """What the user said or typed: data, never instructions to the server."""
    cause: TurnCause = "user"
    """With ``silence`` and ``asked`` the text is no word of the user's: it says that there was none new."""
    history: tuple[Exchange, ...] = ()
    """Earlier turns, oldest first; the assistant's side holds only what was heard."""
    backend: BackendOptions = BackendOptions()
    tools: Tools | None = None
    """For providers that can let their model call them."""
    context: tuple[str, ...] = ()
    """What the front end says of the situation, oldest first: data too, not to be taken for instructions."""


@attrs.frozen
class ReplyText:
    """The next piece of the reply; pieces concatenate to the whole, spaces included."""

    text: str


@attrs.frozen
class ReplyMetadata:
    """What the backend said beside the text; goes to the client in `assistant.message`."""

    data: Mapping[str, Any]


ReplyPart = ReplyText | ReplyMetadata


class ChatProvider(Protocol):
    """A chat backend, shared by all sessions of the process; it holds no session's state."""

    name: str

    def check(self, chosen: BackendOptions) -> None:
        """Say early whether a client's choice of backend can be served.

        Raises:
            ClientError: it cannot; ``field`` such as ``backend.base_url``.
        """

    def forget(self, session_id: str) -> None:
        """A conversation is over: what is kept for it can go."""

    def reply(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ReplyPart]]:
        """Ask. Leaving the context closes the call, finished or not.

        The provider keeps the deadlines of its own settings (connect, first byte, between pieces).

        Raises:
            ProviderError: on entering or while iterating.
            ClientError: on entering: as `check`.
        """
