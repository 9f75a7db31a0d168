"""Our error codes in the words of the Agents protocol."""

from typing import Final

from voice_fsm.fsm.effects import ClosingReason, ErrorTold
from voice_fsm.wire import convai as wire

NORMAL: Final = 1000
OPERATIONAL: Final = 1002
BAD_INPUT: Final = 1008
INTERNAL: Final = 1011

_CLIENT_TYPES: Final = {
    "malformed_message": "invalid_message",
    "invalid_field": "value_error",
    "invalid_audio": "value_error",
    "audio_too_fast": "value_error",
    "unsupported_format": "value_error",
    "override_not_allowed": "override_error",
    "missing_variable": "missing_dynamic_variable",
}
_OPERATIONAL_TYPES: Final = {
    "turn_timeout": "llm_timeout",
    "chat_timeout": "llm_timeout",
    "overloaded": "http_exception",
}
_UPSTREAM_TYPES: Final = {
    "chat_": "custom_llm_error",
    "stt_": "asr_transcription_error",
    "tts_": "tts_cascade_error",
}


def error_message(error: ErrorTold) -> wire.Error:
    """Say what is wrong; ``reason`` and ``details`` keep what is ours."""
    code, error_type = _classified(error.code)
    details = {"field": error.field, "retryable": error.retryable, "fatal": error.fatal}
    return wire.Error(
        code=code, error_type=error_type, message=error.message, reason=error.code, details=details
    )


def closing_message(reason: ClosingReason) -> wire.Error | None:
    """Say why a conversation ends that nothing went wrong in; for the other reasons an error has told it."""
    match reason:
        case "max_duration":
            error_type, code, message = "max_duration_exceeded", NORMAL, "Max duration exceeded"
        case "idle":
            error_type, code = "transport_receive_timeout", OPERATIONAL
            message = "The conversation ends, as nobody has said anything for a long time."
        case "draining":
            error_type, code, message = "http_exception", OPERATIONAL, "The server is about to restart."
        case _:
            return None
    return wire.Error(code=code, error_type=error_type, message=message, reason=reason, details={})


def _classified(code: str) -> tuple[int, str]:
    if code in _CLIENT_TYPES:
        return BAD_INPUT, _CLIENT_TYPES[code]
    if code in _OPERATIONAL_TYPES:
        return OPERATIONAL, _OPERATIONAL_TYPES[code]
    for prefix, error_type in _UPSTREAM_TYPES.items():
        if code.startswith(prefix):
            return OPERATIONAL, error_type
    return (
        (INTERNAL, "unknown_websocket_crash") if code == "internal_error" else (BAD_INPUT, "invalid_message")
    )
