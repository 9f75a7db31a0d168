"""Our errors in the words of OpenAI's Realtime protocol."""

from typing import Any, Final

from voice_fsm.errors import VoiceError
from voice_fsm.fsm.effects import ErrorTold
from voice_fsm.wire.realtime import ServerEvent

_CODES: Final = {
    "malformed_message": "invalid_event",
    "unknown_type": "invalid_event",
    "invalid_field": "invalid_value",
    "invalid_audio": "invalid_value",
}
_SERVER_CODES: Final = (
    "stt_",
    "chat_",
    "tts_",
    "internal_error",
    "turn_timeout",
    "overloaded",
    "configure_timeout",
)


class RealtimeRefusal(VoiceError):  # noqa: N818  # says what it is
    """A message that cannot be obeyed, with the protocol's own code."""


def client_error(error: VoiceError, event_id: str | None) -> ServerEvent:
    """Tell the client what is wrong with a message of its own."""
    return _event(error.code, error.message, error.field, event_id)


def told_error(error: ErrorTold) -> ServerEvent:
    """Tell of a fault that no message is to blame for."""
    return _event(error.code, error.message, error.field, None)


def failure(error: ErrorTold) -> dict[str, Any]:
    """The same as the reason why a response failed."""
    return {"type": _type(error.code), "code": error.code, "message": error.message}


def session_expired(message: str) -> ServerEvent:
    """The last event of a session that was long enough."""
    return _event("session_expired", message, None, None)


def _event(code: str, message: str, param: str | None, event_id: str | None) -> ServerEvent:
    body = {
        "type": _type(code),
        "code": _CODES.get(code, code),
        "message": message,
        "param": param,
        "event_id": event_id,
    }
    return ServerEvent("error", {"error": body})


def _type(code: str) -> str:
    return "server_error" if code.startswith(_SERVER_CODES) else "invalid_request_error"
