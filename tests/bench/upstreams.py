"""ElevenLabs and a chat backend that answer at once, in a process of their own.

The recogniser commits after every `TURN_S` of audio, and once in a while utters a partial while the
assistant speaks: a barge-in. What it says holds the moment at which it was said, so that the client, on the
same machine's clock, can tell how long everything behind it took. Each chunk of a client's audio begins with
the moment at which it was sent; ``GET /audio-in`` gives how long they took since it was last asked for, and
how many messages they came in.
"""

import asyncio
import base64
import json
import random
import re
import struct
import sys
import time
from collections.abc import Mapping
from typing import Final

import attrs

from tests.bench.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, accept_key, frame
from tests.bench.load import (
    BARGE_IN_AFTER_S,
    BARGE_IN_EVERY,
    CHUNK_BYTES,
    REPLY,
    REPLY_CHUNKS,
    SAMPLE_RATE_HZ,
    TURN_S,
)

_BYTES_PER_SECOND: Final = SAMPLE_RATE_HZ * 2
_AUDIO: Final = re.compile(rb'"audio_base_64": ?"([^"]*)"')
_CHUNK: Final = base64.b64encode(bytes(CHUNK_BYTES)).decode()
_RAW_SPEECH: Final = bytes(CHUNK_BYTES * REPLY_CHUNKS)
_TIMED_SPEECH: Final = json.dumps({"audio_base64": _CHUNK, "alignment": None}).encode() + b"\n"


def _spoken(**whose: str) -> bytes:
    return frame(TEXT, json.dumps({"audio": _CHUNK, "isFinal": None, **whose}).encode()) * REPLY_CHUNKS


def _end(**whose: str) -> bytes:
    return frame(TEXT, json.dumps({"audio": None, "isFinal": True, **whose}).encode())


_WHOLE_STREAM: Final = _spoken() + _end() + frame(CLOSE, b"\x03\xe8")


@attrs.define
class AudioIn:
    """What the recogniser has got since it was asked."""

    messages: int = 0
    took_ms: list[float] = attrs.field(factory=list)

    def note(self, audio: bytes) -> None:
        self.messages += 1
        now_ns = time.monotonic_ns()
        for begin in range(0, len(audio), CHUNK_BYTES):
            self.took_ms.append((now_ns - struct.unpack_from("<q", audio, begin)[0]) / 1e6)

    def take(self) -> dict[str, object]:
        figures: dict[str, object] = {"messages": self.messages, "took_ms": self.took_ms}
        self.messages, self.took_ms = 0, []
        return figures


class Upstream(asyncio.Protocol):
    """One connection: HTTP until it asks for a WebSocket."""

    def __init__(self, audio_in: AudioIn) -> None:
        self._audio_in = audio_in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP server's
        self._http = b""
        self._frames: FrameReader | None = None
        self._kind = ""
        self._audio_bytes = 0
        self._turns = random.randrange(BARGE_IN_EVERY)
        self._interrupted = False

    def data_received(self, data: bytes) -> None:
        if self._frames is not None:
            for opcode, payload in self._frames.feed(data):
                self._frame(opcode, payload)
            return
        self._http += data
        while (end := self._http.find(b"\r\n\r\n")) >= 0:
            head = self._http[:end]
            size = _content_length(head)
            if len(self._http) < end + 4 + size:
                return
            self._http = self._http[end + 4 + size :]
            self._request(head)

    def _request(self, head: bytes) -> None:
        if b"upgrade: websocket" in head.lower():
            self._upgrade(head)
        elif b"/with-timestamps" in head:
            self._body(_TIMED_SPEECH * REPLY_CHUNKS)
        elif b"/text-to-speech/" in head:
            self._body(_RAW_SPEECH, b"audio/pcm")
        elif b"/v1/register" in head:
            self._answer({"registration_id": "bench"})
        elif b" /audio-in " in head:
            self._answer(self._audio_in.take())
        else:
            self._answer({"response": REPLY})

    def _answer(self, document: Mapping[str, object]) -> None:
        self._body(json.dumps(document).encode())

    def _body(self, body: bytes, content_type: bytes = b"application/json") -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (content_type, len(body), body)
        )

    def _upgrade(self, head: bytes) -> None:
        key = next(
            line.split(b":", 1)[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key)
        )
        self._frames = FrameReader()
        if b"/speech-to-text/" in head:
            self._kind = "stt"
            # Users do not all speak up in the same moment.
            self._audio_bytes = random.randrange(int(TURN_S * _BYTES_PER_SECOND))
            self._say(message_type="session_started", session_id="bench", config={})
        elif b"/multi-stream-input" in head:
            self._kind = "contexts"

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._transport.write(frame(CLOSE, payload))
            self._transport.close()
        elif opcode == PING:
            self._transport.write(frame(PONG, payload))
        elif opcode in (TEXT, BINARY):
            if self._kind == "stt":
                self._hear(payload)
            elif self._kind == "contexts":
                self._speak(json.loads(payload))
            elif b'"text": ""' in payload or b'"text":""' in payload:
                self._transport.write(_WHOLE_STREAM)

    def _speak(self, message: Mapping[str, str]) -> None:
        if message.get("close_context"):
            whose = message["context_id"]
            self._transport.write(_spoken(contextId=whose) + _end(contextId=whose))

    def _hear(self, payload: bytes) -> None:
        found = _AUDIO.search(payload)
        audio = base64.b64decode(found[1]) if found else b""
        self._audio_in.note(audio)
        self._audio_bytes += len(audio)
        heard_s = self._audio_bytes / _BYTES_PER_SECOND
        if heard_s >= TURN_S:
            self._audio_bytes = 0
            self._turns += 1
            self._interrupted = False
            self._say(message_type="partial_transcript", text="what is")
            self._say(message_type="committed_transcript", text=f"at {time.monotonic_ns()}")
        elif self._barges_in(heard_s):
            self._interrupted = True
            self._say(message_type="partial_transcript", text=f"stop {time.monotonic_ns()}")

    def _barges_in(self, heard_s: float) -> bool:
        due = bool(self._turns) and self._turns % BARGE_IN_EVERY == 0 and heard_s >= BARGE_IN_AFTER_S
        return due and not self._interrupted

    def _say(self, **message: object) -> None:
        self._transport.write(frame(TEXT, json.dumps(message).encode()))


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


async def main() -> None:
    """Serve on a free port, and print it."""
    audio_in = AudioIn()
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(audio_in), "127.0.0.1", 0, backlog=2000
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  # told to the parent
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit()
