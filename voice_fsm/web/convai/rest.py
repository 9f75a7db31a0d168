"""What ElevenLabs' clients ask about agents over HTTP: signed URLs, and what an agent is."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voice_fsm.errors import ClientError, ClientFault, VoiceError
from voice_fsm.runtime.agents import HostedAgent
from voice_fsm.web.auth import Gate
from voice_fsm.web.convai.access import SIGNATURE
from voice_fsm.web.convai.endpoint import ConvaiEndpoint
from voice_fsm.web.speech.refusals import RequestError, elevenlabs_refusal

PATH: Final = "/v1/convai/conversation"
"""Of the WebSocket; what is asked about conversations over HTTP lies beside and below it."""

_NOT_FOUND: Final = 404
_UNPROCESSABLE: Final = 422

log = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Response]]


def agent_routes(gate: Gate) -> list[Route]:
    """Routes for an app whose endpoint is ``state.convai``. A signature does not buy a signature."""

    @answering(gate)
    async def signed_url(request: Request) -> Response:
        hosted = _agent(request, request.query_params.get("agent_id"))
        signature = _endpoint(request).access.sign(hosted.agent)
        url = f"{_own_address(request)}{PATH}?agent_id={hosted.agent.id}&{SIGNATURE}={signature}"
        return JSONResponse({"signed_url": url}, headers={"Cache-Control": "no-store"})

    async def webrtc_token(_: Request) -> Response:
        return elevenlabs_refusal(
            RequestError(
                _NOT_FOUND,
                "webrtc_not_supported",
                'This server has no WebRTC. Start the session with connectionType: "websocket".',
            )
        )

    @answering(gate)
    async def agent(request: Request) -> Response:
        return JSONResponse(_described(_agent(request, request.path_params["agent_id"])))

    return [
        Route(f"{PATH}/get-signed-url", signed_url),
        Route(f"{PATH}/get_signed_url", signed_url),
        Route(f"{PATH}/token", webrtc_token),
        Route("/v1/convai/agents/{agent_id}", agent),
    ]


def answering(gate: Gate) -> Callable[[Handler], Handler]:
    """Make a handler ask for a key, and tell errors as ElevenLabs does."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def answer(request: Request) -> Response:
            try:
                gate.check_key(request)
                return await handler(request)
            except VoiceError as error:
                return elevenlabs_refusal(error)
            except OSError as error:
                log.warning("conversations_unreachable", reason=str(error))
                refusal = RequestError(
                    503,
                    "conversations_unreachable",
                    "The conversations cannot be reached now.",
                    retry_after_s=5,
                )
                return elevenlabs_refusal(refusal)

        return answer

    return decorate


def _endpoint(request: Request) -> ConvaiEndpoint:
    endpoint: ConvaiEndpoint = request.app.state.convai
    return endpoint


def _agent(request: Request, agent_id: str | None) -> HostedAgent:
    if agent_id is None:
        raise RequestError(
            _UNPROCESSABLE, ClientFault.INVALID_FIELD, "`agent_id` is required.", field="query.agent_id"
        )
    try:
        return _endpoint(request).agents.get(agent_id)
    except ClientError as unknown:
        raise RequestError(_NOT_FOUND, unknown.code, unknown.message) from None


def _own_address(request: Request) -> str:
    """Where the caller reaches this server, as far as it and a proxy before us tell."""
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    return f"{'wss' if scheme == 'https' else 'ws'}://{request.url.netloc}"


def _described(hosted: HostedAgent) -> dict[str, Any]:
    agent, options = hosted.agent, hosted.agent.options(hosted.services.defaults)
    return {
        "agent_id": agent.id,
        "name": agent.name or agent.id,
        "conversation_config": {
            "agent": {
                "first_message": options.turn.first_message or "",
                "language": options.stt.language_code or "",
                "prompt": {"prompt": agent.prompt or "", "llm": agent.llm.model if agent.llm else None},
                "dynamic_variables": {"dynamic_variable_placeholders": dict(agent.dynamic_variables)},
            },
            "asr": {"user_input_audio_format": str(options.stt.audio_format)},
            "tts": {
                "voice_id": options.tts.voice_id,
                "model_id": options.tts.model_id,
                "agent_output_audio_format": str(options.tts.output_format),
            },
        },
        "metadata": {"created_at_unix_secs": 0, "updated_at_unix_secs": 0},
        "platform_settings": {"overrides": {"allowed": list(agent.allowed_overrides)}},
    }
