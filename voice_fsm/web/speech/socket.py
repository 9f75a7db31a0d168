"""The door ``/api/v1/ws``: texts in, their audio out, without a conversation."""

import secrets
from collections import deque
from contextlib import suppress
from typing import Final

import attrs
import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from voice_fsm.errors import (
    SESSION_FAULTS,
    AccessDenied,
    ClientError,
    ClientFault,
    ProviderError,
    SessionFault,
    VoiceError,
)
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.speech.service import SpeechRequest, SpeechService
from voice_fsm.web.auth import Gate
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.web.voice import DoorPolicy, refused_by_origin
from voice_fsm.wire import codec
from voice_fsm.wire import speech as wire

log = structlog.get_logger()

TTS_USE: Final = "tts_websocket"
"""What tokens for this door are bought for."""
MAX_QUEUED: Final = 16
"""Texts that may wait behind the one that is spoken."""
MANY_ORDERS: Final = 64
"""From so many orders on that were not carried out, a client is not listened to: it does not read."""

NORMAL: Final = 1000
PROVIDER_FAILED: Final = 1011
RESTARTING: Final = 1012

_FIELDS: Final = {
    # a field of the options: the field of the message that set it
    "tts.output_format": "format",
    "tts.voice_id": "voice",
    "tts.model_id": "model",
    "tts.voice_settings.speed": "speed",
}


@attrs.frozen(kw_only=True)
class SpeechSocketConfig:
    """What the operator chose."""

    sample_rate_hz: int = 24000
    """Of PCM, where a client does not tell."""
    idle_s: float = 600.0
    """How long a client may say nothing while nothing is spoken."""
    draining: trio.Event = attrs.field(factory=trio.Event)
    """Set when the server is about to stop."""


class SpeechSocketEndpoint:
    """Lets clients in."""

    def __init__(
        self,
        speech: SpeechService,
        policy: DoorPolicy,
        gate: Gate | None = None,
        seats: Seats | None = None,
        *,
        config: SpeechSocketConfig | None = None,
    ) -> None:
        """``seats`` are shared with other doors; without them this one has the policy's for itself."""
        self._speech = speech
        self._policy = policy
        self._gate = gate or Gate()
        self._seats = seats or Seats(policy.max_sessions)
        self._config = config or SpeechSocketConfig()

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        if await refused_by_origin(websocket, self._policy):
            return
        await websocket.accept()
        try:
            self._gate.check(websocket, TTS_USE)
            with (
                self._seats.seat(),
                structlog.contextvars.bound_contextvars(connection=secrets.token_hex(4)),
            ):
                await SpeechSocket(websocket, self._speech, self._config).run()
        except (AccessDenied, NoSeat) as refusal:
            log.warning("turned_away", code=refusal.code, path=websocket.url.path)
            await _turn_away(websocket, refusal)


async def _turn_away(websocket: WebSocket, refusal: AccessDenied | NoSeat) -> None:
    _, close_code, _ = SESSION_FAULTS[SessionFault(refusal.code)]
    with suppress(WebSocketDisconnect):
        await websocket.send_text(wire.encode(_error(refusal)))
        await websocket.close(close_code or NORMAL)


@attrs.frozen
class _Speak:
    """An order to speak a text."""

    request: SpeechRequest
    id: wire.RequestId
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.frozen
class _Acknowledge:
    """An order to say that a cancel was obeyed."""

    dropped: int


