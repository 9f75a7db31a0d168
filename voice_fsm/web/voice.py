"""The door ``/v1/voice/ws``: our own dialect, spoken by browsers and phones."""

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final, cast

import attrs
import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from voice_fsm.errors import SESSION_FAULTS, AccessDenied, ClientError, ClientFault, SessionFault
from voice_fsm.fsm import effects as fx
from voice_fsm.fsm.events import Interrupt, PlaybackProgress, TextPrompt, Update
from voice_fsm.runtime.outgoing import Answer, AudioChunk, Item, SpeechTiming, TextDelta
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.web.auth import Gate
from voice_fsm.web.messages import Messages
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.wire import voice as wire

log = structlog.get_logger()

VOICE_USE: Final = "voice"
"""What tokens for this door are bought for."""
NORMAL: Final = 1000
_ON_REQUEST: Final[dict[type, wire.EventKind]] = {
    fx.StateChanged: "state",
    fx.TurnTimed: "metrics",
    fx.SpeechBegan: "speech",
    fx.SpeechEnded: "speech",
    TextDelta: "text.delta",
    SpeechTiming: "alignment",
}
"""What a client is told if it asked for these events."""


@attrs.frozen(kw_only=True)
class DoorPolicy:
    """What clients may do at this door."""

    allow_backend_credentials: bool = False
    allowed_origins: frozenset[str] = frozenset()
    """Origins of pages that may connect; empty: any."""
    max_sessions: int = 200


class VoiceEndpoint:
    """Lets clients in, as many as the policy allows."""

    def __init__(
        self,
        services: Services,
        policy: DoorPolicy,
        gate: Gate | None = None,
        seats: Seats | None = None,
    ) -> None:
        """``seats`` are shared with other doors; without them this one has the policy's for itself."""
        self._services = services
        self._policy = policy
        self._gate = gate or Gate()
        self._seats = seats or Seats(policy.max_sessions)

    @property
    def sessions(self) -> int:
        """How many are connected now, by any door that shares the seats."""
        return self._seats.taken

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        if await refused_by_origin(websocket, self._policy):
            return
        # Accepted first: a page is told nothing of why a handshake fails.
        await websocket.accept()
        try:
            self._gate.check(websocket, VOICE_USE)
            with self._seats.seat():
                await self._serve(websocket)
        except (AccessDenied, NoSeat) as error:
            log.warning("turned_away", code=error.code, path=websocket.url.path)
            await _turn_away(websocket, error)

    async def _serve(self, websocket: WebSocket) -> None:
        # Every log line of the session's tasks carries this.
        with structlog.contextvars.bound_contextvars(connection=secrets.token_hex(4)):
            door = VoiceDoor(websocket, self._services, self._policy)
            session = VoiceSession(self._services, door, untold=_untold(frozenset()))
            session.answer(wire.SessionReady())
            await session.run()


async def refused_by_origin(websocket: WebSocket, policy: DoorPolicy) -> bool:
    """Answer the handshake with 403 if the page may not connect; whether that was so."""
    origin = websocket.headers.get("origin")
    if not policy.allowed_origins or origin in policy.allowed_origins:
        return False
    log.warning("origin_refused", origin=origin)
    await websocket.close()  # before accepting
    return True


async def _turn_away(websocket: WebSocket, refusal: AccessDenied | NoSeat) -> None:
    _, close_code, _ = SESSION_FAULTS[SessionFault(refusal.code)]
    error = wire.Error(code=refusal.code, message=refusal.message, retryable=refusal.retryable, fatal=True)
    with suppress(WebSocketDisconnect):
        await websocket.send_text(wire.encode(error, seq=1))
        await websocket.close(close_code or NORMAL)


