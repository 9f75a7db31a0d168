"""``/v1/speech-to-text/realtime``: the recogniser in use, for clients that speak ElevenLabs' protocol.

As there, whatever goes wrong is told in a message, a missing key too, and the socket then closes with 1000.
"""

import math
from contextlib import suppress
from typing import Final

import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.errors import AccessDenied, ClientError, ProviderError, ProviderFault, VoiceError
from voice_fsm.fsm.options import SttOptions
from voice_fsm.runtime.groups import first_error
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, SttLink
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.web.speech.api import SocketPolicy, SpeechApi
from voice_fsm.wire import scribe as wire

log = structlog.get_logger()

USE: Final = "realtime_scribe"
"""What tokens for this socket are bought for."""
MIN_COMMIT_MS: Final = 300
SILENCE_S: Final = 15.0
"""Without a message for so long a session ends. Both are the rules of ElevenLabs' service."""
NORMAL: Final = 1000
RESTARTING: Final = 1012

_PROVIDER_ERRORS: Final[dict[ProviderFault, wire.ErrorType]] = {
    ProviderFault.OVERLOADED: "resource_exhausted",
    ProviderFault.RATE_LIMITED: "rate_limited",
    ProviderFault.QUOTA_EXCEEDED: "quota_exceeded",
    ProviderFault.REJECTED: "invalid_request",
}


class ScribeEndpoint:
    """Lets clients in, as many as there is room for."""

    def __init__(self, api: SpeechApi, seats: Seats, policy: SocketPolicy, draining: trio.Event) -> None:
        self._stt = api.stt
        self._gate = api.gate
        self._seats = seats
        self._policy = policy
        self._draining = draining

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        if self._policy.refuses(websocket):
            await websocket.close()  # before accepting: the handshake is answered with 403
            return
        await websocket.accept()
        error: Exception | None = None
        try:
            await self._serve(websocket)
        except* (VoiceError, _Ended) as group:
            error = first_error(group)
        with suppress(WebSocketDisconnect):
            if error is not None:
                await _say_why(websocket, error)
            await websocket.close(RESTARTING if self._draining.is_set() else NORMAL)

    async def _serve(self, websocket: WebSocket) -> None:
        self._gate.check(websocket, USE)
        query = wire.read_query(websocket.query_params)
        with (
            self._seats.seat(),
            trio.CancelScope(deadline=trio.current_time() + self._policy.connect_s) as opening,
        ):
            async with self._stt.connect(_options(query, self._stt.name)) as link:
                opening.deadline = math.inf
                session = _Session(websocket, link, query)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(session.tell)
                    nursery.start_soon(self._limit, nursery.cancel_scope)
                    await session.listen()
                    nursery.cancel_scope.cancel(reason="the client has left")
        if opening.cancelled_caught:
            raise _Ended("transcriber_error", "The recogniser was not ready in time.")

    async def _limit(self, everything: trio.CancelScope) -> None:
        with trio.move_on_after(self._policy.max_session_s):
            await self._draining.wait()
            everything.cancel(reason="the server stops")
            return
        raise _Ended("session_time_limit_exceeded", "The session has reached its longest time.")


