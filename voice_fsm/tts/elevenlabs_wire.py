"""ElevenLabs' text to speech on the wire: what is asked, what comes back, what a refusal means.

From the API reference (elevenlabs.io/docs/api-reference/text-to-speech, seen 2026-11-21) and, where that is
silent or outdated, the official clients.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import attrs
import pybase64

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import VoiceSettings
from voice_fsm.tts.base import Alignment
from voice_fsm.tts.reply import Frame
from voice_fsm.upstream.faults import RefusedError, header_key, provider_error
from voice_fsm.upstream.websocket import derive_ws_url
from voice_fsm.wire.upstream_json import read_upstream_json

STREAM_FORMATS: Final = frozenset(
    {
        *("mp3_22050_32", "mp3_24000_48", "mp3_44100_32", "mp3_44100_64", "mp3_44100_96"),
        *("mp3_44100_128", "mp3_44100_192", "ulaw_8000", "alaw_8000"),
        *("pcm_8000", "pcm_16000", "pcm_22050", "pcm_24000", "pcm_32000", "pcm_44100", "pcm_48000"),
        *("opus_48000_32", "opus_48000_64", "opus_48000_96", "opus_48000_128", "opus_48000_192"),
    }
)
"""What ``/stream`` and ``/stream/with-timestamps`` give."""
SOCKET_FORMATS: Final = STREAM_FORMATS - {"mp3_24000_48", "pcm_32000", "pcm_48000"}
"""What ``/multi-stream-input`` gives."""

VOICE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""It becomes part of an address, so nothing else is let through."""

# The longest that the service allows; its default of 20 s is shorter than some chat backends think.
INACTIVITY_TIMEOUT_S: Final = 180


@attrs.frozen(kw_only=True)
class Voice:
    """Who speaks, and into which format: all that a request says beside its text.

    Voices that differ by their settings alone are equal: they share sockets.
    """

    voice_id: str
    model_id: str
    output_format: AudioFormat
    settings: VoiceSettings = attrs.field(eq=False)
    alignment: bool
    """Whether to ask when each character sounds."""

    @property
    def has_socket(self) -> bool:
        """Whether text can be streamed in; if not, each piece is a request of its own."""
        return not self._is_of("eleven_v3", "eleven_v4") and str(self.output_format) in SOCKET_FORMATS

    @property
    def takes_context(self) -> bool:
        """Whether ``previous_text`` may be sent; v3 refuses it."""
        return not self._is_of("eleven_v3", "eleven_v4")

    def settings_json(self) -> dict[str, float | bool]:
        """Give ``voice_settings``, without what is left to the service."""
        chosen = attrs.asdict(self.settings, filter=lambda _, value: value is not None)
        if "stability" in chosen and self._is_of("eleven_v3"):
            # v3 has three modes (creative, natural, robust) and refuses what lies between them.
            chosen["stability"] = round(chosen["stability"] * 2) / 2
        return chosen

    def _is_of(self, *families: str) -> bool:
        return self.model_id.startswith(families)


# --- asking -----------------------------------------------------------------------------------------------


def credentials(api_key: str) -> dict[str, str]:
    """Give the header of a key.

    Raises:
        ProviderError: see `header_key`.
    """
    return {"xi-api-key": header_key(Upstream.TTS, api_key)}


def stream_url(base_url: str, voice: Voice) -> str:
    """Address the HTTP endpoint that streams, with timestamps where they are wanted."""
    tail = "/with-timestamps" if voice.alignment else ""
    return f"{base_url}/v1/text-to-speech/{voice.voice_id}/stream{tail}?output_format={voice.output_format}"


def stream_body(voice: Voice, text: str, previous_text: str) -> dict[str, Any]:
    """Ask for the speech of one text; ``previous_text`` lets the intonation go on from there."""
    body = {"text": text, "model_id": voice.model_id, "voice_settings": voice.settings_json()}
    if previous_text and voice.takes_context:
        body["previous_text"] = previous_text
    return body


def socket_url(base_url: str, voice: Voice) -> str:
    """Address the WebSocket that takes text as it is written, for any number of replies with this voice.

    ``auto_mode`` speaks every message at once. The alternative, a chunk schedule, holds text back until at
    least 50 characters have come, which would keep a short first clause ("Sure!") waiting for the second.
    """
    query = {
        "model_id": voice.model_id,
        "output_format": str(voice.output_format),
        "auto_mode": "true",
        "sync_alignment": str(voice.alignment).lower(),
        "inactivity_timeout": INACTIVITY_TIMEOUT_S,
    }
    path = f"/v1/text-to-speech/{voice.voice_id}/multi-stream-input"
    return f"{derive_ws_url(base_url)}{path}?{urlencode(query)}"


