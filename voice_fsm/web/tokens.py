"""Tokens for browsers: `POST /v1/tokens`, and `POST /v1/single-use-token/{type}` for ElevenLabs' clients."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voice_fsm.errors import AccessDenied
from voice_fsm.web.auth import ANY_USE, Gate
from voice_fsm.web.speech.refusals import elevenlabs_refusal

TOKEN_TYPES: Final = ("realtime_scribe", "batch_scribe", "tts_websocket")
"""ElevenLabs' names of what a token is for."""


def token_routes(gate: Gate) -> list[Route]:
    """Both routes. A token does not buy a token."""

    async def issue(request: Request) -> Response:
        use = request.path_params.get("token_type", ANY_USE)
        try:
            gate.check_key(request)
        except AccessDenied as denied:
            return elevenlabs_refusal(denied)
        if use not in (ANY_USE, *TOKEN_TYPES):
            return JSONResponse({"detail": {"status": "not_found", "message": "No such type of token."}}, 404)
        return JSONResponse(
            {"token": gate.mint.issue(use), "expires_in_s": gate.mint.ttl_s},
            headers={"Cache-Control": "no-store"},
        )

    return [
        Route("/v1/tokens", issue, methods=["POST"]),
        Route("/v1/single-use-token/{token_type}", issue, methods=["POST"]),
    ]