class _Session:
    """One client and its link."""

    def __init__(self, websocket: WebSocket, link: SttLink, query: wire.ScribeQuery) -> None:
        self._websocket = websocket
        self._link = link
        self._query = query
        self._uncommitted_ms = 0.0
        self._has_begun = False

    async def listen(self) -> None:
        """Bring what the client sends to the link until the client has gone."""
        while True:
            with trio.move_on_after(SILENCE_S) as patience:
                frame = await self._websocket.receive()
            if patience.cancelled_caught:
                raise _Ended("insufficient_audio_activity", f"No audio came for {SILENCE_S:g} seconds.")
            if frame["type"] == "websocket.disconnect":
                return
            if frame.get("text") is None:
                raise _Ended("input_error", "Audio comes as base64 in JSON, not in binary frames.")
            await self._take(frame["text"])

    async def tell(self) -> None:
        """Tell the client what the link makes of its audio."""
        config = {**self._link.config, "audio_format": str(self._query.audio_format)}
        await self._send(wire.SessionStarted(session_id=self._link.session_id, config=config))
        async for transcript in self._link:
            match transcript:
                case PartialTranscript(text):
                    await self._send(wire.PartialTranscript(text))
                case CommittedTranscript():
                    await self._tell_commit(transcript)

    async def _take(self, text: str) -> None:
        try:
            chunk = wire.decode(text)
        except ClientError as error:
            raise _Ended("input_error", error.message) from None
        audio_format, audio = self._query.audio_format, chunk.audio_base_64
        if chunk.sample_rate not in (None, audio_format.sample_rate_hz):
            raise _Ended("input_error", f"`sample_rate` must agree with {audio_format}.")
        if len(audio) % audio_format.bytes_per_sample:
            raise _Ended("input_error", "The audio is not whole samples.")
        if chunk.previous_text is not None and self._has_begun:
            raise _Ended("input_error", "`previous_text` may come with the first chunk only.")
        if audio:
            self._has_begun = True
            self._uncommitted_ms += audio_format.duration_ms(len(audio))
            await self._link.send(audio, previous_text=chunk.previous_text)
        if chunk.commit:
            await self._commit()

    async def _commit(self) -> None:
        if self._uncommitted_ms < MIN_COMMIT_MS:
            raise _Ended(
                "commit_throttled",
                f"Commit request ignored: only {self._uncommitted_ms / 1000:.2f}s of uncommitted audio. "
                f"You need at least {MIN_COMMIT_MS / 1000:g}s of uncommitted audio before committing.",
            )
        self._uncommitted_ms = 0.0
        await self._link.commit()

    async def _tell_commit(self, committed: CommittedTranscript) -> None:
        await self._send(wire.CommittedTranscript(committed.text))
        if not self._query.wants_words:
            return
        words = wire.with_spacing(
            [wire.TimedWord(text=word.text, start=word.start_s, end=word.end_s) for word in committed.words]
        )
        await self._send(
            wire.CommittedTranscriptWithTimestamps(
                text=committed.text,
                language_code=self._link.config.get("language_code"),
                words=words if self._query.include_timestamps else None,
            )
        )

    async def _send(self, message: wire.ServerMessage) -> None:
        await self._websocket.send_text(wire.encode(message))


class _Ended(Exception):  # noqa: N818  # says what happened
    """The session ends with this message."""

    def __init__(self, kind: wire.ErrorType, message: str) -> None:
        super().__init__(message)
        self.told = wire.ScribeError(kind, message)


def _options(query: wire.ScribeQuery, provider: str) -> SttOptions:
    return SttOptions(
        audio_format=query.audio_format,
        commit_strategy=query.commit_strategy,
        model_id=query.model_id if provider == "elevenlabs" else None,  # others do not know these names
        language_code=query.language_code,
        vad_threshold=query.vad_threshold,
        vad_silence_threshold_secs=query.vad_silence_threshold_secs,
        min_speech_duration_ms=query.min_speech_duration_ms,
        min_silence_duration_ms=query.min_silence_duration_ms,
        include_timestamps=query.wants_words,
    )


async def _say_why(websocket: WebSocket, error: Exception) -> None:
    match error:
        case _Ended(told=told):
            pass
        case AccessDenied():
            told = wire.ScribeError("auth_error", "You must be authenticated to use this endpoint.")
        case NoSeat():
            told = wire.ScribeError("resource_exhausted", error.message)
        case ClientError():
            told = wire.ScribeError("invalid_request", error.message)
        case ProviderError():
            told = wire.ScribeError(_PROVIDER_ERRORS.get(error.fault, "transcriber_error"), error.message)
        case _:
            raise error
    log.info("scribe_ended", error=told.message_type)
    await websocket.send_text(wire.encode(told))
