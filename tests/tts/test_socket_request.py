"""Whether a socket may serve again, by the moment at which its reply was left."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.patience import Patience
from voice_fsm.tts.reply import Frame
from voice_fsm.tts.script import Script
from voice_fsm.tts.socket_request import Send, SocketRequest
from voice_fsm.tts.sockets import SocketPool, SpeechSocket
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.http import Deadlines
from voice_fsm.upstream.websocket import background_nursery


class Connection:
    """A connection whose peer takes what it is sent, unless it is stalled, and answers each with "ok"."""

    def __init__(self) -> None:
        self.closed: Any = None
        self.sent: list[str] = []
        self.is_stalled = False
        self._answer, self._answers = trio.open_memory_channel[str](100)

    async def send_texts(self, *texts: str) -> None:
        if self.closed is not None:
            raise ConnectionClosed(None)
        if self.is_stalled:
            try:
                await trio.sleep_forever()
            finally:
                self.closed = "cut off"
        await trio.lowlevel.checkpoint()
        for text in texts:
            self.sent.append(text)
            self._answer.send_nowait("ok")

    async def get_message(self) -> str:
        try:
            return await self._answers.receive()
        except trio.EndOfChannel:
            raise ConnectionClosed(None) from None

    def get_now(self) -> str | None:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            return self._answers.receive_nowait()
        return None

    async def watch(self, every_s: float, patience_s: float, overhear: Callable[[str | bytes], None]) -> None:
        while not self.is_stalled:
            with trio.move_on_after(every_s):
                while True:
                    overhear(await self.get_message())
        await trio.sleep(patience_s)
        raise trio.TooSlowError

    def say(self, text: str) -> None:
        self._answer.send_nowait(text)

    def break_off(self) -> None:
        self.closed = "gone"
        self._answer.close()


@attrs.define
class Dialogue:
    """Sends every piece and "end", whose answer is the end of the speech."""

    script: Script
    farewell_text: str | None
    heard: list[str | bytes] = attrs.field(factory=list)
    has_ended: bool = False
    messages: int = 2

    async def speak(self, send: Send, patience: Patience) -> None:
        while (piece := await self.script.piece(self.script.taken)) is not None:
            self.script.taken += 1
            patience.expect_audio()
            await send(piece)
        await send("end")

    def read(self, message: str | bytes) -> Frame | None:
        self.heard.append(message)
        if message == "bad":
            raise provider_error(Upstream.TTS, ProviderFault.BAD_RESPONSE)
        self.has_ended = len(self.heard) == self.messages
        return Frame(b"audio")

    def error_of_close(self, code: int | None, reason: str) -> ProviderError | None:
        return None

    def farewell(self) -> str | None:
        return self.farewell_text


async def nothing(_: UpstreamSocket) -> None:
    pass


@attrs.define
class Rig:
    pool: SocketPool[str]
    connections: list[Connection]
    farewell: str | None = "bye"
    goes_on: bool = False
    """Whether the text is still being written."""

    @asynccontextmanager
    async def request(self) -> AsyncIterator[tuple[SocketRequest[str], Dialogue]]:
        write, read = trio.open_memory_channel[str](1)
        await write.send("Hello.")
        if not self.goes_on:
            write.close()
        script = Script(read)
        dialogue = Dialogue(script, self.farewell)

        def start(_socket: SpeechSocket[str], _untold: list[str]) -> Dialogue:
            return dialogue

        request = SocketRequest(script, self.pool, "key", start, Deadlines())
        yield request, dialogue
        await request.aclose()
        if self.goes_on:
            write.send_nowait("More.")
        await trio.sleep(1)


@asynccontextmanager
async def rig(*, max_idle: int = 2, idle_s: float = 60.0) -> AsyncIterator[Rig]:
    connections: list[Connection] = []

    @asynccontextmanager
    async def open_socket(_: str) -> AsyncIterator[Any]:
        connection = Connection()
        connections.append(connection)
        await trio.lowlevel.checkpoint()
        try:
            yield connection
        finally:
            connection.closed = connection.closed or "left"

    async with background_nursery() as nursery:
        yield Rig(SocketPool(nursery, open_socket, max_idle=max_idle, idle_s=idle_s), connections)


async def test_a_reply_that_is_over_gives_its_socket_back(autojump_clock: Any) -> None:
    """The next one has the same, and says nothing to it but its text."""
    async with rig() as r:
        for _ in range(2):
            async with r.request() as (request, _dialogue):
                assert await request.has_text()
                frames = await request.open()
                while await frames.next_frames():
                    pass
    (connection,) = r.connections
    assert connection.sent == ["Hello.", "end"] * 2


@pytest.mark.parametrize(("farewell", "sockets"), [("bye", 1), ("", 1), (None, 2)])
async def test_a_reply_left_midway_says_farewell_or_takes_its_socket_along(
    autojump_clock: Any, farewell: str | None, sockets: int
) -> None:
    """Only a service that tells turns apart by itself is spoken to again over the same socket."""
    async with rig() as r:
        r.farewell = farewell
        for _ in range(2):
            async with r.request() as (request, _dialogue):
                await request.has_text()
                frames = await request.open()
                await frames.next_frames()
                await trio.sleep(1)
    assert len(r.connections) == sockets
    assert ("bye" in r.connections[0].sent) is bool(farewell)
    assert "" not in r.connections[0].sent


async def test_a_socket_left_in_the_middle_of_a_message_is_closed(autojump_clock: Any) -> None:
    """What came next over it would be taken for the rest of that message."""
    async with rig() as r:
        async with r.request() as (request, _dialogue):
            await request.has_text()
            await wait_all_tasks_blocked()
            r.connections[0].is_stalled = True
            await request.open()
            await trio.sleep(1)
            await request.aclose()
            assert r.connections[0].sent == []
        assert r.pool.idle_count == 0


async def test_nothing_of_a_reply_that_was_left_is_sent(autojump_clock: Any) -> None:
    """The next one over the same socket would be taken for its end."""
    async with rig() as r:
        r.goes_on = True
        async with r.request() as (request, _dialogue):
            await request.has_text()
            await (await request.open()).next_frames()
        assert [connection.sent for connection in r.connections] == [["Hello.", "bye"]]
        assert r.pool.idle_count == 1


async def test_a_peer_that_takes_no_farewell_is_not_waited_for(autojump_clock: Any) -> None:
    """A tenth of a second, then the socket is closed."""
    async with rig() as r:
        async with r.request() as (request, _dialogue):
            await request.has_text()
            frames = await request.open()
            await frames.next_frames()
            r.connections[0].is_stalled = True
            left_s = trio.current_time()
            await request.aclose()
            assert trio.current_time() - left_s <= 0.15
        assert r.pool.idle_count == 0


async def test_a_socket_on_which_something_failed_is_closed(autojump_clock: Any) -> None:
    """Whatever state the service thinks it is in."""
    async with rig() as r:
        async with r.request() as (request, _dialogue):
            await request.has_text()

            async def hear() -> None:
                frames = await request.open()
                r.connections[0].say("bad")
                await frames.next_frames()

            with pytest.raises(ProviderError):
                await hear()
        assert r.connections[0].closed == "left"


async def test_what_comes_together_is_read_together_but_for_the_first_audio(autojump_clock: Any) -> None:
    """The first goes at once; an error behind the rest is told after it."""
    async with rig() as r, r.request() as (request, dialogue):
        await request.has_text()
        dialogue.messages = 9
        bursts: list[int] = []

        async def hear() -> None:
            frames = await request.open()
            await trio.sleep(1)
            for text in ("more", "bad"):
                r.connections[0].say(text)
            while True:
                bursts.append(len(await frames.next_frames()))

        with pytest.raises(ProviderError):
            await hear()
        assert bursts == [1, 2]


async def test_a_socket_is_closed_if_the_reply_was_left_before_it_was_told_of_an_error(
    autojump_clock: Any,
) -> None:
    """The error has come all the same, behind frames that were given."""
    async with rig() as r:
        async with r.request() as (request, dialogue):
            await request.has_text()
            dialogue.messages = 9
            frames = await request.open()
            await trio.sleep(1)
            for text in ("more", "bad"):
                r.connections[0].say(text)
            assert [len(await frames.next_frames()) for _ in range(2)] == [1, 2]
        assert r.connections[0].closed == "left"
        assert r.pool.idle_count == 0


async def test_a_socket_that_is_lost_before_the_first_text_is_replaced(autojump_clock: Any) -> None:
    """It is looked after while it waits for the text that it was claimed for."""
    async with rig() as r, r.request() as (request, _dialogue):
        await request.has_text()
        await wait_all_tasks_blocked()
        r.connections[0].is_stalled = True
        await trio.sleep(60)
        frames = await request.open()
        while await frames.next_frames():
            pass
    assert [connection.sent for connection in r.connections] == [[], ["Hello.", "end"]]


async def test_what_comes_while_nobody_listens_is_not_heard(autojump_clock: Any) -> None:
    """An idle socket is read, so that its end is seen, and its messages are dropped."""
    async with rig() as r:
        r.pool.prewarm("key")
        await trio.sleep(1)
        r.connections[0].say("of a turn that is over")
        await trio.sleep(1)
        async with r.request() as (request, dialogue):
            await request.has_text()
            frames = await request.open()
            await frames.next_frames()
        assert dialogue.heard == ["ok"]

        r.connections[0].break_off()
        await trio.sleep(1)
        assert r.pool.idle_count == 0


async def test_an_idle_socket_ends_when_it_is_old_or_silent(autojump_clock: Any) -> None:
    """One that answers no ping is found out before its time."""
    async with rig(idle_s=60) as r:
        r.pool.prewarm("key")
        await trio.sleep(59)
        assert r.pool.idle_count == 1
        await trio.sleep(2)
        assert r.pool.idle_count == 0

        r.pool.prewarm("key")
        await trio.sleep(1)
        r.connections[1].is_stalled = True
        await trio.sleep(15)
        assert r.pool.idle_count == 0


async def test_no_more_than_so_many_wait(autojump_clock: Any) -> None:
    """Those beyond are closed when they are given back, or not opened ahead."""
    async with rig(max_idle=2) as r:
        sockets = [r.pool.claim("key") for _ in range(3)]
        await trio.sleep(1)
        for socket in sockets:
            await r.pool.give_back(socket)
        assert [connection.closed for connection in r.connections].count("left") == 1
        r.pool.prewarm("other key")
        await trio.sleep(1)
        assert len(r.connections) == 3


async def test_a_socket_may_be_claimed_in_the_moment_it_is_given_back(autojump_clock: Any) -> None:
    """Its task has not even noticed that it was idle."""
    async with rig() as r:
        socket = r.pool.claim("key")
        connection = await socket.connection(nothing)
        for _ in range(3):
            await r.pool.give_back(socket)
            assert r.pool.claim("key") is socket
        await trio.sleep(100)
        assert connection.closed is None
        await r.pool.give_back(socket)
        await trio.sleep(100)
        assert connection.closed == "left"
