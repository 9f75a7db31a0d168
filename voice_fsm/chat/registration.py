"""Registrations that a backend has given, kept so that each is asked for once."""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import NoReturn

import attrs
import trio

from voice_fsm.errors import ProviderError
from voice_fsm.fsm.options import BackendOptions

_values = attrgetter(*(field.name for field in attrs.fields(BackendOptions)))

Register = Callable[[], Awaitable[str]]


@attrs.frozen
class _Kept:
    registration_id: str
    until_s: float


@attrs.define(eq=False)
class _Flight:
    """A registration under way, which others wait for."""

    landed: trio.Event = attrs.field(factory=trio.Event)
    registration_id: str | None = None
    error: ProviderError | None = None


class Registrations:
    """A bounded cache by the registration's inputs, of which it keeps only a keyed hash.

    Whoever asks for inputs that are being registered waits for that one call. Should the caller that makes
    it be cancelled, the next one makes it anew; should it fail, all are told.
    """

    def __init__(self, *, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._flights: dict[bytes, _Flight] = {}
        self._hash_key = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, inputs: BackendOptions, register: Register) -> str:
        """Give the id for these inputs, by calling ``register`` if there is none yet.

        Raises:
            ProviderError: what ``register`` raised, here or where it was called for others too.
        """
        key = self._key(inputs)
        while True:
            if (kept := self._look_up(key)) is not None:
                return kept
            flight = self._flights.get(key)
            if flight is None:
                return await self._fly(key, register)
            await flight.landed.wait()
            if flight.registration_id is not None:
                return flight.registration_id
            if flight.error is not None:
                _raise_again(flight.error)

    def forget(self, inputs: BackendOptions, registration_id: str) -> None:
        """Drop an id that the backend no longer knows, unless a newer one has taken its place."""
        key = self._key(inputs)
        kept = self._kept.get(key)
        if kept is not None and kept.registration_id == registration_id:
            del self._kept[key]

    async def _fly(self, key: bytes, register: Register) -> str:
        flight = self._flights[key] = _Flight()
        try:
            flight.registration_id = await register()
        except ProviderError as error:
            flight.error = error
            raise
        else:
            self._keep(key, flight.registration_id)
            return flight.registration_id
        finally:
            del self._flights[key]
            flight.landed.set()

    def _look_up(self, key: bytes) -> str | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until_s <= trio.current_time():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept.registration_id

    def _keep(self, key: bytes, registration_id: str) -> None:
        self._kept[key] = _Kept(registration_id, trio.current_time() + self._ttl_s)
        while len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)

    def _key(self, inputs: BackendOptions) -> bytes:
        return hashlib.blake2b(ascii(_values(inputs)).encode(), key=self._hash_key).digest()


def _raise_again(error: ProviderError) -> NoReturn:
    """Raise a likeness: one exception object cannot travel through several tasks' tracebacks at once."""
    raise ProviderError(
        error.upstream,
        error.fault,
        error.message,
        field=error.field,
        status=error.status,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
    )
