"""Everything that can go wrong and be told to somebody.

    VoiceError
    ├── ConfigError      a setting is wrong: the server does not start
    ├── AccessDenied     the peer shows no key or token that holds: told to the peer, the connection ends
    ├── ClientError      the peer asked for something it may not have: told to the peer, the session lives
    └── ProviderError    an upstream failed: ends a turn or a link, the session lives

A mistake of our own has no class here: it ends its session, is logged, and closes with 1011.
Each error has a stable ``code`` (snake_case) which clients may branch on and which ``docs/errors.md`` lists.
"""

from enum import StrEnum
from typing import Final


class ClientFault(StrEnum):
    """Codes of errors that the peer can mend. The sentence beside each is for the docs."""

    MALFORMED_MESSAGE = "malformed_message"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_FIELD = "invalid_field"
    NOT_CONFIGURED = "not_configured"
    FRONTEND_AUTH_DISABLED = "frontend_auth_disabled"
    INVALID_AUDIO = "invalid_audio"
    AUDIO_TOO_FAST = "audio_too_fast"
    UNSUPPORTED_FORMAT = "unsupported_format"
    RESUME_UNAVAILABLE = "resume_unavailable"
    EMPTY_TEXT = "empty_text"
    TEXT_TOO_LONG = "text_too_long"
    QUEUE_FULL = "queue_full"
    UNKNOWN_AGENT = "unknown_agent"
    OVERRIDE_NOT_ALLOWED = "override_not_allowed"
    MISSING_VARIABLE = "missing_variable"
    OUT_OF_ORDER = "out_of_order"


CLIENT_FAULTS: Final[dict[ClientFault, str]] = {
    ClientFault.MALFORMED_MESSAGE: "The frame is not a JSON object with a `type`.",
    ClientFault.UNKNOWN_TYPE: "No message of this `type` exists.",
    ClientFault.INVALID_FIELD: "A field is missing or has a wrong type or value; `field` is its path.",
    ClientFault.NOT_CONFIGURED: "Send `session.configure` first.",
    ClientFault.FRONTEND_AUTH_DISABLED: "This server does not take backend credentials from clients.",
    ClientFault.INVALID_AUDIO: "The audio is not base64, or not whole samples of the configured format.",
    ClientFault.AUDIO_TOO_FAST: "Microphone audio came too far ahead of real time; the surplus was dropped.",
    ClientFault.UNSUPPORTED_FORMAT: "The engine in use cannot read or write this audio format.",
    ClientFault.RESUME_UNAVAILABLE: "The resume token is unknown; the session starts afresh.",
    ClientFault.EMPTY_TEXT: "The text to be spoken holds nothing to pronounce.",
    ClientFault.TEXT_TOO_LONG: "The text to be spoken is longer than `MAX_SPEECH_CHARS`.",
    ClientFault.QUEUE_FULL: "More texts wait to be spoken on this socket than may wait.",
    ClientFault.UNKNOWN_AGENT: "This server has no agent of this id.",
    ClientFault.OVERRIDE_NOT_ALLOWED: "The agent does not let its clients choose this; `field` is its path.",
    ClientFault.MISSING_VARIABLE: "A text of the agent has a variable in it that was given no value.",
    ClientFault.OUT_OF_ORDER: "The message came at a time when it means nothing; it was ignored.",
}


class SessionFault(StrEnum):
    """Codes of what befalls a session or a turn, by no message of the peer's and no single upstream."""

    TURN_TIMEOUT = "turn_timeout"
    CONFIGURE_TIMEOUT = "configure_timeout"
    OVERLOADED = "overloaded"
    UNAUTHORIZED = "unauthorized"
    INTERNAL_ERROR = "internal_error"


