"""Sockets opened ahead: claimed once, never too old, never dead, never left behind."""

import base64
import hashlib
import random
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes.elevenlabs_tts import FakeElevenLabsTts, Refuse, Trouble, serve_elevenlabs_tts
from tests.fakes.sockets import read_head, serve
from voice_fsm.errors import ProviderError
from voice_fsm.tts.elevenlabs_wire import error_of_refusal
from voice_fsm.tts.sockets import SocketPool, open_speech_socket
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.websocket import background_nursery

VOICE = "voice-1"
OTHER_VOICE = "voice-2"
TEXT = '{"text":"Hi. ","context_id":"a"}'

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""


@asynccontextmanager
async def pool(
    fake: FakeElevenLabsTts, *, max_idle: int = 2, idle_s: float = 60
) -> AsyncIterator[SocketPool[str]]:
    async with serve_elevenlabs_tts(fake) as url, background_nursery() as nursery:
        yield SocketPool(nursery, partial(connect, url, fake.api_key), max_idle=max_idle, idle_s=idle_s)


def connect(base_url: str, key: str, voice: str) -> AbstractAsyncContextManager[UpstreamSocket]:
    path = f"/v1/text-to-speech/{voice}/multi-stream-input?inactivity_timeout=180"
    url = base_url.replace("http", "ws", 1) + path
    return open_speech_socket(url, {"xi-api-key": key}, 1.0, error_of_refusal)


async def nothing(_: UpstreamSocket) -> None:
    """A reply that does its own talking."""


async def test_a_claimed_socket_has_no_handshake_left(autojump_clock: Any) -> None:
    """After prewarming, the connection is there at once."""
    fake = FakeElevenLabsTts()
    async with pool(fake) as sockets:
        sockets.prewarm(VOICE)
        await trio.sleep(1)

        socket = sockets.claim(VOICE)
        claimed_s = trio.current_time()
        await (await socket.connection(nothing)).send_message(TEXT)
        assert trio.current_time() == claimed_s
        assert sockets.idle_count == 0
        assert len(fake.streams) == 1
        await socket.release()
        await fake.streams_gone()


async def test_a_claim_joins_a_handshake_under_way(autojump_clock: Any) -> None:
    """A socket that is still being opened is claimed rather than a second one opened."""
    fake = FakeElevenLabsTts()
    async with pool(fake) as sockets:
        sockets.prewarm(VOICE)
        socket = sockets.claim(VOICE)
        await socket.connection(nothing)
        await trio.sleep(1)
        assert fake.live_streams == 1
        await socket.release()


async def test_a_socket_serves_one_claim(autojump_clock: Any) -> None:
    """The second claim gets a socket of its own."""
    fake = FakeElevenLabsTts()
    async with pool(fake) as sockets:
        sockets.prewarm(VOICE)
        first, second = sockets.claim(VOICE), sockets.claim(VOICE)
        assert await first.connection(nothing) is not await second.connection(nothing)
        await first.release()
        await second.release()


async def test_a_socket_of_another_voice_is_left_alone(autojump_clock: Any) -> None:
    """What was asked for by the address makes another socket."""
    fake = FakeElevenLabsTts()
    async with pool(fake) as sockets:
        sockets.prewarm(VOICE)
        assert sockets.has(VOICE)
        assert not sockets.has(OTHER_VOICE)
        await sockets.claim(OTHER_VOICE).release()
        assert sockets.idle_count == 1


async def test_no_more_idle_sockets_than_allowed(autojump_clock: Any) -> None:
    """Prewarming beyond the limit opens nothing, nor where one is ready; claimed sockets do not count."""
    fake = FakeElevenLabsTts(voices=frozenset({VOICE, OTHER_VOICE, "voice-3"}))
    async with pool(fake, max_idle=2) as sockets:
        for voice in (VOICE, VOICE, OTHER_VOICE, "voice-3"):
            sockets.prewarm(voice)
        await trio.sleep(1)
        assert fake.live_streams == sockets.idle_count == 2
        assert not sockets.has("voice-3")

        sockets.claim(VOICE)
        sockets.prewarm(VOICE)
        await trio.sleep(1)
        assert fake.live_streams == 3


async def test_an_old_socket_is_closed(autojump_clock: Any) -> None:
    """A socket that nobody claims ends after its time, before the service would end it."""
    fake = FakeElevenLabsTts()
    async with pool(fake, idle_s=60) as sockets:
        sockets.prewarm(VOICE)
        await trio.sleep(59)
        assert fake.live_streams == 1
        await trio.sleep(2)
        assert fake.live_streams == sockets.idle_count == 0
        assert fake.streams[0].close_code == 1000


async def test_a_claimed_socket_does_not_age(autojump_clock: Any) -> None:
    """The time that an idle socket has ends with the claim."""
    fake = FakeElevenLabsTts()
    async with pool(fake, idle_s=60) as sockets:
        sockets.prewarm(VOICE)
        await trio.sleep(59)
        socket = sockets.claim(VOICE)
        await trio.sleep(100)
        assert socket.is_usable
        await socket.release()