def text_message(context_id: str, piece: str, voice: Voice | None) -> str:
    """Send a piece of text to a context, to be spoken at once; the service wants each to end with a space.

    The first begins the context, and it alone may hold settings: those of ``voice``.
    """
    settings = {} if voice is None else {"voice_settings": voice.settings_json()}
    return json.dumps({"text": f"{piece} ", "context_id": context_id, "flush": True, **settings})


def keep_alive_message(context_id: str) -> str:
    """Say that more text will come."""
    return json.dumps({"text": "", "context_id": context_id})


def closing_message(context_id: str) -> str:
    """End a context: what was flushed of it still comes, then its final frame."""
    return json.dumps({"context_id": context_id, "close_context": True})


# --- being answered ---------------------------------------------------------------------------------------

_SOCKET_ALIGNMENTS: Final = ("alignment", "normalizedAlignment", "normalized_alignment")


@attrs.frozen
class SocketMessage:
    """A message of the socket; whatever its spelling, which is not settled."""

    _fields: Mapping[str, Any]

    @property
    def context_id(self) -> str | None:
        """Whose it is."""
        found = self._fields.get("contextId") or self._fields.get("context_id")
        return found if isinstance(found, str) else None

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes of its context."""
        return bool(self._fields.get("isFinal") or self._fields.get("is_final"))

    @property
    def is_error(self) -> bool:
        """Whether it tells of an error, after which the service closes the socket."""
        fields = self._fields
        return bool(fields.get("error") or (fields.get("message") and not fields.get("audio")))

    def frame(self) -> Frame:
        """Give what it says; its alignment counts from the start of this message's audio.

        Raises:
            ProviderError: it is an error, or BAD_RESPONSE: it is not understood.
        """
        fields = self._fields
        if self.is_error:
            raise _error_of_message(fields)
        alignment = _first_alignment(_times_in_ms, fields, _SOCKET_ALIGNMENTS)
        return Frame(_audio(fields.get("audio")), alignment, self.is_final)


def read_socket_message(message: str | bytes) -> SocketMessage:
    """Read a message of the socket.

    Raises:
        ProviderError: BAD_RESPONSE.
    """
    return SocketMessage(_json_object(message))


def read_timestamps_line(line: bytes) -> Frame:
    """Read a line of ``/stream/with-timestamps``; its alignment counts from the start of the whole answer.

    Raises:
        ProviderError: BAD_RESPONSE.
    """
    chunk = _json_object(line)
    return Frame(
        _audio(chunk.get("audio_base64")),
        _first_alignment(_times_in_s, chunk, ("alignment", "normalized_alignment")),
    )


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        value = read_upstream_json(text)
    except ValueError:
        raise _bad_response() from None
    if not isinstance(value, dict):
        raise _bad_response()
    return value


def _audio(encoded: object) -> bytes:
    if encoded is None:
        return b""
    if not isinstance(encoded, str):
        raise _bad_response()
    try:
        return pybase64.b64decode(encoded, validate=True)
    except ValueError:
        raise _bad_response() from None


def _first_alignment(
    read: Callable[[Mapping[str, Any]], Alignment | None], frame: Mapping[str, Any], keys: Iterable[str]
) -> Alignment | None:
    """Take the first that is there; the one of the text as it was sent goes before the normalized one.

    One that is not understood counts as none: the speech itself is whole without it.
    """
    for key in keys:
        value = frame.get(key)
        if isinstance(value, dict):
            try:
                return read(value)
            except (TypeError, ValueError):
                continue
    return None


def _times_in_ms(value: Mapping[str, Any]) -> Alignment | None:
    starts_ms = _either(value, "charStartTimesMs", "char_start_times_ms")
    lengths_ms = _either(value, "charDurationsMs", "charsDurationsMs", "char_durations_ms")
    ends_ms = [start + length for start, length in zip(starts_ms, lengths_ms, strict=True)]
    return _alignment(value.get("chars"), starts_ms, ends_ms)


def _times_in_s(value: Mapping[str, Any]) -> Alignment | None:
    starts_s = _either(value, "character_start_times_seconds")
    ends_s = _either(value, "character_end_times_seconds")
    return _alignment(
        value.get("characters"), [start * 1000 for start in starts_s], [end * 1000 for end in ends_s]
    )


def _alignment(chars: object, starts_ms: Sequence[float], ends_ms: Sequence[float]) -> Alignment | None:
    if not isinstance(chars, list) or not all(isinstance(char, str) for char in chars):
        raise TypeError
    if not len(chars) == len(starts_ms) == len(ends_ms):
        raise ValueError
    return Alignment(tuple(chars), tuple(starts_ms), tuple(ends_ms)) if chars else None


def _either(value: Mapping[str, Any], *keys: str) -> list[float]:
    """Read a list of times under the one of these keys that is there: the spelling has changed over time."""
    times = next((value[key] for key in keys if key in value), None)
    if not isinstance(times, list):
        raise TypeError
    return [float(time) for time in times]


# --- being refused ----------------------------------------------------------------------------------------

_CODE_FAULTS: Final = {
    "invalid_api_key": ProviderFault.AUTH_FAILED,
    "missing_permissions": ProviderFault.AUTH_FAILED,
    "detected_unusual_activity": ProviderFault.AUTH_FAILED,
    "quota_exceeded": ProviderFault.QUOTA_EXCEEDED,
    "too_many_concurrent_requests": ProviderFault.RATE_LIMITED,
    "concurrent_limit_exceeded": ProviderFault.RATE_LIMITED,
    "max_active_conversations": ProviderFault.RATE_LIMITED,
    "rate_limit_exceeded": ProviderFault.RATE_LIMITED,
    "system_busy": ProviderFault.OVERLOADED,
    "voice_not_found": ProviderFault.REJECTED,
    "max_character_limit_exceeded": ProviderFault.REJECTED,
    "invalid_parameters": ProviderFault.REJECTED,
    "invalid_input_message": ProviderFault.REJECTED,
    "only_for_creator+": ProviderFault.REJECTED,
    "input_timeout_exceeded": ProviderFault.TRUNCATED,
    "internal_server_error": ProviderFault.SERVER_ERROR,
}
_CODE_FIELDS: Final = {"voice_not_found": "tts.voice_id"}
_WORD_FAULTS: Final = (
    ("quota", ProviderFault.QUOTA_EXCEEDED),
    ("api key", ProviderFault.AUTH_FAILED),
    ("api_key", ProviderFault.AUTH_FAILED),
    ("unauthorized", ProviderFault.AUTH_FAILED),
    ("too many", ProviderFault.RATE_LIMITED),
    ("rate limit", ProviderFault.RATE_LIMITED),
)
"""For the sockets' errors whose codes are not documented, and for the reasons of a close, which have none."""


