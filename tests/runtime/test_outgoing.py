import math
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_fsm.fsm.effects import PartialHeard, SpeechBegan, SpeechEnded
from voice_fsm.fsm.options import PCM_24K
from voice_fsm.runtime.outgoing import (
    BURST,
    MAX_NOTICES,
    MAX_TURN_OUTPUT,
    AudioChunk,
    Item,
    Outgoing,
    SlowClient,
    TextDelta,
)


def chunk(turn_id: int, number: int, duration_ms: float = 400) -> AudioChunk:
    """Long enough not to be joined to its neighbour."""
    return AudioChunk(turn_id, PCM_24K, bytes([number]) * PCM_24K.size_bytes(duration_ms))


async def drain(outgoing: Outgoing) -> list[Item]:
    outgoing.finish()
    drained: list[Item] = []
    while items := await outgoing.take():
        drained += items
    return drained


async def test_notices_go_before_audio_that_waits() -> None:
    """Among themselves both keep their order; text of the reply is ordered with the notices."""
    outgoing = Outgoing()
    outgoing.admit(1)
    await outgoing.put_output(chunk(1, 1))
    outgoing.put(PartialHeard("a"))
    await outgoing.put_output(TextDelta(1, "b"))
    await outgoing.put_output(chunk(1, 2))
    outgoing.put(PartialHeard("c"))
    assert await drain(outgoing) == [
        PartialHeard("a"),
        TextDelta(1, "b"),
        PartialHeard("c"),
        chunk(1, 1),
        chunk(1, 2),
    ]


async def test_output_waits_for_credit_and_notices_do_not() -> None:
    """A full queue holds the turn's audio back; its text and a notice go in at once."""
    outgoing = Outgoing()
    outgoing.admit(1)
    async with trio.open_nursery() as nursery:

        async def produce() -> None:
            for index in range(MAX_TURN_OUTPUT + 2):
                await outgoing.put_output(chunk(1, index))

        nursery.start_soon(produce)
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await outgoing.put_output(TextDelta(1, "still said"))
        outgoing.put(PartialHeard("still heard"))
        assert await outgoing.take() == [TextDelta(1, "still said"), PartialHeard("still heard"), chunk(1, 0)]
        await wait_all_tasks_blocked()
        taken = [await outgoing.take() for _ in range(MAX_TURN_OUTPUT + 1)]
        assert taken == [[chunk(1, index)] for index in range(1, MAX_TURN_OUTPUT + 2)]


async def test_audio_is_held_back_until_it_is_due(autojump_clock: MockClock) -> None:
    """Notices pass it, and it goes at its time."""
    outgoing = Outgoing(lambda: 5.0)
    outgoing.admit(1)
    await outgoing.put_output(chunk(1, 1))
    outgoing.put(PartialHeard("now"))
    assert await outgoing.take() == [PartialHeard("now")]
    assert await outgoing.take() == [chunk(1, 1)]
    assert trio.current_time() == 5.0


