"""Tools that the front end has and the model may ask for, by way of the session's client."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import trio

from voice_fsm.chat.base import Tool, ToolResult


@attrs.frozen(kw_only=True)
class ClientTool:
    """A tool, and how it is called."""

    tool: Tool
    expects_response: bool = True
    """Whether the model waits for what comes of it."""
    timeout_s: float = 20.0


@attrs.frozen(kw_only=True)
class ToolQuestion:
    """What the client is to be asked."""

    turn_id: int
    call_id: str
    name: str
    arguments: Mapping[str, Any]
    expects_response: bool


@attrs.define
class _Waiting:
    answered: trio.Event = attrs.field(factory=trio.Event)
    result: ToolResult | None = None


class ClientTools:
    """The tools of one session."""

    def __init__(self, tools: Iterable[ClientTool]) -> None:
        self._tools: dict[str, ClientTool] = {}
        self.offer(tools)
        self._ask: Callable[[ToolQuestion], None] = lambda _: None
        self._waiting: dict[str, _Waiting] = {}

    def offer(self, tools: Iterable[ClientTool]) -> None:
        """Have these from now on, in the place of those before."""
        self._tools = {tool.tool.name: tool for tool in tools}

    def asked_by(self, ask: Callable[[ToolQuestion], None]) -> None:
        """Ask the client by this; it never waits, and passes over a turn that has ended."""
        self._ask = ask

    def of_turn(self, turn_id: int) -> "TurnTools | None":
        """The same for the questions of one turn; None: there are no tools."""
        return TurnTools(self, turn_id) if self._tools else None

    @property
    def offered(self) -> tuple[Tool, ...]:
        """What the model may ask for."""
        return tuple(tool.tool for tool in self._tools.values())

    def awaits(self, call_id: str) -> bool:
        """Whether a model waits for what comes of this call."""
        waiting = self._waiting.get(call_id)
        return waiting is not None and waiting.result is None

    def answered(self, call_id: str, text: str, *, is_error: bool) -> None:
        """The client has answered; nobody waits for an unknown call, or one that has been answered."""
        waiting = self._waiting.get(call_id)
        if waiting is not None and waiting.result is None:
            waiting.result = ToolResult(text, is_error)
            waiting.answered.set()

    async def call(self, turn_id: int, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Ask the client, and wait for its answer; cancelled with the turn, which then is not asked for."""
        tool = self._tools.get(name)
        if tool is None:  # the client has taken it away meanwhile
            await trio.lowlevel.checkpoint()
            return ToolResult("There is no such tool.", is_error=True)
        question = ToolQuestion(
            turn_id=turn_id,
            call_id=f"call_{secrets.token_hex(8)}",
            name=name,
            arguments=arguments,
            expects_response=tool.expects_response,
        )
        waiting = self._waiting[question.call_id] = _Waiting()
        try:
            self._ask(question)
            if not tool.expects_response:
                await trio.lowlevel.checkpoint()
                return ToolResult("The tool has been called.")
            with trio.move_on_after(tool.timeout_s):
                await waiting.answered.wait()
            return waiting.result or ToolResult("The tool did not answer in time.", is_error=True)
        finally:
            del self._waiting[question.call_id]


@attrs.frozen
class TurnTools:
    """`Tools` of one turn."""

    tools: ClientTools
    turn_id: int

    @property
    def offered(self) -> tuple[Tool, ...]:
        """See `Tools.offered`."""
        return self.tools.offered

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """See `Tools.call`."""
        return await self.tools.call(self.turn_id, name, arguments)
