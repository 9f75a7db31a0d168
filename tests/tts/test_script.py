"""Reading a reply's text: what is known, what is waited for, what is read again."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from voice_fsm.tts.script import Script, as_channel


async def test_what_is_there_is_known_without_waiting() -> None:
    """All of the text and its end, if both were written before; what cannot be spoken is left out."""
    write, read = trio.open_memory_channel[str](3)
    script = Script(read, max_piece_chars=6)
    assert not script.knows(0)

    for text in ("Hello there.", "\N{GRINNING FACE}", "Bye."):
        write.send_nowait(text)
    assert script.knows(2)
    assert not script.knows(3)
    write.close()
    assert script.knows(3)

    with trio.CancelScope() as scope:
        scope.cancel()  # nothing waits, so nothing ends here
        assert [await script.piece(number) for number in (0, 1, 2, 3, 0)] == [
            "Hello",
            "there.",
            "Bye.",
            None,
            "Hello",
        ]


async def _counting() -> AsyncIterator[str]:
    for number in range(3):
        await trio.sleep(2)
        yield str(number)


@pytest.mark.parametrize("is_channel", [True, False])
async def test_waiting_for_a_piece_may_be_given_up(
    autojump_clock: Any, nursery: trio.Nursery, is_channel: bool
) -> None:
    """The next wait gets it, be the text a channel or an iterator that a cancellation would end."""
    write, read = trio.open_memory_channel[str](0)

    async def count() -> None:
        with write:
            async for text in _counting():
                await write.send(text)

    if is_channel:
        nursery.start_soon(count)
    async with as_channel(read if is_channel else _counting()) as pieces:
        script = Script(pieces)
        for number in range(3):
            with trio.move_on_after(1) as scope:
                await script.piece(number)
            assert scope.cancelled_caught
            assert await script.piece(number) == str(number)
        assert await script.piece(3) is None