async def test_a_socket_that_the_service_closed_is_not_used(autojump_clock: Any) -> None:
    """A dead socket is passed over at once, and its place is free again soon."""
    fake = FakeElevenLabsTts(inactivity_s=5)
    async with pool(fake, max_idle=1) as sockets:
        sockets.prewarm(VOICE)
        await trio.sleep(5.5)
        assert not sockets.has(VOICE)
        assert fake.live_streams == 0

        socket = sockets.claim(VOICE)
        await (await socket.connection(nothing)).send_message(TEXT)
        await socket.release()

        await trio.sleep(10)
        assert sockets.idle_count == 0


async def test_a_socket_whose_peer_fell_silent_is_dropped(autojump_clock: Any) -> None:
    """A peer that no longer answers pings is given up, though no close ever came."""
    fake = FakeElevenLabsTts(troubles=[Trouble.DEAF])
    async with pool(fake, max_idle=1) as sockets:
        sockets.prewarm(VOICE)
        await trio.sleep(19)  # the first ping is answered
        assert sockets.has(VOICE)
        await trio.sleep(6)
        assert not sockets.has(VOICE)
        assert sockets.idle_count == 0


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Refuse(401, {"status": "invalid_api_key"}), "tts_auth_failed"),
        (Trouble.HANG_IN_HANDSHAKE, "tts_timeout"),
        (Trouble.RESET, "tts_unreachable"),
    ],
    ids=str,
)
async def test_a_socket_that_cannot_be_opened_is_no_ones_until_claimed(
    autojump_clock: Any, trouble: Trouble | Refuse, code: str
) -> None:
    """A failure ahead of time is forgotten; one that a reply waits for is told to it."""
    fake = FakeElevenLabsTts(troubles=[trouble, trouble])
    async with pool(fake) as sockets:
        sockets.prewarm(VOICE)
        await trio.sleep(2)
        assert sockets.idle_count == 0

        socket = sockets.claim(VOICE)
        with pytest.raises(ProviderError) as caught:
            await socket.connection(nothing)
        assert caught.value.code == code
        await socket.release()


async def test_a_service_that_closes_in_one_breath_with_the_handshake(autojump_clock: Any) -> None:
    """A socket that is closed before its first message is kept for nobody."""

    async def handler(stream: trio.abc.Stream) -> None:
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", await read_head(stream))
        assert key is not None
        token = base64.b64encode(hashlib.sha1(key[1] + ACCEPT_GUID, usedforsecurity=False).digest())
        head = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s"
        await stream.send_all(head % token + b"\r\n\r\n" + b"\x88\x02\x03\xe8")
        await stream.receive_some()

    async with serve(handler) as url, background_nursery() as nursery:
        sockets = SocketPool(nursery, partial(connect, url, "key"), max_idle=1, idle_s=60)
        sockets.prewarm(VOICE)
        with trio.fail_after(5):
            while sockets.idle_count:
                await trio.sleep(0.1)


async def test_a_fault_of_ours_reaches_the_claimer_alone() -> None:
    """An exception that nobody foresaw ends neither the pool nor the sockets of others."""

    @asynccontextmanager
    async def broken(voice: str) -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError(voice)
        yield

    async with background_nursery() as nursery:
        sockets = SocketPool(nursery, broken, max_idle=2, idle_s=60)
        sockets.prewarm(VOICE)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ZeroDivisionError):
            await sockets.claim(VOICE).connection(nothing)


async def test_the_end_of_the_pool_closes_everything(autojump_clock: Any) -> None:
    """Sockets being opened, idle, claimed and in use are all gone when the pool is."""
    fake = FakeElevenLabsTts(troubles=[Trouble.HANG_IN_HANDSHAKE])
    async with pool(fake, max_idle=4) as sockets:
        sockets.claim(VOICE)
        await trio.sleep(0.5)
        sockets.claim(VOICE)
        await (await sockets.claim(VOICE).connection(nothing)).send_message(TEXT)
        sockets.prewarm(VOICE)
        await trio.sleep(0.1)
        assert fake.live_streams == 4
        left_s = trio.current_time()
    assert trio.current_time() - left_s < 0.2


async def test_released_at_any_moment_nothing_stays(autojump_clock: Any) -> None:
    """Claims that are given back while connecting, at once or later, all close their socket."""
    chance = random.Random(3)
    fake = FakeElevenLabsTts()
    async with pool(fake, max_idle=4) as sockets:
        for _ in range(200):
            if chance.random() < 0.5:
                sockets.prewarm(VOICE)
            socket = sockets.claim(VOICE)
            for _ in range(chance.randrange(12)):
                await trio.lowlevel.checkpoint()
            released_s = trio.current_time()
            await socket.release()
            assert trio.current_time() - released_s <= 0.2
            assert not socket.is_usable
        await trio.sleep(100)
        assert sockets.idle_count == 0
        await fake.streams_gone()
