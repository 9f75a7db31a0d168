"""One spoken question to a server, and what came of it."""

import json
import struct
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final, TypeAlias

import attrs
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.client.recording import SAMPLE_BYTES, speech_end_s
from voice_fsm.runtime.groups import first_error
from voice_fsm.upstream.connection import UpstreamSocket

MICROPHONE_HZ: Final = 16000
REPLY_HZ: Final = 24000
CHUNK_MS: Final = 100
PATIENCE_S: Final = 60.0
"""How long after the recording's end the reply may take to be over."""
QUIET_S: Final = 1.0
"""How long after a turn nothing may happen before the conversation counts as over."""

_AUDIO_HEADER: Final = struct.Struct(">II")
ServerEvent: TypeAlias = Mapping[str, Any]


@attrs.define
class Account:
    """What came of one question. Times are seconds on one monotonic clock."""

    transcripts: list[str] = attrs.field(factory=list)
    replies: list[str] = attrs.field(factory=list)
    outcomes: list[str] = attrs.field(factory=list)
    audio: bytearray = attrs.field(factory=bytearray, repr=False)
    errors: list[str] = attrs.field(factory=list)
    turns_open: int = 0
    last_event_s: float = 0.0
    heard_by_server: trio.Event = attrs.field(factory=trio.Event, repr=False)
    """The server's recogniser is ready."""
    moments_s: dict[str, float] = attrs.field(factory=dict)
    """When something came for the last turn: ``speech_end``, ``committed``, ``first_text``, ``first_audio``,
    ``done``."""

    def settled(self, now_s: float) -> bool:
        """Whether a turn was had and nothing more seems to come."""
        return bool(self.outcomes) and not self.turns_open and now_s - self.last_event_s > QUIET_S

    @property
    def succeeded(self) -> bool:
        """Whether there were a transcript, a reply and audio."""
        return bool(self.transcripts and self.replies and self.audio)

    @property
    def audio_s(self) -> float:
        return len(self.audio) / SAMPLE_BYTES / REPLY_HZ

    def latencies_ms(self) -> dict[str, int]:
        """From each moment of the last turn to the next."""
        stages = ("speech_end", "committed", "first_text", "first_audio", "done")
        known = [stage for stage in stages if stage in self.moments_s]
        return {
            f"{before}_to_{after}_ms": round((self.moments_s[after] - self.moments_s[before]) * 1000)
            for before, after in pairwise(known)
        }


async def ask(websocket: UpstreamSocket, question: bytes, watch: Callable[[ServerEvent], None]) -> Account:
    """Speak ``question`` (PCM at `MICROPHONE_HZ`) in real time; listen until the reply is over.

    ``watch`` sees every event that the server sends.

    Raises:
        ConnectionClosed: the server hung up.
        trio.TooSlowError: the reply was not over in time.
    """
    account = Account()
    await websocket.send_message(
        json.dumps(
            {
                "type": "session.configure",
                "stt": {"sample_rate": MICROPHONE_HZ},
                "tts": {"output_format": f"pcm_{REPLY_HZ}"},
                "audio_out": "binary",
                "events": ["state", "text.delta", "metrics"],
            }
        )
    )
    closed: ConnectionClosed | None = None
    with trio.fail_after(len(question) / SAMPLE_BYTES / MICROPHONE_HZ + PATIENCE_S):
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_listen, websocket, account, watch, nursery.cancel_scope)
                await account.heard_by_server.wait()
                await _speak(websocket, question, account)
                nursery.cancel_scope.cancel()
        except* ConnectionClosed as group:
            closed = first_error(group)
    if closed is not None:
        raise closed
    return account


async def _speak(websocket: UpstreamSocket, question: bytes, account: Account) -> None:
    """Send the question at the pace it was recorded, then silence, as a microphone would, to the end."""
    chunk_bytes = MICROPHONE_HZ * SAMPLE_BYTES * CHUNK_MS // 1000
    began_s = trio.current_time()
    account.moments_s["speech_end"] = began_s + speech_end_s(question, MICROPHONE_HZ)
    offset = 0
    while offset < len(question) or not account.settled(trio.current_time()):
        chunk = question[offset : offset + chunk_bytes].ljust(chunk_bytes, b"\0")
        offset += chunk_bytes
        await trio.sleep_until(began_s + offset / SAMPLE_BYTES / MICROPHONE_HZ)
        await websocket.send_message(chunk)


async def _listen(
    websocket: UpstreamSocket,
    account: Account,
    watch: Callable[[ServerEvent], None],
    conversation: trio.CancelScope,
) -> None:
    while True:
        frame = await websocket.get_message()
        account.last_event_s = trio.current_time()
        if isinstance(frame, bytes):
            account.moments_s.setdefault("first_audio", account.last_event_s)
            account.audio += frame[_AUDIO_HEADER.size :]
            continue
        event = json.loads(frame)
        watch(event)
        _note(account, event)
        if event.get("fatal"):
            conversation.cancel()


def _note(account: Account, event: ServerEvent) -> None:
    now_s = account.last_event_s
    match event:
        case {"type": "stt.session_started"}:
            account.heard_by_server.set()
        case {"type": "transcript.committed", "text": text} if text.strip():
            account.transcripts.append(text)
        case {"type": "assistant.started"}:
            account.turns_open += 1
            account.moments_s = {
                "speech_end": account.moments_s.get("speech_end", now_s),
                "committed": now_s,
            }
        case {"type": "assistant.text.delta"}:
            account.moments_s.setdefault("first_text", now_s)
        case {"type": "assistant.message", "text": text}:
            account.replies.append(text)
        case {"type": "error", "message": message}:
            account.errors.append(message)
        case {"type": "assistant.done", "outcome": outcome}:
            account.turns_open -= 1
            account.outcomes.append(outcome)
            account.moments_s["done"] = now_s
