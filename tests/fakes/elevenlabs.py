"""A fake of ElevenLabs as one host: what listens and what speaks, on one socket."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from tests.fakes.elevenlabs_stt import PATH, FakeElevenLabsStt
from tests.fakes.elevenlabs_tts import FakeElevenLabsTts
from tests.fakes.sockets import read_head, serve


@attrs.define
class FakeElevenLabs:
    """The two services; each may be changed at any time."""

    stt: FakeElevenLabsStt = attrs.field(factory=FakeElevenLabsStt)
    tts: FakeElevenLabsTts = attrs.field(factory=FakeElevenLabsTts)
    live_connections: int = 0
    """To the service that listens; the other counts its own."""
    deaf: bool = False
    """Whether the service that listens leaves handshakes unanswered."""
    garbled: bool = False
    """Whether it answers them with no HTTP."""

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, by the path that it asks for first."""
        assert isinstance(stream, trio.SocketStream)
        await trio.lowlevel.wait_readable(stream.socket)
        first_line = (await stream.socket.recv(4096, socket.MSG_PEEK)).partition(b"\r\n")[0]
        if PATH.encode() not in first_line:
            await self.tts.handle(stream)
            return
        self.live_connections += 1
        try:
            if self.deaf:
                await read_head(stream)
                await stream.receive_some()
            elif self.garbled:
                await read_head(stream)
                await stream.send_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            else:
                await self.stt.handle(stream)
        finally:
            self.live_connections -= 1


@asynccontextmanager
async def serve_elevenlabs(fake: FakeElevenLabs) -> AsyncIterator[str]:
    """Serve; gives the base address, such as ``http://127.0.0.1:41234``."""
    async with serve(fake.handle) as address:
        yield address.replace("ws", "http", 1)
