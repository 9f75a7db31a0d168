"""The door ``/v1/convai/conversation``: clients of ElevenLabs' Agents protocol."""

import secrets
from contextlib import suppress
from typing import Final

import attrs
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.errors import SESSION_FAULTS, AccessDenied, ClientError, SessionFault, VoiceError
from voice_fsm.fsm.effects import ErrorTold
from voice_fsm.runtime.agents import Agents, HostedAgent
from voice_fsm.runtime.context import FrontEndNotes, InformedChat
from voice_fsm.runtime.session import VoiceSession
from voice_fsm.runtime.text_only import without_sound
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.convai.door import ConvaiDoor
from voice_fsm.web.convai.errors import BAD_INPUT, error_message
from voice_fsm.web.convai.narration import Narration
from voice_fsm.web.convai.opening import read_opening
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.web.voice import DoorPolicy, refused_by_origin
from voice_fsm.wire import convai as wire

log = structlog.get_logger()

_REFUSALS: Final = (AccessDenied, NoSeat, ClientError)


class ConvaiEndpoint:
    """Lets clients in that know an agent, and may talk to it."""

    def __init__(self, agents: Agents, access: AgentAccess, policy: DoorPolicy, seats: Seats) -> None:
        self.agents = agents
        self.access = access
        self._policy = policy
        self._seats = seats

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        if await refused_by_origin(websocket, self._policy):
            return
        offered = websocket.scope["subprotocols"]
        await websocket.accept(wire.SUBPROTOCOL if wire.SUBPROTOCOL in offered else None)
        try:
            hosted = self.agents.get(websocket.query_params.get("agent_id", ""))
            self.access.check(websocket, hosted.agent)
            with self._seats.seat(), suppress(WebSocketDisconnect):
                await _serve(websocket, hosted)
        except _REFUSALS as error:
            log.warning("turned_away", code=error.code, path=websocket.url.path)
            await _turn_away(websocket, error)


async def _serve(websocket: WebSocket, hosted: HostedAgent) -> None:
    opening = await read_opening(websocket)
    conversation = hosted.converse(opening.initiation)
    services, options = hosted.services, conversation.options
    if conversation.text_only:
        services = without_sound(services)
    services.tts.check(options.tts)
    services.chat.check(options.backend)
    conversation_id = f"conv_{secrets.token_hex(12)}"
    narration = Narration(conversation_id, conversation.client_events, text_only=conversation.text_only)
    notes = FrontEndNotes()
    door = ConvaiDoor(
        websocket,
        conversation_id=conversation_id,
        opening=opening,
        options=options,
        narration=narration,
        notes=notes,
    )
    informed = attrs.evolve(services, chat=InformedChat(services.chat, notes))
    with structlog.contextvars.bound_contextvars(connection=conversation_id):
        await VoiceSession(informed, door).run()


async def _turn_away(websocket: WebSocket, refusal: VoiceError) -> None:
    """Say why, in an event and in the close frame: clients show the one or the other."""
    told = ErrorTold(
        code=refusal.code,
        message=refusal.message,
        field=refusal.field,
        retryable=refusal.retryable,
        fatal=True,
    )
    close_code = BAD_INPUT
    if refusal.code in SESSION_FAULTS:
        close_code = SESSION_FAULTS[SessionFault(refusal.code)][1] or BAD_INPUT
    with suppress(WebSocketDisconnect):
        await websocket.send_text(wire.encode(error_message(told)))
        await websocket.close(close_code, refusal.message)
