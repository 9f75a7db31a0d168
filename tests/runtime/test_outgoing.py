import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from voice_fsm.fsm.effects import PartialHeard
from voice_fsm.fsm.options import PCM_24K
from voice_fsm.runtime.outgoing import MAX_NOTICES, MAX_TURN_OUTPUT, AudioChunk, Item, Outgoing, SlowClient


def chunk(turn_id: int, number: int, duration_ms: float = 400) -> AudioChunk:
    """Long enough not to be joined to its neighbour."""
    return AudioChunk(turn_id, PCM_24K, bytes([number]) * PCM_24K.size_bytes(duration_ms))


async def drain(outgoing: Outgoing) -> list[Item]:
    outgoing.finish()
    items = []
    while (item := await outgoing.take()) is not None:
        items.append(item)
    return items


async def test_order_is_kept_between_output_and_notices() -> None:
    """What was put first is sent first."""
    outgoing = Outgoing()
    outgoing.admit(1)
    put: list[Item] = [PartialHeard("a"), chunk(1, 1), PartialHeard("b"), chunk(1, 2)]
    for item in put:
        if isinstance(item, AudioChunk):
            await outgoing.put_output(item)
        else:
            outgoing.put(item)  # type: ignore[arg-type]  # the test's own list is of all kinds
    assert await drain(outgoing) == put


async def test_output_waits_for_credit_and_notices_do_not() -> None:
    """A full queue holds the turn back; a notice goes in at once."""
    outgoing = Outgoing()
    outgoing.admit(1)
    async with trio.open_nursery() as nursery:

        async def produce() -> None:
            for index in range(MAX_TURN_OUTPUT + 2):
                await outgoing.put_output(chunk(1, index))

        nursery.start_soon(produce)
        await wait_all_tasks_blocked()
        outgoing.put(PartialHeard("still heard"))
        taken = [await outgoing.take() for _ in range(MAX_TURN_OUTPUT + 1)]
        assert taken[-1] == PartialHeard("still heard")
        await wait_all_tasks_blocked()
        assert len(await drain(outgoing)) == 2


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
    """Small pieces become messages of half a second, in order and across nothing else."""
    outgoing = Outgoing()
    outgoing.admit(1)
    with trio.fail_after(1):
        for number in range(20):
            await outgoing.put_output(chunk(1, number, 100))
            if number == 11:
                outgoing.put(PartialHeard("between"))
    items = await drain(outgoing)
    audio = [item.data for item in items if isinstance(item, AudioChunk)]
    assert [PCM_24K.duration_ms(len(data)) for data in audio] == [500, 500, 200, 500, 300]
    assert b"".join(audio) == b"".join(chunk(1, number, 100).data for number in range(20))
    assert items[3] == PartialHeard("between")


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_flush_before_the_writer_runs_does_not_end_it(*, is_waiting: bool) -> None:
    """Output that is gone by the time the writer comes for it is no end of the queue."""
    outgoing = Outgoing()
    outgoing.admit(1)
    taken: list[Item | None] = []

    async def take() -> None:
        taken.append(await outgoing.take())

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


async def test_a_finished_queue_takes_nothing_more() -> None:
    """After the last words there are no others."""
    outgoing = Outgoing()
    outgoing.admit(1)
    outgoing.finish()
    outgoing.put(PartialHeard("x"))
    await outgoing.put_output(chunk(1, 1))
    assert await outgoing.take() is None
