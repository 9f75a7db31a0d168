"""``/v1/text-to-speech/{voice_id}/stream-input``: text in as it is written, audio out as it is made.

Text is cut into sentences as replies are; ``flush`` speaks what there is. So ``chunk_length_schedule`` and
``try_trigger_generation``, which tell when a text is long enough to be spoken, have no effect.
"""

from contextlib import suppress
from typing import Final

import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.errors import AccessDenied, ClientError, VoiceError
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.fsm.sentences import SentenceSplitter
from voice_fsm.runtime.groups import first_error
from voice_fsm.speech.timing import TimedSpeech, with_timing
from voice_fsm.web.seats import Seats
from voice_fsm.web.speech.api import SocketPolicy, SpeechApi
from voice_fsm.web.speech.elevenlabs_tts import read_format, voice_settings
from voice_fsm.web.speech.refusals import elevenlabs_status
from voice_fsm.wire import stream_input as wire

log = structlog.get_logger()

USE: Final = "tts_websocket"
"""What tokens for this socket are bought for."""
NORMAL: Final = 1000
RESTARTING: Final = 1012
_PIECES_AHEAD: Final = 16
"""Sentences that may wait; then the client does."""


class StreamInputEndpoint:
    """Lets clients in, as many as there is room for."""

    def __init__(self, api: SpeechApi, seats: Seats, policy: SocketPolicy, draining: trio.Event) -> None:
        self._api = api
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
            with self._seats.seat():
                await self._serve(websocket)
        except* VoiceError as group:
            error = first_error(group)
        with suppress(WebSocketDisconnect):
            if isinstance(error, VoiceError):
                log.info("stream_input_ended", code=error.code)
                await websocket.send_text(wire.error_frame(elevenlabs_status(error), error.message))
                await websocket.close(wire.POLICY_VIOLATION, wire.close_reason(error.message))
            else:
                await websocket.close(RESTARTING if self._draining.is_set() else NORMAL)

    async def _serve(self, websocket: WebSocket) -> None:
        query = wire.read_query(websocket.query_params)
        first = await self._first_message(websocket, query)
        if first is None:
            return
        options = TtsOptions(
            output_format=read_format(query.output_format),
            voice_id=websocket.path_params["voice_id"],
            model_id=query.model_id if self._api.tts.name == "elevenlabs" else None,
            voice_settings=voice_settings(first.voice_settings),
        )
        self._api.tts.check(options)
        texts, pieces = trio.open_memory_channel[str](_PIECES_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at, self._draining, nursery.cancel_scope)
            nursery.start_soon(self._speak, websocket, pieces, options, nursery.cancel_scope)
            await _Reader(websocket, query, texts, self._api.speech.max_chars).run(first)
            nursery.cancel_scope.cancel(reason="the client has left")

    async def _first_message(self, websocket: WebSocket, query: wire.StreamQuery) -> wire.TextMessage | None:
        """The first message, which may bring the key; ``None``: the client has left."""
        denied: AccessDenied | None = None
        try:
            self._api.gate.check(websocket, USE)
        except AccessDenied as error:
            denied = error
        message = await _next_message(websocket, query)
        if denied and message and not (message.xi_api_key and self._api.gate.holds(message.xi_api_key)):
            raise denied
        return message

    async def _speak(
        self,
        websocket: WebSocket,
        pieces: trio.MemoryReceiveChannel[str],
        options: TtsOptions,
        everything: trio.CancelScope,
    ) -> None:
        async with (
            pieces,
            self._api.tts.speak(pieces, options) as speech,
            with_timing(speech, options.output_format, estimate=False) as timed,
        ):
            async for item in timed:
                await websocket.send_text(wire.audio_frame(item.audio, _times(item)))
        await websocket.send_text(wire.final_frame())
        everything.cancel(reason="all has been spoken")


class _Reader:
    """The client's messages, to pieces worth speaking."""

    def __init__(
        self,
        websocket: WebSocket,
        query: wire.StreamQuery,
        pieces: trio.MemorySendChannel[str],
        max_chars: int,
    ) -> None:
        self._websocket = websocket
        self._query = query
        self._pieces = pieces
        self._max_chars = max_chars
        self._splitter = SentenceSplitter()

    async def run(self, first: wire.TextMessage) -> None:
        """Read to the end of the text, then until the client has left."""
        message: wire.TextMessage | None = first
        async with self._pieces:
            while message is not None and message.text:
                if len(message.text) > self._max_chars:
                    raise InputError(
                        "max_character_limit_exceeded",
                        f"A message holds more than {self._max_chars} characters.",
                    )
                await self._take(message)
                message = await _next_message(self._websocket, self._query)
            await self._send(self._splitter.finish())
        if message is None:
            return
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass  # nothing is expected after the end

    async def _take(self, message: wire.TextMessage) -> None:
        await self._send(self._splitter.feed(message.text))
        if message.flush or (self._query.auto_mode and message.text.strip()):
            await self._send(self._splitter.finish())
            self._splitter = SentenceSplitter()

    async def _send(self, pieces: list[str]) -> None:
        # Nobody receives any more when the speaking has failed, which then tells the reason.
        with suppress(trio.BrokenResourceError):
            for piece in pieces:
                await self._pieces.send(piece)


class InputError(VoiceError):
    """What the client sends, or does not send, ends its stream."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)


async def _next_message(websocket: WebSocket, query: wire.StreamQuery) -> wire.TextMessage | None:
    """The next message; ``None``: the client has left."""
    patience_s = query.inactivity_timeout
    with trio.move_on_after(patience_s) as patience:
        frame = await websocket.receive()
    if patience.cancelled_caught:
        raise InputError(
            "input_timeout_exceeded",
            f"Have not received a new text input within the timeout of {patience_s:.1f} seconds. "
            "Streaming input terminated. Please make sure to either feed the input in the timely manner, or "
            'to send the end of input text (empty string "") when done.',
        )
    if frame["type"] == "websocket.disconnect":
        return None
    try:
        return wire.decode(frame.get("text") or "")
    except ClientError as error:
        raise InputError(
            "invalid_input_message",
            "Could not parse input message, make sure it is a json and follows the schema outlined in "
            f"protocol. {error.message}",
        ) from None


async def _stop_at(draining: trio.Event, everything: trio.CancelScope) -> None:
    await draining.wait()
    everything.cancel(reason="the server stops")


def _times(item: TimedSpeech) -> wire.CharTimes | None:
    """A provider's times, from the start of this audio."""
    told = item.alignment
    if told is None:
        return None
    return wire.CharTimes(
        chars=told.chars,
        starts_ms=tuple(at - item.start_ms for at in told.starts_ms),
        durations_ms=tuple(end - start for start, end in zip(told.starts_ms, told.ends_ms, strict=True)),
    )
