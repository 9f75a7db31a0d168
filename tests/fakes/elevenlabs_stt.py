"""A fake of ElevenLabs' realtime speech-to-text: the service's rules, a script for what it hears.

    fake = FakeElevenLabsStt(utterances=[Utterance("good morning", partials=[(0.5, "good")])], echo=True)
    async with serve(fake.handle) as base_url: ...
    fake.sessions[0].messages

Rules and figures: ElevenLabs' API reference and captures of the live service, 2026-09 to 2026-11. Delays
pass on Trio's clock. Nothing is heard in the audio; it is counted.
"""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

import attrs
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from tests.fakes.sockets import Handshake, accept, drip, read_head, reject, reset
from voice_fsm.audio import AudioFormat
from voice_fsm.upstream.websocket import background_nursery

PATH: Final = "/v1/speech-to-text/realtime"
MIN_COMMIT_S: Final = 0.3
IDLE_S: Final = 15.8
_WORD_S: Final = 0.25


@attrs.frozen
class Utterance:
    """What the service makes of the audio between two commits."""

    text: str = ""
    partials: Sequence[tuple[float, str]] = attrs.field(default=(), kw_only=True)
    """Each with the seconds of uncommitted audio after which it is sent."""
    commits_after_s: float | None = attrs.field(default=None, kw_only=True)
    """Seconds of uncommitted audio after which the service commits by itself, whatever the strategy."""


Action = Callable[["FakeSession"], Awaitable[None]]


@attrs.frozen
class Moment:
    """Something out of the ordinary, once (in one session) or ``always``."""

    at: float | Literal["start", "commit"]
    """After so many seconds of a session's audio; instead of `session_started`; instead of an answer."""
    action: Action
    always: bool = False


def say(message: Mapping[str, Any]) -> Action:
    """Send a message of one's own."""

    async def action(session: "FakeSession") -> None:
        await session.answer(message)

    return action


def report(error_type: str, text: str = "It went wrong.", *, then_close: bool = True) -> Action:
    """Send an error message, and close with 1000 as the service does."""

    async def action(session: "FakeSession") -> None:
        await session.answer({"message_type": error_type, "error": text})
        if then_close:
            await session.close(1000, None)

    return action


def close(code: int, reason: str | None = None) -> Action:
    """Close with this code."""

    async def action(session: "FakeSession") -> None:
        await session.close(code, reason)

    return action


def drip_out(message: Mapping[str, Any], *, pause_s: float) -> Action:
    """Send a message of one's own (in JSON shorter than 126 bytes), one byte at a time."""
    payload = json.dumps(message).encode()

    async def action(session: "FakeSession") -> None:
        await drip(session.stream, bytes([0x81, len(payload)]) + payload, pause_s=pause_s)

    return action


async def hang(_session: "FakeSession") -> None:
    """Read nothing and say nothing any more."""
    await trio.sleep_forever()


async def stay_silent(_session: "FakeSession") -> None:
    """Do nothing where something was due."""


async def break_off(session: "FakeSession") -> None:
    """End the connection without a close frame."""
    await reset(session.stream)


async def send_garbage(session: "FakeSession") -> None:
    """Send bytes that are no WebSocket frame: reserved bits, an unknown opcode."""
    await session.stream.send_all(b"\xff\xff\xff\xff")


async def send_broken_json(session: "FakeSession") -> None:
    """Send a frame that ends in the middle of its JSON."""
    await session.websocket.send_message('{"message_type":"partial_tran')


