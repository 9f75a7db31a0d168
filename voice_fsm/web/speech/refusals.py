"""Errors as HTTP answers, in the shapes that ElevenLabs' and OpenAI's clients read."""

import math
from typing import Final

from starlette.responses import JSONResponse

from voice_fsm.errors import AccessDenied, ClientError, ClientFault, ProviderError, ProviderFault, VoiceError

_PROVIDER_STATUS: Final = {
    ProviderFault.TIMEOUT: 504,
    ProviderFault.STALLED: 504,
    ProviderFault.OVERLOADED: 503,
    ProviderFault.UNREACHABLE: 503,
    ProviderFault.UNAVAILABLE: 501,
    ProviderFault.RATE_LIMITED: 429,
    ProviderFault.REJECTED: 400,
}
"""Any other failure of an upstream is 502: its credentials and quota are ours, not the client's."""
_UNPROCESSABLE: Final = 422
_VOICE_FIELD: Final = "tts.voice_id"
"""Where a provider says that it has no such voice."""
_OURS: Final = ("tts", "stt")
"""Sections of a session's options, which a request has not."""
_PLACES: Final = ("query", "body")
_OPENAI_NAMES: Final = {
    "voice_id": "voice",
    "voice_settings.speed": "speed",
    "output_format": "response_format",
    "text": "input",
    "language_code": "language",
}


class RequestError(VoiceError):
    """A request that cannot be served, with the HTTP status that says so."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, field=field, retryable=retry_after_s is not None)
        self.status = status
        self.retry_after_s = retry_after_s


def status_of(error: VoiceError) -> int:
    """The HTTP status that tells of an error."""
    match error:
        case RequestError():
            return error.status
        case AccessDenied():
            return 401
        case ClientError():
            return _client_status(error)
        case ProviderError():
            return _PROVIDER_STATUS.get(error.fault, 502)
    return 500


def _client_status(error: ClientError) -> int:
    if error.field == _VOICE_FIELD:
        return 404
    return _UNPROCESSABLE if error.fault == ClientFault.INVALID_FIELD else 400


def elevenlabs_refusal(error: VoiceError) -> JSONResponse:
    """``{"detail": …}``: for status 422 a list of the fields at fault, else ``status`` and ``message``."""
    status = status_of(error)
    detail: object
    if status == _UNPROCESSABLE:
        path = _path(error)
        detail = [{"loc": path, "msg": error.message, "type": error.code}]
    else:
        detail = {"status": elevenlabs_status(error), "message": error.message}
    return JSONResponse({"detail": detail}, status, headers=_headers(error))


def _path(error: VoiceError) -> list[str]:
    """Where in a request a field is."""
    steps = (error.field or "").split(".")
    if steps[0] in _PLACES:
        return steps
    return ["body", *filter(None, steps[1:] if steps[0] in _OURS else steps)]


def _parameter(error: VoiceError) -> str | None:
    """What OpenAI calls the field."""
    name = ".".join(_path(error)[1:])
    return _OPENAI_NAMES.get(name, name) or None


def elevenlabs_status(error: VoiceError) -> str:
    """ElevenLabs' name of an error, where it has one; else ours."""
    match error:
        case AccessDenied():
            return "invalid_api_key"
        case ClientError(field="tts.voice_id"):
            return "voice_not_found"
        case ClientError(fault=ClientFault.TEXT_TOO_LONG):
            return "max_character_limit_exceeded"
    return error.code


def openai_refusal(error: VoiceError) -> JSONResponse:
    """``{"error": {…}}``."""
    status = status_of(error)
    is_denied = isinstance(error, AccessDenied)
    body = {
        "message": error.message,
        "type": "invalid_request_error" if status < 500 else "server_error",  # noqa: PLR2004  # HTTP's own border
        "param": _parameter(error),
        "code": "invalid_api_key" if is_denied else error.code,
    }
    if isinstance(error, ClientError) or status == _UNPROCESSABLE:
        status = 400  # whatever is wrong with a parameter
    return JSONResponse({"error": body}, status, headers=_headers(error))


def _headers(error: VoiceError) -> dict[str, str]:
    retry_after_s = getattr(error, "retry_after_s", None)
    return {"Retry-After": str(math.ceil(retry_after_s))} if retry_after_s else {}
