import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_fsm.chat.registration import Registrations
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import BackendOptions

INPUTS = BackendOptions(provider="acme", api_key="s3cr3t", model="m")


@attrs.define
class Registrar:
    """Gives out ids, one a second, or fails."""

    error: ProviderError | None = None
    calls: int = 0

    async def __call__(self) -> str:
        self.calls += 1
        call = self.calls
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return f"reg-{call}"


def cache(*, ttl_s: float = 60, max_entries: int = 10) -> Registrations:
    return Registrations(ttl_s=ttl_s, max_entries=max_entries)


async def test_an_id_is_asked_for_once(autojump_clock: MockClock) -> None:
    """The second time the id is known."""
    registrations, registrar = cache(), Registrar()
    assert await registrations.get(INPUTS, registrar) == "reg-1"
    assert await registrations.get(INPUTS, registrar) == "reg-1"


async def test_other_inputs_have_another_id(autojump_clock: MockClock) -> None:
    """Whatever differs, the key too, makes another registration."""
    registrations, registrar = cache(), Registrar()
    others = [
        attrs.evolve(INPUTS, **{name: "other"})
        for name in ("provider", "api_key", "model", "base_url", "system_prompt")
    ]
    ids = {await registrations.get(inputs, registrar) for inputs in [INPUTS, *others]}
    assert len(ids) == 6


async def test_a_hundred_at_once_make_one_call(autojump_clock: MockClock) -> None:
    """Sessions that begin together share one registration."""
    registrations, registrar, ids = cache(), Registrar(), []

    async def get() -> None:
        ids.append(await registrations.get(INPUTS, registrar))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(get)
    assert ids == ["reg-1"] * 100
    assert registrar.calls == 1


async def test_a_cancelled_leader_does_not_fail_the_others(autojump_clock: MockClock) -> None:
    """When the session that makes the call ends, another makes it anew, and once."""
    registrations, registrar, ids = cache(), Registrar(), []

    async def get() -> None:
        ids.append(await registrations.get(INPUTS, registrar))

    async with trio.open_nursery() as nursery:
        leader = trio.CancelScope()

        async def lead() -> None:
            with leader:
                await get()

        nursery.start_soon(lead)
        await wait_all_tasks_blocked()
        for _ in range(10):
            nursery.start_soon(get)
        await wait_all_tasks_blocked()
        leader.cancel()
    assert ids == ["reg-2"] * 10


async def test_a_failure_is_told_to_all_and_not_kept(autojump_clock: MockClock) -> None:
    """All who waited get the error, each its own, and the next asks again."""
    error = ProviderError(
        Upstream.CHAT, ProviderFault.OVERLOADED, "no", status=503, request_id="r", retry_after_s=2.0
    )
    registrations, registrar = cache(), Registrar(error)
    errors: list[ProviderError] = []

    async def get() -> None:
        with pytest.raises(ProviderError) as caught:
            await registrations.get(INPUTS, registrar)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get)
    assert registrar.calls == 1
    assert len({id(error) for error in errors}) == 3
    facts = {(e.code, e.message, e.status, e.request_id, e.retry_after_s) for e in errors}
    assert facts == {("chat_overloaded", "no", 503, "r", 2.0)}
    registrar.error = None
    assert await registrations.get(INPUTS, registrar) == "reg-2"


async def test_an_id_has_a_life_time(autojump_clock: MockClock) -> None:
    """After it, the id is asked for anew."""
    registrations, registrar = cache(ttl_s=60), Registrar()
    await registrations.get(INPUTS, registrar)
    await trio.sleep(59.9)
    assert await registrations.get(INPUTS, registrar) == "reg-1"
    await trio.sleep(0.1)
    assert await registrations.get(INPUTS, registrar) == "reg-2"


async def test_the_least_recently_used_is_dropped(autojump_clock: MockClock) -> None:
    """The cache does not grow with what clients make up."""
    registrations, registrar = cache(max_entries=2), Registrar()
    first, second, third = (attrs.evolve(INPUTS, model=model) for model in "abc")
    for inputs in (first, second, first, third):
        await registrations.get(inputs, registrar)
    assert len(registrations) == 2
    assert await registrations.get(first, registrar) == "reg-1"
    assert await registrations.get(second, registrar) == "reg-4"


async def test_a_forgotten_id_is_asked_for_anew(autojump_clock: MockClock) -> None:
    """Forgetting is of one id: who comes late with the old one does not drop the new."""
    registrations, registrar = cache(), Registrar()
    await registrations.get(INPUTS, registrar)
    registrations.forget(INPUTS, "reg-1")
    assert await registrations.get(INPUTS, registrar) == "reg-2"
    registrations.forget(INPUTS, "reg-1")
    registrations.forget(BackendOptions(), "reg-1")
    assert await registrations.get(INPUTS, registrar) == "reg-2"


async def test_no_key_is_kept(autojump_clock: MockClock) -> None:
    """What stays in memory is a hash with a key of this process."""
    one, two = cache(), cache()
    for registrations in (one, two):
        await registrations.get(INPUTS, Registrar())
    assert "s3cr3t" not in repr(one._kept)
    assert set(one._kept) != set(two._kept)