@attrs.define
class FakeElevenLabsStt:
    """The service. What it was told is in ``sessions``, one for each connection that was accepted."""

    utterances: list[Utterance] = attrs.field(factory=list)
    """Used up in order, over all sessions; after the last, everything is silence."""
    moments: list[Moment] = attrs.field(factory=list)
    refusals: list[tuple[int, dict[str, str]]] = attrs.field(factory=list)
    """Statuses and headers with which the next handshakes are refused."""
    deaf: bool = False
    """Whether handshakes are left unanswered."""
    echo: bool = False
    """Whether each commit is followed by a partial with its text."""
    commit_delay_s: float = 0.0
    timestamps_delay_s: float = 0.0
    echo_delay_s: float = 0.0
    handshakes: list[Handshake] = attrs.field(factory=list)
    sessions: list["FakeSession"] = attrs.field(factory=list)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; a handler for `serve` and `in_memory`."""
        if self.deaf:
            await read_head(stream)
            await trio.sleep_forever()
        if self.refusals:
            status, headers = self.refusals.pop(0)
            await reject(stream, status, headers=headers)
            return
        async with accept(stream) as (handshake, websocket), background_nursery() as nursery:
            self.handshakes.append(handshake)
            session = FakeSession(self, stream, websocket, handshake)
            self.sessions.append(session)
            nursery.start_soon(session.send_answers)
            await session.run()

    def next_moment(self, due: Callable[[Moment], bool]) -> Moment | None:
        """Take the first moment that is due."""
        for moment in self.moments:
            if due(moment):
                if not moment.always:
                    self.moments.remove(moment)
                return moment
        return None


class FakeSession:
    """One connection to the service."""

    def __init__(
        self,
        service: FakeElevenLabsStt,
        stream: trio.abc.Stream,
        websocket: WebSocketConnection,
        handshake: Handshake,
    ) -> None:
        self.stream = stream
        self.websocket = websocket
        self.handshake = handshake
        self.messages: list[dict[str, Any]] = []
        """As they came."""
        self.audio = bytearray()
        self.commits_s: list[float] = []
        """Where in the audio each commit of the client was, in seconds."""
        self._service = service
        self._format = AudioFormat.parse(_first(handshake.query, "audio_format", "pcm_16000"))
        self._committed_bytes = 0
        self._partials_given = 0
        self._answers_in, self._answers_out = trio.open_memory_channel[tuple[float, str | CloseReason]](1000)

    @property
    def uncommitted_s(self) -> float:
        """Audio since the last commit, in seconds."""
        return self._format.duration_ms(len(self.audio) - self._committed_bytes) / 1000

    @property
    def audio_s(self) -> float:
        """All audio of this session, in seconds."""
        return self._format.duration_ms(len(self.audio)) / 1000

    async def run(self) -> None:
        """Converse until one side has had enough."""
        if not await self._have_moment(lambda moment: moment.at == "start"):
            await self.answer(self._session_started())
        await self._have_timely_moments()
        while True:
            frame: str | bytes | None = None
            with trio.move_on_after(IDLE_S):
                frame = await self.websocket.get_message()
            if frame is None:
                await report("insufficient_audio_activity")(self)
            else:
                await self._take(json.loads(frame))

    async def answer(self, message: Mapping[str, Any], *, delay_s: float = 0.0) -> None:
        """Send a message after those before it, and ``delay_s`` after the one before."""
        await self._answers_in.send((delay_s, json.dumps(message)))

    async def send_answers(self) -> None:
        """Send what was answered, in order."""
        with suppress(ConnectionClosed):
            async for delay_s, answer in self._answers_out:
                await trio.sleep(delay_s)
                if isinstance(answer, CloseReason):
                    await self.websocket.aclose(answer.code, answer.reason)
                    return
                await self.websocket.send_message(answer)

    async def close(self, code: int, reason: str | None) -> None:
        """Close once everything answered so far is sent."""
        await self._answers_in.send((0.0, CloseReason(code, reason)))

    async def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        complaint = self._complaint(message)
        if complaint is not None:
            await report("input_error", complaint)(self)
            return
        self.audio += base64.b64decode(message["audio_base_64"])
        await self._have_timely_moments()
        await self._send_partials()
        due_s = self._utterance.commits_after_s
        if due_s is not None and self.uncommitted_s >= due_s:
            await self._commit()
        if message["commit"]:
            await self._commit_by_client()

    def _complaint(self, message: dict[str, Any]) -> str | None:
        if message.get("message_type") != "input_audio_chunk":
            return "Unknown message type."
        if message.get("sample_rate") != self._format.sample_rate_hz or not isinstance(
            message.get("commit"), bool
        ):
            return "Bad sample rate or commit flag."
        if message.get("previous_text") is not None and len(self.messages) > 1:
            return "previous_text is only allowed in the first chunk."
        try:
            size = len(base64.b64decode(message["audio_base_64"], validate=True))
        except (KeyError, TypeError, binascii.Error):
            return "Bad audio."
        return "Half a sample." if size % self._format.bytes_per_sample else None

    async def _commit_by_client(self) -> None:
        self.commits_s.append(self.audio_s)
        if await self._have_moment(lambda moment: moment.at == "commit"):
            return
        if self.uncommitted_s < MIN_COMMIT_S - 1e-9:
            text = (
                f"Commit request ignored: only {self.uncommitted_s:.2f}s of uncommitted audio. "
                "You need at least 0.3s of uncommitted audio before committing."
            )
            await self.answer({"message_type": "commit_throttled", "error": text})
            await self.close(1000, "commit_throttled")
            return
        await self._commit()

    async def _commit(self) -> None:
        text = self._utterance.text
        start_s = self._format.duration_ms(self._committed_bytes) / 1000
        if self._service.utterances:
            self._service.utterances.pop(0)
        self._committed_bytes = len(self.audio)
        self._partials_given = 0
        service = self._service
        await self.answer(
            {"message_type": "committed_transcript", "text": text}, delay_s=service.commit_delay_s
        )
        if self._flag("include_timestamps") or self._flag("include_language_detection"):
            timed = {
                "message_type": "committed_transcript_with_timestamps",
                "text": text,
                "language_code": _first(self.handshake.query, "language_code", "en"),
                "words": timed_words(text, start_s) if self._flag("include_timestamps") else None,
            }
            await self.answer(timed, delay_s=service.timestamps_delay_s)
        if service.echo:
            await self.answer(
                {"message_type": "partial_transcript", "text": text}, delay_s=service.echo_delay_s
            )

    async def _send_partials(self) -> None:
        for after_s, text in self._utterance.partials[self._partials_given :]:
            if self.uncommitted_s < after_s:
                return
            self._partials_given += 1
            await self.answer({"message_type": "partial_transcript", "text": text})

    @property
    def _utterance(self) -> Utterance:
        return self._service.utterances[0] if self._service.utterances else Utterance()

    async def _have_timely_moments(self) -> None:
        while await self._have_moment(
            lambda moment: not isinstance(moment.at, str) and self.audio_s >= moment.at
        ):
            pass

    async def _have_moment(self, due: Callable[[Moment], bool]) -> bool:
        moment = self._service.next_moment(due)
        if moment is None:
            return False
        await moment.action(self)
        return True

    def _flag(self, name: str) -> bool:
        return _first(self.handshake.query, name, "false") == "true"

    def _session_started(self) -> dict[str, Any]:
        query = self.handshake.query
        return {
            "message_type": "session_started",
            "session_id": f"{len(self._service.sessions):032x}",
            "config": {
                "sample_rate": self._format.sample_rate_hz,
                "audio_format": str(self._format),
                "language_code": _first(query, "language_code", "en"),
                "model_id": _first(query, "model_id", ""),
                "vad_commit_strategy": _first(query, "commit_strategy", "manual") == "vad",
                "include_timestamps": self._flag("include_timestamps"),
                "keyterms": query.get("keyterms", []),
                "disable_logging": _first(query, "enable_logging", "true") == "false",
            },
        }


def _first(query: Mapping[str, list[str]], name: str, default: str) -> str:
    return query.get(name, [default])[0]


def timed_words(text: str, start_s: float) -> list[dict[str, Any]]:
    """Time words evenly from the start of their segment, as the service lists them: spaces between."""
    listed: list[dict[str, Any]] = []
    for i, word in enumerate(text.split()):
        if listed:
            listed.append(_timed(" ", "spacing", start_s + i * _WORD_S, 0.0))
        listed.append(_timed(word, "word", start_s + i * _WORD_S, _WORD_S))
    return listed


def _timed(text: str, kind: str, start_s: float, length_s: float) -> dict[str, Any]:
    return {
        "text": text,
        "start": round(start_s, 3),
        "end": round(start_s + length_s, 3),
        "type": kind,
        "logprob": -0.01,
        "speaker_id": None,
        "channel_index": None,
        "characters": None,
    }