class SpeechSocket:
    """One connection.

    One task sends all audio and all that ends a text, in the order of its orders. A cancel, which the reader
    hears, ends the text in hand at once and drops those behind it, and its acknowledgement is one more order:
    so no audio can follow it that was asked for before.
    """

    def __init__(self, websocket: WebSocket, speech: SpeechService, config: SpeechSocketConfig) -> None:
        self._websocket = websocket
        self._speech = speech
        self._config = config
        self._orders: deque[_Speak | _Acknowledge] = deque()
        self._in_hand: _Speak | None = None
        self._cut: _Speak | None = None
        """What a cancel ended and no acknowledgement has told yet."""
        self._change = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Serve the client until it leaves, the provider fails, or the server stops."""
        async with trio.open_nursery() as nursery:
            self._life = nursery.cancel_scope
            nursery.start_soon(self._carry_out_orders)
            nursery.start_soon(self._close_when_drained)
            await self._listen()
            nursery.cancel_scope.cancel(reason="the client has gone")

    # --- hearing ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            while len(self._orders) >= MANY_ORDERS:
                await self._change.park()
            with trio.move_on_after(self._config.idle_s) as patience:
                frame = await self._websocket.receive()
            if patience.cancelled_caught:
                if not self._is_busy:
                    await self._close(NORMAL)
            elif frame["type"] == "websocket.disconnect":
                return
            elif frame.get("bytes") is not None:
                await self._refuse(
                    ClientError(ClientFault.MALFORMED_MESSAGE, "This socket takes JSON in text frames.")
                )
            else:
                await self._take(frame["text"])

    async def _take(self, text: str) -> None:
        request_id: wire.RequestId = None
        try:
            document = codec.read_object(text)
            request_id = wire.id_of(document)
            match wire.structure(document):
                case wire.Synthesize() as message:
                    self._queue(message)
                case wire.Cancel():
                    self._cancel()
        except ClientError as error:
            await self._refuse(error, request_id)

    def _queue(self, message: wire.Synthesize) -> None:
        request = _request(message, self._config.sample_rate_hz)
        self._speech.check(request)
        if sum(isinstance(order, _Speak) for order in self._orders) >= MAX_QUEUED:
            raise ClientError(
                ClientFault.QUEUE_FULL,
                f"{MAX_QUEUED} texts wait to be spoken already. Send the next when one is done.",
            )
        self._order(_Speak(request, message.id))

    def _cancel(self) -> None:
        if self._in_hand is not None:
            self._in_hand.scope.cancel(reason="the client cancels")
        kept = [order for order in self._orders if isinstance(order, _Acknowledge)]
        dropped = len(self._orders) - len(kept)
        self._orders = deque(kept)
        self._order(_Acknowledge(dropped))

    def _order(self, order: _Speak | _Acknowledge) -> None:
        self._orders.append(order)
        self._change.unpark_all()

    async def _refuse(self, error: ClientError, request_id: wire.RequestId = None) -> None:
        await self._tell(_error(error, request_id))

    # --- speaking -----------------------------------------------------------------------------------

    @property
    def _is_busy(self) -> bool:
        return bool(self._orders) or self._in_hand is not None

    async def _carry_out_orders(self) -> None:
        while True:
            while not self._orders:
                await self._change.park()
            match self._orders.popleft():
                case _Speak() as order:
                    self._in_hand = order
                    await self._speak_or_fail(order)
                    self._in_hand = None
                case _Acknowledge(dropped):
                    cut, self._cut = self._cut, None
                    await self._tell(wire.Cancelled(id=cut.id if cut else None, dropped=dropped or None))
            self._change.unpark_all()

    async def _speak_or_fail(self, order: _Speak) -> None:
        """Speak a text to its end, or to the cancel; a failure that is not the client's closes the socket."""
        try:
            await self._speak(order)
        except ClientError as error:
            await self._refuse(error, order.id)
        except ProviderError as error:
            log.warning("synthesis_failed", code=error.code, status=error.status, request_id=error.request_id)
            await self._tell(_error(error, order.id))
            await self._close(PROVIDER_FAILED)

    async def _speak(self, order: _Speak) -> None:
        with order.scope:
            async with self._speech.synthesize(order.request) as synthesis:
                async for data in synthesis.audio():
                    await self._send(bytes_=data)
            await self._tell(wire.Done(id=order.id))
        if order.scope.cancelled_caught:
            self._cut = order

    async def _close_when_drained(self) -> None:
        await self._config.draining.wait()
        while self._is_busy:
            await self._change.park()
        await self._close(RESTARTING)

    # --- the socket ---------------------------------------------------------------------------------

    async def _tell(self, message: wire.ServerMessage) -> None:
        await self._send(text=wire.encode(message))

    async def _send(self, *, text: str | None = None, bytes_: bytes | None = None) -> None:
        """Send a frame; nothing, once the client has gone: `_listen` learns of that."""
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            await trio.lowlevel.checkpoint()
            return
        with suppress(WebSocketDisconnect):
            await self._websocket.send({"type": "websocket.send", "text": text, "bytes": bytes_})

    async def _close(self, code: int) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect):
                await self._websocket.close(code)
        self._life.cancel(reason="the server has closed the socket")


def _request(message: wire.Synthesize, default_hz: int) -> SpeechRequest:
    return SpeechRequest(
        text=message.text,
        options=TtsOptions(
            output_format=message.output_format(default_hz),
            voice_id=message.voice,
            model_id=message.model,
            voice_settings=VoiceSettings(speed=message.speed),
        ),
        cache=message.cache,
    )


def _error(error: VoiceError, request_id: wire.RequestId = None) -> wire.Error:
    field = error.field and _FIELDS.get(error.field, error.field)
    return wire.Error(
        code=error.code, message=error.message, field=field, retryable=error.retryable, id=request_id
    )
