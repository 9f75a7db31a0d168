"""The door ``/v1/convai/conversation``: clients of ElevenLabs' Agents protocol."""

import secrets
import time
from contextlib import suppress
from typing import Final

import attrs
import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.errors import SESSION_FAULTS, AccessDenied, ClientError, SessionFault, VoiceError
from voice_fsm.fsm.effects import ErrorTold
from voice_fsm.runtime.agents import Agents, HostedAgent, client_tools
from voice_fsm.runtime.context import FrontEndNotes, InformedChat
from voice_fsm.runtime.conversations import ConversationKeeper
from voice_fsm.runtime.session import VoiceSession
from voice_fsm.runtime.text_only import without_sound
from voice_fsm.runtime.transcript import ConversationRecord, Transcript
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.convai.door import ConvaiDoor
from voice_fsm.web.convai.errors import BAD_INPUT, error_message
from voice_fsm.web.convai.narration import UNTOLD, Narration
from voice_fsm.web.convai.opening import read_opening
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.web.voice import DoorPolicy, refused_by_origin
from voice_fsm.wire import convai as wire

log = structlog.get_logger()

_REFUSALS: Final = (AccessDenied, NoSeat, ClientError)


class ConvaiEndpoint:
    """Lets clients in that know an agent, and may talk to it."""

    def __init__(
        self,
        agents: Agents,
        access: AgentAccess,
        policy: DoorPolicy,
        seats: Seats,
        keeper: ConversationKeeper | None = None,
    ) -> None:
        """Without a ``keeper`` nothing of a conversation outlives it."""
        self.agents = agents
        self.access = access
        self._policy = policy
        self._seats = seats
        self._keeper = keeper

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
                await self._serve(websocket, hosted)
        except _REFUSALS as error:
            log.warning("turned_away", code=error.code, path=websocket.url.path)
            await _turn_away(websocket, error)

    async def _serve(self, websocket: WebSocket, hosted: HostedAgent) -> None:
        opening = await read_opening(websocket)
        conversation = hosted.converse(opening.initiation)
        services = without_sound(hosted.services) if conversation.text_only else hosted.services
        services.tts.check(conversation.options.tts)
        services.chat.check(conversation.options.backend)
        conversation_id = f"conv_{secrets.token_hex(12)}"
        notes, tools = FrontEndNotes(), client_tools(hosted.agent)
        begun = _begun(conversation_id, hosted, opening.initiation, text_only=conversation.text_only)
        transcript = Transcript(begun, trio.current_time())
        door = ConvaiDoor(
            websocket,
            conversation_id=conversation_id,
            opening=opening,
            options=conversation.options,
            narration=Narration(
                conversation_id, conversation.client_events, text_only=conversation.text_only
            ),
            notes=notes,
            tools=tools,
            transcript=transcript,
        )
        informed = attrs.evolve(services, chat=InformedChat(services.chat, notes, tools))
        self._keep(transcript.begun)
        try:
            with structlog.contextvars.bound_contextvars(connection=conversation_id):
                await VoiceSession(informed, door, untold=UNTOLD).run()
        finally:
            self._keep(transcript.record(trio.current_time()))

    def _keep(self, record: ConversationRecord) -> None:
        if self._keeper is not None:
            self._keeper.keep(record)


def _begun(
    conversation_id: str, hosted: HostedAgent, initiation: wire.Initiation, *, text_only: bool
) -> ConversationRecord:
    return ConversationRecord(
        conversation_id=conversation_id,
        agent_id=hosted.agent.id,
        started_unix_s=int(time.time()),
        user_id=initiation.user_id,
        source=initiation.source_info.source,
        text_only=text_only,
    )


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