async def test_audio_held_back_for_good_goes_when_the_writer_is_woken() -> None:
    """Nothing is lost of a reply that was paused."""
    due_s = math.inf
    outgoing = Outgoing(lambda: due_s)
    outgoing.admit(1)
    await outgoing.put_output(chunk(1, 1))
    taken: list[Item] = []

    async def take() -> None:
        taken.extend(await outgoing.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        outgoing.wake()
        await wait_all_tasks_blocked()
        assert taken == []
        due_s = -math.inf
        outgoing.wake()
    assert taken == [chunk(1, 1)]


async def test_a_flush_drops_output_and_gives_its_credits_back() -> None:
    """What waits of the turn is gone, what comes late is refused, the next turn has all credits."""
    outgoing = Outgoing()
    outgoing.admit(1)
    for index in range(MAX_TURN_OUTPUT):
        await outgoing.put_output(chunk(1, index))
    outgoing.put(PartialHeard("kept"))
    outgoing.flush(1)
    await outgoing.put_output(chunk(1, 99))
    outgoing.admit(2)
    with trio.fail_after(1):
        for index in range(MAX_TURN_OUTPUT):
            await outgoing.put_output(chunk(2, index))
    items = await drain(outgoing)
    assert items[0] == PartialHeard("kept")
    assert {item.turn_id for item in items[1:] if isinstance(item, AudioChunk)} == {2}


async def test_a_producer_that_waits_for_credit_is_refused_after_the_flush() -> None:
    """The item that was waiting when the turn was interrupted never gets in."""
    outgoing = Outgoing()
    outgoing.admit(1)
    async with trio.open_nursery() as nursery:
        for index in range(MAX_TURN_OUTPUT):
            await outgoing.put_output(chunk(1, index))
        nursery.start_soon(outgoing.put_output, chunk(1, 99))
        await wait_all_tasks_blocked()
        outgoing.flush(1)
    assert await drain(outgoing) == []


async def test_audio_that_waits_is_joined() -> None:
    """Small pieces become messages of half a second, in order, whatever else waits."""
    outgoing = Outgoing()
    outgoing.admit(1)
    with trio.fail_after(1):
        for number in range(20):
            await outgoing.put_output(chunk(1, number, 100))
            if number == 11:
                outgoing.put(PartialHeard("between"))
    items = await drain(outgoing)
    audio = [item.data for item in items if isinstance(item, AudioChunk)]
    assert [PCM_24K.duration_ms(len(data)) for data in audio] == [500, 500, 500, 500]
    assert b"".join(audio) == b"".join(chunk(1, number, 100).data for number in range(20))
    assert items[0] == PartialHeard("between")


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_flush_before_the_writer_runs_does_not_end_it(*, is_waiting: bool) -> None:
    """Output that is gone by the time the writer comes for it is no end of the queue."""
    outgoing = Outgoing()
    outgoing.admit(1)
    taken: list[Item] = []

    async def take() -> None:
        taken.extend(await outgoing.take())

    if not is_waiting:
        await outgoing.put_output(chunk(1, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        if is_waiting:
            await wait_all_tasks_blocked()
            await outgoing.put_output(chunk(1, 1))
        outgoing.flush(1)
        await wait_all_tasks_blocked()
        assert taken == []
        outgoing.put(PartialHeard("later"))
    assert taken == [PartialHeard("later")]


async def test_drained_waits_for_the_item_in_hand() -> None:
    """An item is sent when the writer comes for the next one, not when it takes it."""
    outgoing = Outgoing()
    outgoing.admit(1)
    await outgoing.put_output(chunk(1, 1))
    async with trio.open_nursery() as nursery:
        drained = trio.Event()

        async def wait() -> None:
            await outgoing.drained()
            drained.set()

        nursery.start_soon(wait)
        await outgoing.take()
        await wait_all_tasks_blocked()
        assert not drained.is_set()
        nursery.start_soon(outgoing.take)
        await drained.wait()
        outgoing.finish()


async def test_too_many_notices_mean_that_nobody_reads() -> None:
    """The bound is reported, not waited for."""
    outgoing = Outgoing()
    for _ in range(MAX_NOTICES):
        outgoing.put(PartialHeard("x"))
    with pytest.raises(SlowClient):
        outgoing.put(PartialHeard("x"))
    await outgoing.take()
    outgoing.put(PartialHeard("x"))


async def test_what_the_client_is_not_told_wakes_nobody() -> None:
    """Neither a notice nor output of a turn, which takes no credit; a new choice counts at once."""
    outgoing = Outgoing()
    outgoing.admit(1)
    outgoing.untold = frozenset({SpeechBegan, TextDelta})
    taken: list[Item] = []

    async def take() -> None:
        taken.extend(await outgoing.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        outgoing.put(SpeechBegan())
        with trio.fail_after(1):
            for _ in range(MAX_TURN_OUTPUT + 1):
                await outgoing.put_output(TextDelta(1, "untold"))
            await outgoing.drained()
        await wait_all_tasks_blocked()
        assert taken == []
        outgoing.put(SpeechEnded())
    outgoing.untold = frozenset({SpeechEnded})
    outgoing.put(SpeechBegan())
    outgoing.put(SpeechEnded())
    await outgoing.put_output(TextDelta(1, "told"))
    assert [*taken, *await drain(outgoing)] == [SpeechEnded(), SpeechBegan(), TextDelta(1, "told")]


async def test_what_waits_is_taken_in_a_row_but_not_for_ever() -> None:
    """Some at once; then others run; a writer that is cancelled takes none."""
    outgoing = Outgoing()
    for _ in range(3 * BURST):
        outgoing.put(SpeechBegan())
    before: list[int] = []
    taken = 0

    async def look() -> None:
        while taken < 3 * BURST:
            before.append(taken)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        while taken < 3 * BURST:
            items = await outgoing.take()
            assert len(items) == BURST
            taken += len(items)
    # Two tasks that are ready run in any order, so one may have two turns between two of the other's.
    assert max(later - earlier for earlier, later in pairwise([*before, taken])) <= 2 * BURST
    assert len(before) < BURST
    outgoing.put(SpeechEnded())
    with trio.CancelScope() as scope:
        scope.cancel()
        await outgoing.take()
    assert scope.cancelled_caught
    assert await outgoing.take() == [SpeechEnded()]


async def test_a_finished_queue_takes_nothing_more() -> None:
    """After the last words there are no others."""
    outgoing = Outgoing()
    outgoing.admit(1)
    outgoing.finish()
    outgoing.put(PartialHeard("x"))
    await outgoing.put_output(chunk(1, 1))
    assert not await outgoing.take()
