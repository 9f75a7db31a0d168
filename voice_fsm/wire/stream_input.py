"""The messages of ``/v1/text-to-speech/{voice_id}/stream-input``, as ElevenLabs' clients send and read them.

Those of ``multi-stream-input`` name a context besides. Source: the official client ``elevenlabs`` 2.78.0,
ElevenLabs' AsyncAPI document of 2025-08.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.wire import codec
from voice_fsm.wire.checks import between
from voice_fsm.wire.converter import base64_text
from voice_fsm.wire.elevenlabs_speech import DEFAULT_OUTPUT_FORMAT, VoiceSettings

DEFAULT_PATIENCE_S: Final = 20.0
POLICY_VIOLATION: Final = 1008
_REASON_BYTES: Final = 123
"""What a close frame holds beside its code (RFC 6455, 5.5)."""


@attrs.frozen(kw_only=True)
class StreamQuery:
    """What the query asks for. Parameters that are not here are taken and have no effect."""

    output_format: str = DEFAULT_OUTPUT_FORMAT
    model_id: str | None = None
    auto_mode: bool = False
    """Each message is a sentence, to be spoken at once."""
    inactivity_timeout: float = attrs.field(default=DEFAULT_PATIENCE_S, validator=between(1, 180))


def read_query(query: Mapping[str, str]) -> StreamQuery:
    """Read the query's parameters.

    Raises:
        ClientError: ``invalid_field``.
    """
    fields: dict[str, Any] = {name: query[name] for name in ("output_format", "model_id") if query.get(name)}
    if patience := query.get("inactivity_timeout"):
        fields["inactivity_timeout"] = float(patience) if patience.isdecimal() else patience
    return codec.structure(fields | {"auto_mode": query.get("auto_mode") == "true"}, StreamQuery)


@attrs.frozen(kw_only=True)
class TextMessage:
    """The client's only message: text to be spoken; without any, the text is over."""

    text: str
    flush: bool = False
    """Speak all that has come so far, without waiting for the end of a sentence."""
    voice_settings: VoiceSettings | None = None
    """With the first message only."""
    xi_api_key: str | None = attrs.field(default=None, repr=False)
    """With the first message, for who can send no header."""


def decode(text: str) -> TextMessage:
    """Read one frame.

    Raises:
        ClientError: it is no such message.
    """
    document = codec.read_object(text)
    if "text" not in document:
        raise ClientError(ClientFault.INVALID_FIELD, "`text` is required.", field="text")
    key = document.get("xi_api_key") or document.get("xi-api-key")
    return codec.structure({**document, "xi_api_key": key}, TextMessage)


@attrs.frozen(kw_only=True)
class ContextMessage:
    """A message of ``multi-stream-input``: to one context, which it begins if there is none of this name."""

    context_id: str = ""
    text: str | None = None
    flush: bool = False
    close_context: bool = False
    """The text of the context is over."""
    close_socket: bool = False
    """That of all contexts is."""
    voice_settings: VoiceSettings | None = None
    """With the first message of a context only."""
    xi_api_key: str | None = attrs.field(default=None, repr=False)
    """With the first message of the socket, for who can send no header."""

    @property
    def is_for_the_socket(self) -> bool:
        """Whether it keeps the socket alive, and no more."""
        return not (self.context_id or self.text or self.flush or self.close_context)


def decode_of_context(text: str) -> ContextMessage:
    """Read one frame of ``multi-stream-input``.

    Raises:
        ClientError: it is no such message.
    """
    document = codec.read_object(text)
    key = document.get("xi_api_key") or document.get("xi-api-key")
    context_id = document.get("context_id") or document.get("contextId") or ""
    return codec.structure({**document, "xi_api_key": key, "context_id": context_id}, ContextMessage)


@attrs.frozen(kw_only=True)
class CharTimes:
    """When each character sounds, in milliseconds from the start of its message's audio."""

    chars: tuple[str, ...]
    starts_ms: tuple[float, ...]
    durations_ms: tuple[float, ...]


def audio_frame(audio: bytes, times: CharTimes | None, context_id: str | None = None) -> str:
    """Write audio, with the times of what it says where they are known."""
    alignment = times and {
        "chars": times.chars,
        "charStartTimesMs": [round(at) for at in times.starts_ms],
        "charDurationsMs": [round(lasts) for lasts in times.durations_ms],
    }
    return _frame(
        audio=base64_text(audio) if audio else None,
        isFinal=None,
        alignment=alignment,
        normalizedAlignment=alignment,
        **_of_context(context_id),
    )


def final_frame(context_id: str | None = None) -> str:
    """Write that all audio has been sent."""
    return _frame(audio=None, isFinal=True, **_of_context(context_id))


def error_frame(error: str, message: str) -> str:
    """Write what went wrong; the socket closes after it."""
    return _frame(message=message, error=error, code=POLICY_VIOLATION)


def close_reason(message: str) -> str:
    """A message as far as a close frame holds it."""
    return message.encode()[:_REASON_BYTES].decode(errors="ignore")


def _of_context(context_id: str | None) -> dict[str, str]:
    return {} if context_id is None else {"contextId": context_id}


def _frame(**fields: object) -> str:
    return json.dumps(fields, separators=(",", ":"))
