"""``/v1/text-to-speech/{voice_id}/stream-input``: text in as it is written, audio out as it is made.

Text is cut into sentences as replies are; ``flush`` speaks what there is. So ``chunk_length_schedule`` and
``try_trigger_generation``, which tell when a text is long enough to be spoken, have no effect.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.errors import AccessDenied, ClientError, VoiceError
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.fsm.sentences import SentenceSplitter
from voice_fsm.runtime.groups import first_error
from voice_fsm.speech.timing import TimedSpeech, with_timing
from voice_fsm.web.auth import Gate
from voice_fsm.web.seats import Seats
from voice_fsm.web.speech.api import SocketPolicy, SpeechApi
from voice_fsm.web.speech.elevenlabs_tts import read_format, voice_settings
from voice_fsm.web.speech.refusals import elevenlabs_status
from voice_fsm.wire import stream_input as wire
from voice_fsm.wire.elevenlabs_speech import VoiceSettings

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
        first = await first_message(websocket, query, wire.decode, self._api.gate)
        if first is None:
            return
        stream = SpokenStream(self._api, websocket, query, first.voice_settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_at, self._draining, nursery.cancel_scope)
            nursery.start_soon(self._speak, stream, nursery.cancel_scope)
            await self._read(websocket, query, stream, first)
            nursery.cancel_scope.cancel(reason="the client has left")

    async def _speak(self, stream: "SpokenStream", everything: trio.CancelScope) -> None:
        await stream.speak()
        everything.cancel(reason="all has been spoken")

    async def _read(
        self, websocket: WebSocket, query: wire.StreamQuery, stream: "SpokenStream", first: wire.TextMessage
    ) -> None:
        """Read to the end of the text, then until the client has left."""
        message: wire.TextMessage | None = first
        while message is not None and message.text:
            await stream.take(message.text, flush=message.flush)
            message = await next_message(websocket, query.inactivity_timeout, wire.decode)
        if message is None:
            return
        await stream.end()
        await client_left(websocket)


class SpokenStream:
    """Text that comes bit by bit, and its speech.

    Raises:
        ClientError: its voice or format cannot be had.
    """

    def __init__(
        self,
        api: SpeechApi,
        websocket: WebSocket,
        query: wire.StreamQuery,
        settings: VoiceSettings | None,
        context_id: str | None = None,
    ) -> None:
        self._api = api
        self._websocket = websocket
        self._auto_mode = query.auto_mode
        self._context_id = context_id
        self._options = TtsOptions(
            output_format=read_format(query.output_format),
            voice_id=websocket.path_params["voice_id"],
            model_id=query.model_id if api.tts.name == "elevenlabs" else None,
            voice_settings=voice_settings(settings),
        )
        api.tts.check(self._options)
        self._splitter = SentenceSplitter()
        self._texts, self._pieces = trio.open_memory_channel[str](_PIECES_AHEAD)

    async def take(self, text: str, *, flush: bool) -> None:
        """Take more text; with ``flush`` speak what there is, though no sentence ends there.

        Raises:
            InputError: it is too long.
        """
        if len(text) > self._api.speech.max_chars:
            raise InputError(
                "max_character_limit_exceeded",
                f"A message holds more than {self._api.speech.max_chars} characters.",
            )
        await self._send(self._splitter.feed(text))
        if flush or (self._auto_mode and text.strip()):
            await self._send(self._splitter.finish())
            self._splitter = SentenceSplitter()

    async def end(self) -> None:
        """Take the text for whole."""
        async with self._texts:
            await self._send(self._splitter.finish())

    async def speak(self) -> None:
        """Send the speech, to the final frame."""
        options, whose = self._options, self._context_id
        async with (
            self._pieces,
            self._api.tts.speak(self._pieces, options) as speech,
            with_timing(speech, options.output_format, estimate=False) as timed,
        ):
            async for item in timed:
                await self._websocket.send_text(wire.audio_frame(item.audio, _times(item), whose))
        await self._websocket.send_text(wire.final_frame(whose))

    async def _send(self, pieces: list[str]) -> None:
        # Nobody receives any more when the speaking has failed, which then tells the reason.
        with suppress(trio.BrokenResourceError):
            for piece in pieces:
                await self._texts.send(piece)


class InputError(VoiceError):
    """What the client sends, or does not send, ends its stream."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)


class FirstMessage(Protocol):
    """A message that may bring the key."""

    @property
    def xi_api_key(self) -> str | None:
        """A key of ours, it is said."""


M = TypeVar("M")
F = TypeVar("F", bound=FirstMessage)


async def first_message(
    websocket: WebSocket, query: wire.StreamQuery, decode: Callable[[str], F], gate: Gate
) -> F | None:
    """The first message; ``None``: the client has left.

    Raises:
        AccessDenied: neither the handshake nor the message shows a key.
        InputError: see `next_message`.
    """
    denied: AccessDenied | None = None
    try:
        gate.check(websocket, USE)
    except AccessDenied as error:
        denied = error
    message = await next_message(websocket, query.inactivity_timeout, decode)
    if denied and message and not (message.xi_api_key and gate.holds(message.xi_api_key)):
        raise denied
    return message


async def next_message(websocket: WebSocket, patience_s: float, decode: Callable[[str], M]) -> M | None:
    """The next message; ``None``: the client has left.

    Raises:
        InputError: it cannot be read, or does not come in time.
    """
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
        return decode(frame.get("text") or "")
    except ClientError as error:
        raise InputError(
            "invalid_input_message",
            "Could not parse input message, make sure it is a json and follows the schema outlined in "
            f"protocol. {error.message}",
        ) from None


async def client_left(websocket: WebSocket) -> None:
    """Wait until the client has left; nothing else is expected of it."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def stop_at(draining: trio.Event, everything: trio.CancelScope) -> None:
    """End everything when the server stops."""
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
