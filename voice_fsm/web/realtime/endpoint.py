"""The door ``/v1/realtime``: clients of OpenAI's Realtime protocol."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import attrs
import structlog
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.errors import AccessDenied, ClientError, ClientFault, VoiceError
from voice_fsm.runtime.agents import Agent, Agents, HostedAgent, client_tools
from voice_fsm.runtime.context import FrontEndNotes, InformedChat
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.web.auth import Gate, shown_key
from voice_fsm.web.convai.access import AgentAccess
from voice_fsm.web.realtime.door import RealtimeDoor
from voice_fsm.web.realtime.items import new_id
from voice_fsm.web.realtime.mapping import Terms
from voice_fsm.web.realtime.narration import UNTOLD
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.web.speech.refusals import RequestError, openai_refusal
from voice_fsm.web.voice import DoorPolicy, refused_by_origin
from voice_fsm.wire import realtime as wire
from voice_fsm.wire.realtime_session import INITIAL, SessionConfig, merged

log = structlog.get_logger()

USE: Final = "realtime"
"""What tokens for this door are bought for."""
SECRET_PREFIX: Final = "ek_"  # noqa: S105  # only how tokens begin
DEFAULT_MODEL: Final = "gpt-realtime"
"""What a client is told that named none."""
_TRANSCRIPTION: Final = {"type": "transcription", "audio": {"input": {"transcription": {}}}}


class RealtimeEndpoint:
    """Lets clients in. The model that they name is an agent's id, or else means the default agent."""

    def __init__(
        self,
        services: Services,
        agents: Agents,
        *,
        default_agent_id: str,
        gate: Gate,
        access: AgentAccess,
        policy: DoorPolicy,
        seats: Seats,
    ) -> None:
        self._services = services
        self._agents = agents
        self._default_agent_id = default_agent_id
        self._gate = gate
        self._access = access
        self._policy = policy
        self._seats = seats

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve one connection to its end; whoever is not let in is told so before the upgrade."""
        if await refused_by_origin(websocket, self._policy):
            return
        try:
            with self._seats.seat():
                terms = self._admit(websocket)
                offered = websocket.scope["subprotocols"]
                await websocket.accept(wire.SUBPROTOCOL if wire.SUBPROTOCOL in offered else None)
                await self._serve(websocket, terms, opening(websocket))
        except (AccessDenied, NoSeat, ClientError, RequestError) as error:
            log.warning("turned_away", code=error.code, path=websocket.url.path)
            with suppress(WebSocketDisconnect):
                await websocket.send_denial_response(openai_refusal(_as_answer(error)))

    def terms_for(self, model: str | None) -> Terms:
        """What a client is served with that names this model."""
        return Terms(self._hosted(model), model or DEFAULT_MODEL)

    def _admit(self, websocket: WebSocket) -> Terms:
        self._gate.check_secret(_secret(websocket), USE)
        if "call_id" in websocket.query_params:
            raise ClientError(ClientFault.INVALID_FIELD, "This server has no calls to join.", field="call_id")
        terms = self.terms_for(websocket.query_params.get("model"))
        if self._gate.is_open:
            self._access.check(websocket, terms.hosted.agent)
        options = terms.options(opening(websocket))
        services = terms.hosted.services
        services.tts.check(options.tts)
        services.chat.check(options.backend)
        return terms

    def _hosted(self, model: str | None) -> HostedAgent:
        for agent_id in (model, self._default_agent_id):
            if agent_id is not None:
                with suppress(ClientError):
                    return self._agents.get(agent_id)
        return HostedAgent(Agent(id=self._default_agent_id), self._services)

    async def _serve(self, websocket: WebSocket, terms: Terms, config: SessionConfig) -> None:
        session_id = new_id("sess")
        notes, tools = FrontEndNotes(), client_tools(terms.hosted.agent)
        door = RealtimeDoor(
            websocket, session_id=session_id, terms=terms, config=config, notes=notes, tools=tools
        )
        services = terms.hosted.services
        informed = attrs.evolve(services, chat=InformedChat(services.chat, notes, tools))
        with structlog.contextvars.bound_contextvars(connection=session_id):
            await VoiceSession(informed, door, untold=UNTOLD).run()


def opening(connection: HTTPConnection) -> SessionConfig:
    """What a session is at first."""
    is_transcription = connection.query_params.get("intent") == "transcription"
    return merged(INITIAL, _TRANSCRIPTION) if is_transcription else INITIAL


def _secret(websocket: WebSocket) -> str | None:
    """The key or token of the headers or, from a browser, of a subprotocol."""
    offered: Iterable[str] = websocket.scope["subprotocols"]
    keys = [
        name.removeprefix(wire.KEY_SUBPROTOCOL) for name in offered if name.startswith(wire.KEY_SUBPROTOCOL)
    ]
    secret = keys[0] if keys else shown_key(websocket)
    return secret and secret.removeprefix(SECRET_PREFIX)


def _as_answer(error: VoiceError) -> VoiceError:
    """With the status that says so."""
    if isinstance(error, NoSeat):
        return RequestError(503, error.code, error.message, retry_after_s=1)
    return error
