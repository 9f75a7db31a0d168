"""K clients in one process: each sends 100 ms of audio every 100 ms and times what comes back."""

import asyncio
import itertools
import json
import re
import struct
import time
from typing import Final

import attrs

from tests.bench.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, frame
from tests.bench.load import CHUNK_BYTES, CHUNK_MS

TICK_S: Final = CHUNK_MS / 1000
_CHUNK_HEAD: Final = frame(BINARY, bytes(CHUNK_BYTES), masked=True)[:-CHUNK_BYTES]
_CHUNK_REST: Final = bytes(CHUNK_BYTES - 8)
CONFIGURE: Final = frame(
    TEXT,
    json.dumps(
        {
            "type": "session.configure",
            "tts": {"output_format": "pcm_16000"},
            "events": ["metrics"],
        }
    ).encode(),
    masked=True,
)
TRY_LATER: Final = 1013
CONNECT_EVERY_S: Final = 0.1
"""Users do not all come at once: so does load build up for a server that refuses by what it has."""
_UPGRADE: Final = (
    b"GET /v1/voice/ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MOMENT: Final = re.compile(rb"(at|stop) (\d+)")
_TURN: Final = re.compile(rb'"turn_id": ?(\d+)')


@attrs.define
class Figures:
    """What all clients saw while it counted; times in ms."""

    counting: bool = False
    turn_ms: list[float] = attrs.field(factory=list)
    """From the recogniser's commit to the first audio at the client."""
    silence_ms: list[float] = attrs.field(factory=list)
    """From the recogniser's partial to `assistant.interrupted` at the client."""
    messages: int = 0
    """What the server sent them."""
    stale_chunks: int = 0
    errors: list[bytes] = attrs.field(factory=list)
    refused: int = 0
    """Sessions that the server said it had no room for."""
    ticks: int = 0
    late_ticks: int = 0
    """How often the clients themselves were late."""
    closed: int = 0
    """Sessions that were lost, or never got ready."""


class Client(asyncio.Protocol):
    """One session."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._reader: FrameReader | None = None
        self._committed_ns: int | None = None
        self._stopped_ns: int | None = None
        self._dead_turns: set[bytes] = set()
        self.ready = False
        self.refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP client's
        self.transport.write(_UPGRADE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._figures.closed += self.ready
        self.ready = False

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            _, _, data = data.partition(b"\r\n\r\n")
            self._reader = FrameReader()
            self.transport.write(CONFIGURE)
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                self._event(payload)
            elif opcode == PING:
                self.transport.write(frame(PONG, payload, masked=True))
            elif opcode == CLOSE:
                self._closed(int.from_bytes(payload[:2], "big"))

    def speak(self) -> None:
        if self.ready:
            moment = struct.pack("<q", time.monotonic_ns())
            self.transport.write(_CHUNK_HEAD + moment + _CHUNK_REST)

    def _closed(self, code: int) -> None:
        if code == TRY_LATER:
            self.refused = True
            self._figures.refused += 1
        self.transport.close()

    def _event(self, payload: bytes) -> None:
        figures, kind = self._figures, payload[8:40].lstrip(b' "')
        figures.messages += figures.counting
        if kind.startswith(b"assistant.audio.chunk"):
            self._chunk(payload)
        elif kind.startswith((b"transcript.committed", b"transcript.partial")):
            moment = _MOMENT.search(payload)
            if moment is not None and moment[1] == b"at":
                self._committed_ns = int(moment[2])
            elif moment is not None:
                self._stopped_ns = int(moment[2])
        elif kind.startswith(b"assistant.interrupted"):
            self._dead_turns.add(_turn(payload))
            if self._stopped_ns is not None and figures.counting:
                figures.silence_ms.append((time.monotonic_ns() - self._stopped_ns) / 1e6)
            self._stopped_ns = None
        elif kind.startswith(b"stt.session_started"):
            self.ready = True
        elif kind.startswith(b"error") and b"overloaded" not in payload:
            figures.errors.append(payload[:300])

    def _chunk(self, payload: bytes) -> None:
        figures = self._figures
        if self._committed_ns is not None:
            if figures.counting:
                figures.turn_ms.append((time.monotonic_ns() - self._committed_ns) / 1e6)
            self._committed_ns = None
        figures.stale_chunks += _turn(payload) in self._dead_turns


def _turn(payload: bytes) -> bytes:
    found = _TURN.search(payload)
    return found[1] if found else b""


async def connect(port: int, count: int, clients: list[Client], figures: Figures) -> None:
    """Open sessions one after the other, and wait until each is listened to or refused."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        _, client = await loop.create_connection(lambda: Client(figures), "127.0.0.1", port)
        clients.append(client)
        await asyncio.sleep(CONNECT_EVERY_S)
    for _ in range(200):
        if all(client.ready or client.refused for client in clients):
            break
        await asyncio.sleep(0.05)
    figures.closed += sum(not (client.ready or client.refused) for client in clients)


async def talk(clients: list[Client], figures: Figures) -> None:
    """Have every client speak, from when it is listened to, at its own phase of the 100 ms."""
    slots = 20
    began_s = time.monotonic()
    for tick in itertools.count():
        due_s = began_s + tick * TICK_S / slots
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        if figures.counting:
            figures.ticks += 1
            figures.late_ticks += time.monotonic() - due_s > TICK_S
        for client in clients[tick % slots :: slots]:
            client.speak()
