"""Tools of the front end, for models that ask for them by chat completions' ``tool_calls``."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs
import trio

from voice_fsm.chat.base import ReplyPart, ReplyText, ToolResult, Tools
from voice_fsm.chat.conversation import Message
from voice_fsm.chat.openai_stream import OpenAiStream, ToolCall
from voice_fsm.chat.reply import Reply
from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.upstream.faults import provider_error

MAX_ROUNDS: Final = 5
"""How often one turn may ask for tools; a model that goes on has lost its way."""
MAX_RESULT_CHARS: Final = 8000


@attrs.frozen
class OpenReply:
    """A reply, and the decoder that learns from it what the model wants called."""

    reply: Reply
    stream: OpenAiStream


AskAgain = Callable[..., Awaitable[OpenReply]]
"""Given a stack that closes the call, and ``messages``."""


def tool_fields(tools: Tools) -> list[dict[str, Any]]:
    """Write the request's ``tools``."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in tools.offered
    ]


@trio.as_safe_channel
async def with_tools(
    first: OpenReply, messages: list[Message], ask_again: AskAgain, tools: Tools
) -> AsyncGenerator[ReplyPart, None]:
    """Give the reply's parts; where the model asks for tools, call them and let it go on.

    Raises:
        ProviderError: what asking and reading raise, or the model asks without end.
    """
    current = first
    async with AsyncExitStack() as stack:
        for _ in range(MAX_ROUNDS):
            text = ""
            async for part in current.reply:
                text += part.text if isinstance(part, ReplyText) else ""
                yield part
            calls = current.stream.calls
            if not calls:
                return
            if text and not text[-1].isspace():
                yield ReplyText(" ")
            messages += [_asked(text, calls), *[await _answered(call, tools) for call in calls]]
            current = await ask_again(stack, messages=messages)
    raise provider_error(
        Upstream.CHAT, ProviderFault.BAD_RESPONSE, "The chat model asks for tools without end."
    )


def _asked(text: str, calls: list[ToolCall]) -> Message:
    return {
        "role": "assistant",
        "content": text or None,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in calls
        ],
    }


async def _answered(call: ToolCall, tools: Tools) -> Message:
    result = await _result(call, tools)
    text = f"Error: {result.text}" if result.is_error else result.text
    return {"role": "tool", "tool_call_id": call.id, "content": text[:MAX_RESULT_CHARS]}


async def _result(call: ToolCall, tools: Tools) -> ToolResult:
    arguments = _arguments(call.arguments)
    if arguments is None:
        return ToolResult("The arguments are not a JSON object.", is_error=True)
    if all(tool.name != call.name for tool in tools.offered):
        return ToolResult("There is no such tool.", is_error=True)
    return await tools.call(call.name, arguments)


def _arguments(text: str) -> Mapping[str, Any] | None:
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
