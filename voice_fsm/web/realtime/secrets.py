"""``POST /v1/realtime/client_secrets``: tokens for browsers, as OpenAI's clients ask for them."""

import time
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voice_fsm.errors import VoiceError
from voice_fsm.web.auth import Gate
from voice_fsm.web.realtime.endpoint import SECRET_PREFIX, USE, RealtimeEndpoint
from voice_fsm.web.speech.refusals import openai_refusal
from voice_fsm.web.speech.requests import read_body
from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, one_of
from voice_fsm.wire.realtime_session import INITIAL

_BODY_BYTES: Final = 1_048_576


@attrs.frozen(kw_only=True)
class _ExpiresAfter:
    anchor: str = attrs.field(default="created_at", validator=one_of(("created_at",)))
    seconds: int = attrs.field(default=600, validator=between(10, 7200))


@attrs.frozen(kw_only=True)
class _Asked:
    expires_after: _ExpiresAfter = attrs.field(factory=_ExpiresAfter)


def secret_routes(gate: Gate) -> list[Route]:
    """Routes for an app whose endpoint is ``state.realtime``. A secret does not buy a secret."""

    async def issue(request: Request) -> Response:
        endpoint: RealtimeEndpoint = request.app.state.realtime
        try:
            gate.check_key(request)
            body = await read_body(request, _BODY_BYTES)
            seconds = codec.structure(codec.read_object(body or b"{}"), _Asked).expires_after.seconds
        except VoiceError as error:
            return openai_refusal(error)
        secret = {
            "value": SECRET_PREFIX + gate.mint.issue(USE, seconds),
            "expires_at": int(time.time()) + seconds,
            "session": endpoint.terms_for(None).shown(INITIAL),
        }
        return JSONResponse(secret, headers={"Cache-Control": "no-store"})

    paths = ("/v1/realtime/client_secrets", "/realtime/client_secrets")
    return [Route(path, issue, methods=["POST"]) for path in paths]