SESSION_FAULTS: Final[dict[SessionFault, tuple[bool, int | None, str]]] = {
    # fault: (may the same request succeed later?, the close code if it ends the session, meaning)
    SessionFault.TURN_TIMEOUT: (True, None, "All of the turn's deadlines together were not enough."),
    SessionFault.CONFIGURE_TIMEOUT: (False, 1008, "No `session.configure` came in time."),
    SessionFault.OVERLOADED: (True, 1013, "The server has as many sessions as it may have."),
    SessionFault.UNAUTHORIZED: (
        False,
        1008,
        "The server asks for a key or token, and none that holds was shown.",
    ),
    SessionFault.INTERNAL_ERROR: (False, 1011, "The server has a fault; the operator's log tells which."),
}


class Upstream(StrEnum):
    STT = "stt"
    CHAT = "chat"
    TTS = "tts"


class ProviderFault(StrEnum):
    """How an upstream failed. The code a client sees is ``{upstream}_{fault}``, e.g. ``chat_timeout``."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    TRUNCATED = "truncated"
    BAD_RESPONSE = "bad_response"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    AUTH_FAILED = "auth_failed"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    LOST = "lost"


PROVIDER_FAULTS: Final[dict[ProviderFault, tuple[bool, str]]] = {
    # fault: (may the same request succeed later?, meaning)
    ProviderFault.UNREACHABLE: (True, "No connection: refused, DNS or TLS failure."),
    ProviderFault.TIMEOUT: (True, "No answer within the deadline."),
    ProviderFault.STALLED: (True, "The answer began, then nothing more came within the deadline."),
    ProviderFault.TRUNCATED: (True, "The answer broke off before its end."),
    ProviderFault.BAD_RESPONSE: (True, "The answer could not be understood."),
    ProviderFault.SERVER_ERROR: (True, "The upstream reported a fault of its own."),
    ProviderFault.OVERLOADED: (True, "The upstream, or this machine's engine, has no capacity left."),
    ProviderFault.RATE_LIMITED: (True, "Too many requests."),
    ProviderFault.QUOTA_EXCEEDED: (False, "The account's quota is used up."),
    ProviderFault.AUTH_FAILED: (False, "The upstream refused the credentials."),
    ProviderFault.REJECTED: (False, "The upstream refused the request itself."),
    ProviderFault.UNAVAILABLE: (False, "Not configured or not installed on this server."),
    ProviderFault.LOST: (True, "The link broke and could not be made again in time."),
}


class VoiceError(Exception):
    """Base of all errors with a code and a sentence for a person."""

    def __init__(self, code: str, message: str, *, field: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        """Path of the field at fault, such as ``stt.sample_rate``, where there is one."""
        self.retryable = retryable
        """Whether the same request may succeed later."""


class ConfigError(VoiceError):
    """A setting is wrong. ``field`` names the environment variable."""

    def __init__(self, variable: str, message: str) -> None:
        super().__init__("config_error", f"{variable}: {message}", field=variable)


class AccessDenied(VoiceError):  # noqa: N818  # says what happened
    """The peer shows no key or token that holds."""

    def __init__(self, message: str) -> None:
        super().__init__(SessionFault.UNAUTHORIZED.value, message)


class ClientError(VoiceError):
    """The peer's mistake: an `error` event, and the session goes on."""

    def __init__(self, fault: ClientFault, message: str, *, field: str | None = None) -> None:
        super().__init__(fault.value, message, field=field)
        self.fault = fault


class ProviderError(VoiceError):
    """An upstream failed. ``message`` is for the end user and never holds a secret or a raw body."""

    def __init__(
        self,
        upstream: Upstream,
        fault: ProviderFault,
        message: str,
        *,
        field: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(
            f"{upstream.value}_{fault.value}", message, field=field, retryable=PROVIDER_FAULTS[fault][0]
        )
        self.upstream = upstream
        self.fault = fault
        self.status = status
        """HTTP status or WebSocket close code, for the operator's log."""
        self.request_id = request_id
        """The upstream's own id of the request, for the operator's log."""
        self.retry_after_s = retry_after_s
