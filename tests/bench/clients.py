"""K clients in one process: each sends 100 ms of audio every 100 ms and times what comes back."""

import asyncio
import json
import re
import time
from typing import Final

import attrs

from tests.bench.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, frame

CHUNK: Final = frame(BINARY, bytes(3200), masked=True)
TICK_S: Final = 0.1
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
_UPGRADE: Final = (
    b"GET /v1/voice/ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MOMENT: Final = re.compile(rb"(at|stop) (\d+)")
_TURN: Final = re.compile(rb'"turn_id":(\d+)')


@attrs.define
class Figures:
    """What all clients saw while it counted; times in ms."""

    counting: bool = False
    turn_ms: list[float] = attrs.field(factory=list)
    """From the recogniser's commit to the first audio at the client."""
    silence_ms: list[float] = attrs.field(factory=list)
    """From the recogniser's partial to `assistant.interrupted` at the client."""
    chunks: int = 0
    stale_chunks: int = 0
    errors: list[bytes] = attrs.field(factory=list)
    closed: int = 0


class Client(asyncio.Protocol):
    """One session."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._reader: FrameReader | None = None
        self._committed_ns: int | None = None
        self._stopped_ns: int | None = None
        self._dead_turns: set[bytes] = set()
        self.ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP client's
        self.transport.write(_UPGRADE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ready = False
        self._figures.closed += 1

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
                self.transport.close()

    def speak(self) -> None:
        if self.ready:
            self.transport.write(CHUNK)

    def _event(self, payload: bytes) -> None:
        figures, kind = self._figures, payload[9:40]
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
        elif kind.startswith(b"error"):
            figures.errors.append(payload[:300])

    def _chunk(self, payload: bytes) -> None:
        figures = self._figures
        if self._committed_ns is not None:
            if figures.counting:
                figures.turn_ms.append((time.monotonic_ns() - self._committed_ns) / 1e6)
            self._committed_ns = None
        figures.chunks += 1
        figures.stale_chunks += _turn(payload) in self._dead_turns


def _turn(payload: bytes) -> bytes:
    found = _TURN.search(payload)
    return found[1] if found else b""


async def connect(port: int, count: int, figures: Figures) -> list[Client]:
    """Open sessions one after the other, until all are listened to."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(lambda: Client(figures), "127.0.0.1", port)
        clients.append(client)
        await asyncio.sleep(0.004)
    for _ in range(200):
        if all(client.ready for client in clients):
            return clients
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{sum(client.ready for client in clients)} of {count} clients got a session")


async def talk(clients: list[Client], duration_s: float) -> float:
    """Have every client speak at its own phase of the 100 ms; gives the fraction of ticks that came late."""
    slots = 20
    began_s = time.monotonic()
    late = total = 0
    for tick in range(int(duration_s / TICK_S * slots)):
        due_s = began_s + tick * TICK_S / slots
        now_s = time.monotonic()
        if due_s > now_s:
            await asyncio.sleep(due_s - now_s)
        else:
            await asyncio.sleep(0)
        total += 1
        late += time.monotonic() - due_s > TICK_S
        for client in clients[tick % slots :: slots]:
            client.speak()
    return late / total
