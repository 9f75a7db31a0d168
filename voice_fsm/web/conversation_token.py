"""``GET /api/token``: a token with which a browser talks to ElevenLabs itself; our key stays here."""

from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from voice_fsm.errors import AccessDenied
from voice_fsm.upstream.elevenlabs_agents import AgentsApi, AgentsApiError
from voice_fsm.web.auth import Gate

log = structlog.get_logger()

BOUGHT_FOR: Final = "conversation"
"""What a single-use token of this server's own has to be for, to buy one of ElevenLabs'."""


class ConversationTokens:
    """Gives out tokens for one agent or engine."""

    def __init__(
        self, api: AgentsApi, agent_id: str | None, gate: Gate, allowed_origins: frozenset[str]
    ) -> None:
        self._api = api
        self._agent_id = agent_id
        self._gate = gate
        self._allowed_origins = allowed_origins

    async def __call__(self, request: Request) -> Response:
        """Answer with ``{"token": ...}``, or ``{"error": {"code", "message"}}`` and a status that fits."""
        origin = request.headers.get("origin")
        if self._allowed_origins and origin not in self._allowed_origins:
            log.warning("origin_refused", origin=origin)
            return _refuse(403, "origin_refused", "This page may not ask for tokens.")
        try:
            self._gate.check(request, BOUGHT_FOR)
        except AccessDenied as denied:
            return _refuse(401, denied.code, denied.message)
        if self._agent_id is None:
            return _refuse(404, "not_configured", "SPEECH_ENGINE_ID and ELEVENLABS_API_KEY have to be set.")
        try:
            token = await self._api.conversation_token(self._agent_id)
        except AgentsApiError as error:
            log.warning("token_refused", reason=error.message, status=error.status)
            return _refuse(502, error.code, "ElevenLabs gave no token; the server's log tells why.")
        return JSONResponse({"token": token}, headers={"Cache-Control": "no-store"})


def _refuse(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status)