def error_of_refusal(refusal: RefusedError) -> ProviderError:
    """Look closer at a refusal over HTTP: the same status stands for a bad key and for a used-up quota."""
    code = next((code for code in sorted(refusal.codes) if code in _CODE_FAULTS), "")
    return ProviderError(
        Upstream.TTS,
        _CODE_FAULTS.get(code, refusal.fault),
        refusal.message,
        field=_CODE_FIELDS.get(code),
        status=refusal.status,
        request_id=refusal.request_id,
        retry_after_s=refusal.retry_after_s,
    )


def error_of_close(code: int | None, reason: str) -> ProviderError | None:
    """Say what it means that the socket was closed with these words, if they mean anything."""
    fault = _fault_of_words(reason)
    return None if fault is None else provider_error(Upstream.TTS, fault, status=code)


def _error_of_message(fields: Mapping[str, Any]) -> ProviderError:
    code, message, status = fields.get("error"), fields.get("message"), fields.get("code")
    known = _CODE_FAULTS.get(code) if isinstance(code, str) else None
    error = provider_error(
        Upstream.TTS,
        known or _fault_of_words(f"{code} {message}") or ProviderFault.REJECTED,
        status=status if isinstance(status, int) else None,
    )
    error.field = _CODE_FIELDS.get(code) if isinstance(code, str) else None
    return error


def _fault_of_words(text: str) -> ProviderFault | None:
    lowered = text.lower()
    return next((fault for word, fault in _WORD_FAULTS if word in lowered), None)


def _bad_response() -> ProviderError:
    return provider_error(Upstream.TTS, ProviderFault.BAD_RESPONSE)