class VoiceDoor:
    """One connection: frames to events, notices to frames."""

    def __init__(self, websocket: WebSocket, services: Services, policy: DoorPolicy) -> None:
        self._websocket = websocket
        self._messages = Messages.of(websocket)
        self._services = services
        self._policy = policy
        self._binary = False
        self._session_id = f"session-{secrets.token_hex(8)}"
        self._seq = 0
        self._chunks_sent = 0

    async def listen(self, session: VoiceSession) -> None:
        """Read frames until the client has gone; what is wrong with one is told, and the next is read."""
        while True:
            if not session.has_room:
                await session.wait_for_room()
            message = await self._messages.receive()
            try:
                if isinstance(message, bytes):
                    session.hear(message)
                elif message is None:
                    return
                else:
                    self._take(session, wire.decode(message))
            except ClientError as error:
                session.refuse(error)

    async def tell(self, items: Sequence[Item]) -> None:
        """Send what this client asked to be told; nothing, once it has gone: `listen` learns of that."""
        if not self._is_open:
            await trio.lowlevel.checkpoint()
            return
        with suppress(WebSocketDisconnect):
            await self._messages.send([self._frame(item) for item in items])

    async def close(self, code: int) -> None:
        """Close the socket, if the client has not."""
        if self._is_open:
            with suppress(WebSocketDisconnect):
                await self._websocket.close(code)

    @property
    def _is_open(self) -> bool:
        websocket = self._websocket
        return websocket.client_state is websocket.application_state is WebSocketState.CONNECTED

    # --- client to session --------------------------------------------------------------------------

    def _take(self, session: VoiceSession, message: wire.ClientMessage) -> None:
        now_s = trio.current_time()
        match message:
            case wire.AudioAppend():
                session.hear(
                    message.audio, sample_rate_hz=message.sample_rate, previous_text=message.previous_text
                )
            case wire.AudioCommit():
                session.commit_audio()
            case wire.SessionConfigure():
                self._configure(session, message)
            case wire.SessionUpdate():
                options = wire.merge_options(session.options, message)
                self._services.tts.check(options.tts)
                session.step(Update(at_s=now_s, options=options))
            case wire.TextPrompt():
                session.step(TextPrompt(at_s=now_s, text=message.text))
            case wire.ResponseCancel():
                session.step(Interrupt(at_s=now_s, turn_id=message.turn_id))
            case wire.PlaybackProgress():
                session.step(
                    PlaybackProgress(at_s=now_s, turn_id=message.turn_id, played_ms=message.played_ms)
                )
            case wire.Ping():
                session.answer(wire.Pong(id=message.id, server_time_ms=int(time.time() * 1000)))

    def _configure(self, session: VoiceSession, message: wire.SessionConfigure) -> None:
        if message.backend and message.backend.has_credentials:
            self._check_credentials()
        options = wire.merge_options(self._services.defaults, message)
        session_id = message.session_id or self._session_id
        session.configure(
            session_id,
            options,
            tell_speech="speech" in message.events,
            untold=_untold(frozenset(message.events)),
        )
        self._session_id = session_id
        log.info("session_configured", session_id=session_id)
        self._binary = message.audio_out == "binary"
        if message.resume:
            raise ClientError(
                ClientFault.RESUME_UNAVAILABLE,
                "This server keeps no sessions to resume; the session starts afresh.",
                field="resume",
            )

    def _check_credentials(self) -> None:
        if not self._policy.allow_backend_credentials:
            raise ClientError(
                ClientFault.FRONTEND_AUTH_DISABLED,
                "This server does not take backend credentials from clients. Leave `backend` out, "
                "or name a `registration_id` alone.",
                field="backend",
            )

    # --- session to client --------------------------------------------------------------------------

    def _frame(self, item: Item) -> str | bytes:
        if self._binary and isinstance(item, AudioChunk):
            self._chunks_sent += 1
            return wire.encode_audio_frame(item.turn_id, self._chunks_sent, item.data)
        self._seq += 1
        return wire.encode(self._message(item), self._seq)

    def _message(self, item: Item) -> wire.ServerMessage:  # noqa: C901, PLR0911, PLR0912  # one flat table
        match item:
            case AudioChunk():
                self._chunks_sent += 1
                return wire.AssistantAudioChunk(
                    turn_id=item.turn_id,
                    audio=item.data,
                    output_format=item.output_format,
                    chunk_index=self._chunks_sent,
                )
            case fx.PartialHeard(text):
                return wire.TranscriptPartial(text=text)
            case fx.UtteranceCommitted(text, words):
                return wire.TranscriptCommitted(
                    text=text,
                    words=tuple(wire.Word(text=w.text, start=w.start_s, end=w.end_s) for w in words) or None,
                )
            case fx.TurnStarted(turn_id, text, cause):
                return wire.AssistantStarted(
                    turn_id=turn_id, text=text, cause=None if cause == "user" else cause
                )
            case fx.ReplyTold(turn_id, text, metadata):
                return wire.AssistantMessage(turn_id=turn_id, text=text, metadata=metadata)
            case fx.AudioStarted(turn_id, output_format):
                self._chunks_sent = 0
                return wire.AssistantAudioStart(turn_id=turn_id, output_format=output_format)
            case fx.AudioEnded(turn_id, output_format):
                return wire.AssistantAudioEnd(
                    turn_id=turn_id, output_format=output_format, chunk_count=self._chunks_sent
                )
            case fx.TurnInterrupted(turn_id, reason, heard_text, heard_ms):
                return wire.AssistantInterrupted(
                    turn_id=turn_id, reason=reason, heard_text=heard_text, heard_ms=heard_ms
                )
            case fx.TurnTimed():
                return wire.TurnMetrics(
                    turn_id=item.turn_id,
                    first_text_ms=item.first_text_ms,
                    first_speech_ms=item.first_speech_ms,
                    first_audio_sent_ms=item.first_audio_sent_ms,
                    playback_done_ms=item.playback_done_ms,
                    asked_early_ms=item.asked_early_ms,
                    wasted_calls=item.wasted_calls or None,
                )
            case fx.TurnEnded(turn_id, outcome):
                return wire.AssistantDone(turn_id=turn_id, outcome=outcome)
            case TextDelta():
                return wire.AssistantTextDelta(turn_id=item.turn_id, text=item.text)
            case SpeechTiming(turn_id, alignment):
                return wire.AssistantAudioAlignment(
                    turn_id=turn_id,
                    chars=alignment.chars,
                    starts_ms=alignment.starts_ms,
                    ends_ms=alignment.ends_ms,
                )
            case fx.TurnPaused(turn_id, played_ms):
                return wire.AssistantPaused(turn_id=turn_id, played_ms=played_ms)
            case fx.TurnResumed(turn_id, played_ms):
                return wire.AssistantResumed(turn_id=turn_id, played_ms=played_ms)
            case Answer(message):
                return cast(wire.ServerMessage, message)  # only this door makes them
            case fx.Configured(session_id):
                return wire.SessionConfigured(session_id=session_id)
            case fx.SttStarted(session_id, config):
                return wire.SttSessionStarted(session_id=session_id, config=config)
            case fx.SpeechBegan():
                return wire.UserSpeechStarted()
            case fx.SpeechEnded():
                return wire.UserSpeechStopped()
            case fx.StateChanged():
                return wire.StateChanged(
                    from_=item.source, to=item.target, input=item.input, at_ms=item.at_ms
                )
            case fx.ErrorTold():
                return wire.Error(
                    message=item.message,
                    code=item.code,
                    field=item.field,
                    turn_id=item.turn_id,
                    retryable=item.retryable,
                    fatal=item.fatal,
                )
            case fx.Closing(reason):
                return wire.SessionClosing(reason=reason)


@cache
def _untold(events: frozenset[wire.EventKind]) -> frozenset[type]:
    """What a client that asked for these events is not told; the same object for all who did."""
    return frozenset(kind for kind, event in _ON_REQUEST.items() if event not in events)
