"""Tools of the front end, asked for by way of its client."""

import trio
from trio.testing import MockClock

from voice_fsm.chat.base import Tool, ToolResult
from voice_fsm.runtime.client_tools import ClientTool, ClientTools, ToolQuestion


def tools() -> tuple[ClientTools, list[ToolQuestion]]:
    asked: list[ToolQuestion] = []
    offered = ClientTools([ClientTool(tool=Tool(name="t"), timeout_s=5.0)])
    offered.asked_by(asked.append)
    return offered, asked


async def test_each_call_gets_the_answer_that_is_meant_for_it() -> None:
    """Also when they come in another order; only the first answer counts."""
    offered, asked = tools()
    results: dict[int, ToolResult] = {}

    async def call(number: int) -> None:
        results[number] = await offered.call(1, "t", {"number": number})

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(call, number)
        await trio.testing.wait_all_tasks_blocked()
        for question in reversed(asked):
            offered.answered(question.call_id, f"answer {question.arguments['number']}", is_error=False)
            offered.answered(question.call_id, "another", is_error=True)
    assert results == {number: ToolResult(f"answer {number}") for number in range(3)}
    assert len({question.call_id for question in asked}) == 3


async def test_nothing_is_left_of_a_call(autojump_clock: MockClock) -> None:
    """Neither of one that was answered too late, nor of one that was cancelled."""
    offered, asked = tools()
    assert (await offered.call(1, "t", {})).is_error
    with trio.move_on_after(1.0):
        await offered.call(1, "t", {})
    for question in asked:
        offered.answered(question.call_id, "late", is_error=False)
    assert offered._waiting == {}


def test_a_front_end_without_tools_offers_none() -> None:
    """So that providers ask as if there were no such thing."""
    assert ClientTools([]).of_turn(1) is None
