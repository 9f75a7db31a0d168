"""What the endpoints of speech share, and how each is wrapped: let in, served, refused in its own dialect."""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from voice_fsm.errors import VoiceError
from voice_fsm.runtime.groups import first_error
from voice_fsm.speech.service import SpeechService
from voice_fsm.stt.base import SttProvider
from voice_fsm.tts.base import TtsProvider
from voice_fsm.web.auth import Gate
from voice_fsm.web.speech.refusals import status_of
from voice_fsm.web.speech.transcripts import Transcripts

log = structlog.get_logger()

_CLIENT_LEFT: Final = 499
"""Of nginx; nobody reads it."""


@attrs.frozen(kw_only=True)
class SpeechApi:
    """The services behind the endpoints, for as long as the app runs."""

    gate: Gate
    stt: SttProvider
    tts: TtsProvider
    speech: SpeechService
    transcripts: Transcripts


@attrs.frozen(kw_only=True)
class SocketPolicy:
    """What clients may do at the sockets of speech."""

    allowed_origins: frozenset[str] = frozenset()
    """Origins of pages that may connect; empty: any."""
    max_session_s: float = 3600.0
    connect_s: float = 10.0
    """For the recogniser to be ready."""

    def refuses(self, websocket: WebSocket) -> bool:
        """Whether a page has no business here."""
        return bool(self.allowed_origins) and websocket.headers.get("origin") not in self.allowed_origins


Refuse = Callable[[VoiceError], Response]
Endpoint = Callable[[SpeechApi, Request], Awaitable[Response]]


def guarded(endpoint: Endpoint, use: str, refuse: Refuse) -> Callable[[Request], Awaitable[Response]]:
    """Let in who shows a key, or a token bought for ``use``; tell what goes wrong by ``refuse``."""

    async def serve(request: Request) -> Response:
        api: SpeechApi = request.app.state.speech_api
        answer: Response | None = None
        try:
            api.gate.check(request, use)
            answer = await endpoint(api, request)
        except* VoiceError as group:
            error = first_error(group)
            log.info(
                "speech_request_refused", path=request.url.path, code=error.code, status=status_of(error)
            )
            answer = refuse(error)
        except* ClientDisconnect:
            pass
        return answer or Response(status_code=_CLIENT_LEFT)

    return serve
