"""The app: which door is at which path."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import httpx
import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from voice_fsm.config import Access, Recording, Settings
from voice_fsm.fsm.chart import SessionChart
from voice_fsm.metrics import METRICS_TYPE, Metrics
from voice_fsm.runtime.agents import open_agents
from voice_fsm.runtime.conversations import open_conversations
from voice_fsm.runtime.services import make_transcribe, open_services, open_speech_service
from voice_fsm.runtime.session import Services
from voice_fsm.runtime.sound_files import SoundArchive
from voice_fsm.speech.service import SpeechService
from voice_fsm.upstream.elevenlabs_agents import AgentsApi
from voice_fsm.upstream.http import open_client
from voice_fsm.upstream.websocket import background_nursery
from voice_fsm.web.auth import Gate, TokenMint
from voice_fsm.web.console import console_routes, describe_machine
from voice_fsm.web.convai.access import SIGNED_URL_S, AgentAccess
from voice_fsm.web.convai.endpoint import ConvaiEndpoint
from voice_fsm.web.convai.history import history_routes
from voice_fsm.web.convai.rest import agent_routes
from voice_fsm.web.conversation_token import ConversationTokens
from voice_fsm.web.core_time import watch_core
from voice_fsm.web.occupancy import Occupancy
from voice_fsm.web.realtime.endpoint import RealtimeEndpoint
from voice_fsm.web.realtime.secrets import secret_routes
from voice_fsm.web.seats import Seats
from voice_fsm.web.speech.api import SocketPolicy, SpeechApi
from voice_fsm.web.speech.multi_stream_input import MultiStreamInputEndpoint
from voice_fsm.web.speech.routes import speech_routes
from voice_fsm.web.speech.scribe import ScribeEndpoint
from voice_fsm.web.speech.socket import SpeechSocketConfig, SpeechSocketEndpoint
from voice_fsm.web.speech.stream_input import StreamInputEndpoint
from voice_fsm.web.speech.transcripts import TranscriptLimits, Transcripts
from voice_fsm.web.speech_engine import SpeechEngineEndpoint, SpeechEnginePolicy
from voice_fsm.web.tokens import token_routes
from voice_fsm.web.voice import DoorPolicy, VoiceEndpoint


def create_app(settings: Settings, draining: trio.Event) -> Starlette:
    """Make the app of one process; its lifespan loads the engines.

    ``draining`` is set by the server when it is about to stop; sessions then say goodbye.
    """
    gate = make_gate(settings.access)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            open_services(settings, draining) as services,
            open_speech_service(settings, services.tts, services.metrics) as speech,
            open_agents(settings, services) as agents,
            open_conversations(settings.agents) as keeper,
            open_client() as client,
            background_nursery() as measuring,
        ):
            occupancy = Occupancy(settings.limits.max_occupancy / 100 or None)
            services.metrics.watch_occupancy(lambda: occupancy.share)
            policy, seats = _policy(settings), Seats(settings.limits.max_sessions, occupancy)
            measuring.start_soon(watch_core, seats.note_core)
            app.state.voice = VoiceEndpoint(
                services, policy, gate if settings.access.guard_voice_ws else Gate(), seats
            )
            access = make_agent_access(settings.access, gate)
            app.state.convai = ConvaiEndpoint(agents, access, policy, seats, keeper)
            app.state.realtime = RealtimeEndpoint(
                services,
                agents,
                default_agent_id=settings.agents.default_id,
                gate=gate,
                access=access,
                policy=policy,
                seats=seats,
            )
            app.state.conversations = keeper and keeper.store
            app.state.sounds = _sounds(settings.recording)
            app.state.speech, app.state.metrics = speech, services.metrics
            app.state.speech_socket = SpeechSocketEndpoint(
                speech,
                policy,
                gate,
                seats,
                config=SpeechSocketConfig(
                    sample_rate_hz=settings.synthesis.sample_rate_hz,
                    idle_s=settings.limits.idle_timeout_s,
                    draining=draining,
                ),
            )
            app.state.speech_engine = SpeechEngineEndpoint(
                services.chat, _speech_engine_policy(settings), seats, draining
            )
            api = make_speech_api(settings, services, speech, gate, client)
            app.state.speech_api = api
            sockets = (api, seats, make_socket_policy(settings), draining)
            app.state.scribe, app.state.stream_input = ScribeEndpoint(*sockets), StreamInputEndpoint(*sockets)
            app.state.multi_stream_input = MultiStreamInputEndpoint(*sockets)
            app.state.conversation_tokens = _conversation_tokens(settings, client, gate)
            yield

    async def speech_socket(websocket: WebSocket) -> None:
        endpoint: SpeechSocketEndpoint = websocket.app.state.speech_socket
        await endpoint(websocket)

    async def voice(websocket: WebSocket) -> None:
        endpoint: VoiceEndpoint = websocket.app.state.voice
        await endpoint(websocket)

    async def convai(websocket: WebSocket) -> None:
        endpoint: ConvaiEndpoint = websocket.app.state.convai
        await endpoint(websocket)

    async def speech_engine(websocket: WebSocket) -> None:
        endpoint: SpeechEngineEndpoint = websocket.app.state.speech_engine
        await endpoint(websocket)

    async def conversation_token(request: Request) -> Response:
        endpoint: ConversationTokens = request.app.state.conversation_tokens
        return await endpoint(request)

    async def health(request: Request) -> Response:
        endpoint: VoiceEndpoint = request.app.state.voice
        status = "draining" if draining.is_set() else "ok"
        return JSONResponse(
            {"status": status, "sessions": endpoint.sessions}, 503 if draining.is_set() else 200
        )

    async def metrics(request: Request) -> Response:
        counted: Metrics = request.app.state.metrics
        return Response(counted.text(), media_type=METRICS_TYPE)

    async def front(_: Request) -> Response:
        return RedirectResponse("/test")

    return Starlette(
        routes=[
            Route("/", front),
            Route("/healthz", health),
            Route("/metrics", metrics),
            WebSocketRoute("/v1/voice/ws", voice),
            WebSocketRoute("/api/v1/ws", speech_socket),
            WebSocketRoute("/v1/convai/conversation", convai),
            WebSocketRoute("/v1/realtime", _realtime),
            WebSocketRoute("/realtime", _realtime),
            *secret_routes(gate),
            *agent_routes(gate),
            *history_routes(gate),
            *token_routes(gate),
            WebSocketRoute("/v1/speech-engine/ws", speech_engine),
            Route("/api/token", conversation_token),
            *speech_routes(),
            *console_routes(describe_machine(SessionChart)),
        ],
        middleware=_cross_origin(settings),
        lifespan=lifespan,
    )


async def _realtime(websocket: WebSocket) -> None:
    endpoint: RealtimeEndpoint = websocket.app.state.realtime
    await endpoint(websocket)


def make_gate(access: Access) -> Gate:
    """Who is let in, by the settings."""
    return Gate(access.service_api_keys, TokenMint(access.token_secret or token_hex(), access.token_ttl_s))


def make_agent_access(access: Access, gate: Gate) -> AgentAccess:
    """Who may talk to which agent."""
    return AgentAccess(gate, TokenMint(access.token_secret or token_hex(), SIGNED_URL_S))


def make_speech_api(
    settings: Settings, services: Services, speech: SpeechService, gate: Gate, client: httpx.AsyncClient
) -> SpeechApi:
    """What the endpoints of speech share, by the settings."""
    uploads = settings.uploads
    limits = TranscriptLimits(
        max_upload_bytes=uploads.max_bytes,
        max_recording_s=uploads.max_recording_s,
        concurrency=uploads.concurrency,
    )
    return SpeechApi(
        gate=gate,
        stt=services.stt,
        tts=services.tts,
        speech=speech,
        transcripts=Transcripts(make_transcribe(settings, services.stt, client), limits),
    )


def make_socket_policy(settings: Settings) -> SocketPolicy:
    """What clients may do at the sockets of speech, by the settings."""
    return SocketPolicy(
        allowed_origins=frozenset(settings.server.allowed_origins),
        max_session_s=settings.limits.max_session_s,
        connect_s=settings.deadlines.stt_connect_s,
    )


def _cross_origin(settings: Settings) -> list[Middleware]:
    """Let pages of other origins read answers: those of ALLOWED_ORIGINS, else whoever has a key.

    A server that asks for neither answers its own pages alone: any page that its user visits could use it.
    """
    origins = settings.server.allowed_origins or (("*",) if settings.access.service_api_keys else ())
    if not origins:
        return []
    exposed = ("X-Cache", "X-Timestamps", "request-id", "Retry-After", "Content-Range")
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=exposed,
        )
    ]


def _policy(settings: Settings) -> DoorPolicy:
    return DoorPolicy(
        allow_backend_credentials=settings.backend.allow_frontend_auth,
        allowed_origins=frozenset(settings.server.allowed_origins),
        max_sessions=settings.limits.max_sessions,
    )


def _sounds(recording: Recording) -> SoundArchive | None:
    """What was recorded stays to be had and to be deleted, whether more is or not."""
    return None if recording.directory is None else SoundArchive(Path(recording.directory))


def _speech_engine_policy(settings: Settings) -> SpeechEnginePolicy:
    return SpeechEnginePolicy(
        api_key=settings.speech_engine.api_key,
        history_turns=settings.conversation.history_turns,
    )


def _conversation_tokens(settings: Settings, client: httpx.AsyncClient, gate: Gate) -> ConversationTokens:
    chosen = settings.elevenlabs
    api = AgentsApi(client, base_url=chosen.base_url, api_key=chosen.api_key or "")
    agent_id = settings.speech_engine.engine_id if chosen.api_key else None
    return ConversationTokens(api, agent_id, gate, frozenset(settings.server.allowed_origins))
