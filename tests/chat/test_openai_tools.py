"""Tools of the front end, called by a model that speaks chat completions."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import httpx
import pytest

from tests.chat.test_openai import config, question, text_of
from tests.fakes.http_server import Request, Step, serve_http, streamed
from tests.fakes.openai_chat import DONE, ROLE, completion_chunk, openai_stream, said
from voice_fsm.chat.base import ReplyPart, Tool, ToolResult
from voice_fsm.chat.openai import OpenAiChat
from voice_fsm.chat.openai_tools import MAX_ROUNDS
from voice_fsm.errors import ProviderError

WEATHER = Tool(name="weather", description="Of a city.", parameters={"type": "object"})
TOOLS_STOP = completion_chunk(finish_reason="tool_calls")


def asking(name: str, *arguments: str, index: int = 0) -> list[bytes]:
    """A call as it is streamed: id and name first, the arguments in pieces."""
    first = {
        "index": index,
        "id": f"c{index}",
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
    pieces = [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return [completion_chunk({"tool_calls": [piece]}) for piece in (first, *pieces)]


@attrs.define
class Model:
    """A host that plays one stream a question."""

    streams: list[list[bytes]]
    calls: list[Request] = attrs.field(factory=list)

    def __call__(self, request: Request) -> Iterable[Step]:
        self.calls.append(request)
        return streamed(*self.streams[min(len(self.calls), len(self.streams)) - 1])


@attrs.define
class FrontEnd:
    """Its tools, and what they were called with."""

    offered: tuple[Tool, ...] = (WEATHER,)
    result: ToolResult = attrs.field(factory=lambda: ToolResult("It rains."))
    called: list[tuple[str, Mapping[str, Any]]] = attrs.field(factory=list)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.called.append((name, arguments))
        return self.result


async def ask(client: httpx.AsyncClient, model: Model, front_end: FrontEnd) -> list[ReplyPart]:
    async with serve_http(model) as server:
        chat = OpenAiChat(client, config(server.url))
        async with chat.reply(question("Weather?", tools=front_end)) as parts:
            return [part async for part in parts]


async def test_the_model_asks_and_goes_on_with_what_it_is_told(client: httpx.AsyncClient) -> None:
    """Tools are offered with each question; what was said and asked before goes along."""
    first = [ROLE, said("One moment."), *asking("weather", '{"city"', ': "Rome"}'), TOOLS_STOP, DONE]
    model, front_end = Model([first, openai_stream("It ", "rains.")]), FrontEnd()
    parts = await ask(client, model, front_end)
    assert text_of(parts) == "One moment. It rains."
    assert front_end.called == [("weather", {"city": "Rome"})]
    bodies = [call.json() for call in model.calls]
    for body in bodies:
        assert body["tools"] == [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Of a city.",
                    "parameters": {"type": "object"},
                },
            }
        ]
    assert bodies[1]["messages"][:-2] == bodies[0]["messages"]
    assert bodies[1]["messages"][-2:] == [
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [
                {
                    "id": "c0",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "It rains."},
    ]


async def test_several_calls_are_answered_in_their_order(client: httpx.AsyncClient) -> None:
    """Each with its id; a call without arguments has none."""
    first = [ROLE, *asking("weather", "{}"), *asking("weather", index=1), TOOLS_STOP, DONE]
    model = Model([first, openai_stream("Fine.")])
    await ask(client, model, FrontEnd())
    answers = [message for message in model.calls[1].json()["messages"] if message["role"] == "tool"]
    assert [answer["tool_call_id"] for answer in answers] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("weather", "not json", "Error: The arguments are not a JSON object."),
        ("weather", "[]", "Error: The arguments are not a JSON object."),
        ("nothing", "{}", "Error: There is no such tool."),
    ],
)
async def test_the_model_is_told_of_its_mistakes(
    client: httpx.AsyncClient, name: str, arguments: str, told: str
) -> None:
    """The front end is not asked."""
    model = Model([[ROLE, *asking(name, arguments), TOOLS_STOP, DONE], openai_stream("Sorry.")])
    front_end = FrontEnd()
    assert text_of(await ask(client, model, front_end)) == "Sorry."
    assert model.calls[1].json()["messages"][-1]["content"] == told
    assert front_end.called == []


async def test_a_tool_that_fails_is_told_as_such(client: httpx.AsyncClient) -> None:
    """The model may then say so."""
    model = Model([[ROLE, *asking("weather", "{}"), TOOLS_STOP, DONE], openai_stream("Sorry.")])
    await ask(client, model, FrontEnd(result=ToolResult("No network.", is_error=True)))
    assert model.calls[1].json()["messages"][-1]["content"] == "Error: No network."


async def test_a_model_that_asks_without_end_is_stopped(client: httpx.AsyncClient) -> None:
    """After a few rounds the turn fails."""
    model, front_end = Model([[ROLE, *asking("weather", "{}"), TOOLS_STOP, DONE]]), FrontEnd()
    with pytest.RaisesGroup(ProviderError, allow_unwrapped=True, flatten_subgroups=True):
        await ask(client, model, front_end)
    assert len(front_end.called) == MAX_ROUNDS


async def test_without_tools_none_are_offered(client: httpx.AsyncClient) -> None:
    """And a model that asks all the same has given no answer."""
    model = Model([[ROLE, *asking("weather", "{}"), TOOLS_STOP, DONE]])
    async with serve_http(model) as server:
        chat = OpenAiChat(client, config(server.url))
        with pytest.raises(ProviderError, match="asked for a tool"):
            async with chat.reply(question()) as parts:
                [part async for part in parts]
    assert "tools" not in model.calls[0].json()
