"""Deepgram's text to speech on the wire, ``/v1/speak``: what is asked, what comes back, what is refused.

From developers.deepgram.com and the official Python client, seen 2026-11-21.
"""

import json
from typing import Any, Final
from urllib.parse import urlencode

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import PCM_24K
from voice_fsm.upstream.faults import RefusedError, provider_error
from voice_fsm.upstream.websocket import derive_ws_url
from voice_fsm.wire.upstream_json import read_upstream_json

SPEEDS: Final = (0.7, 1.5)
MAX_TEXT_CHARS: Final = 2000
RAW_ENCODINGS: Final = {
    **{AudioFormat("pcm", rate_hz): "linear16" for rate_hz in (8000, 16000, 24000, 32000, 48000)},
    **{AudioFormat("ulaw", rate_hz): "mulaw" for rate_hz in (8000, 16000)},
    **{AudioFormat("alaw", rate_hz): "alaw" for rate_hz in (8000, 16000)},
}
"""What sockets give."""
FILE_FORMATS: Final = frozenset(
    {
        *(AudioFormat("mp3", 22050, kbps) for kbps in (32, 48)),
        *(AudioFormat("opus", 48000, kbps) for kbps in (32, 64, 96, 128, 192)),
    }
)
"""What only HTTP gives."""

FLUSH: Final = '{"type":"Flush"}'


@attrs.frozen(kw_only=True)
class Voice:
    """Who speaks, and into which format; on a socket it stays the same."""

    model: str
    source_format: AudioFormat
    speed: float | None

    def query(self) -> str:
        """Give the query of an address."""
        source = self.source_format
        fields: dict[str, Any] = {"model": self.model}
        if source.bit_rate_kbps is None:
            fields |= {"encoding": RAW_ENCODINGS[source], "sample_rate": source.sample_rate_hz}
        else:
            fields |= {"encoding": source.codec, "bit_rate": source.bit_rate_kbps * 1000}
        if self.speed is not None:
            fields["speed"] = self.speed
        return urlencode(fields)


def source_format(output_format: AudioFormat) -> AudioFormat:
    """Choose what to ask for where ``output_format`` is wanted: itself, or PCM to make it from."""
    if output_format in RAW_ENCODINGS or output_format in FILE_FORMATS:
        return output_format
    return AudioFormat("pcm", 48000) if output_format.sample_rate_hz > PCM_24K.sample_rate_hz else PCM_24K


def credentials(api_key: str) -> dict[str, str]:
    """Give the header of a key.

    Raises:
        ProviderError: AUTH_FAILED: the key cannot stand in a header (and would be quoted in an error).
    """
    if not (api_key.isascii() and api_key.isprintable()):
        raise provider_error(Upstream.TTS, ProviderFault.AUTH_FAILED)
    return {"Authorization": f"Token {api_key}"}


def socket_url(base_url: str, voice: Voice) -> str:
    """Address the WebSocket that takes text as it is written."""
    return f"{derive_ws_url(base_url)}/v1/speak?{voice.query()}"


def speak_url(base_url: str, voice: Voice) -> str:
    """Address the HTTP endpoint that streams."""
    return f"{base_url}/v1/speak?{voice.query()}"


def text_message(text: str) -> str:
    """Add text to what the next flush will speak."""
    return json.dumps({"type": "Speak", "text": text})


def read_event(message: str) -> dict[str, Any]:
    """Read a text message of the socket.

    Raises:
        ProviderError: BAD_RESPONSE, or what an error means.
    """
    try:
        event = read_upstream_json(message)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise provider_error(Upstream.TTS, ProviderFault.BAD_RESPONSE)
    kind = event.get("type")
    if kind == "Warning" and "EXCESSIVE_FLUSH" in (event.get("warn_code"), event.get("code")):
        raise provider_error(Upstream.TTS, ProviderFault.RATE_LIMITED)
    if kind == "Error":
        texts = (event.get(key) for key in ("code", "err_code", "description", "err_msg", "message"))
        words = " ".join(text for text in texts if isinstance(text, str))
        raise _error_of_words(words) or provider_error(Upstream.TTS, ProviderFault.SERVER_ERROR)
    return event


def error_of_close(reason: str) -> ProviderError | None:
    """Say what the code in a close's reason means, where there is one that is known."""
    return _error_of_words(reason)


def error_of_refusal(refusal: RefusedError, voice: Voice) -> ProviderError:
    """Look closer at a refusal over HTTP: a voice that there is not is told as a bad request."""
    if refusal.status in (400, 404) and refusal.mentions("model"):
        error = refusal.told_as(f"The voice service knows no voice {voice.model[:60]!r}.")
        error.field = "tts.voice_id"
        return error
    return refusal


_WORD_FAULTS: Final = (
    ("DATA-0001", ProviderFault.RATE_LIMITED),
    ("DATA-0000", ProviderFault.REJECTED),
    ("MESSAGE-0000", ProviderFault.REJECTED),
    ("BIG-", ProviderFault.REJECTED),
    ("NET-", ProviderFault.SERVER_ERROR),
    ("INVALID_AUTH", ProviderFault.AUTH_FAILED),
    ("PAYMENT_REQUIRED", ProviderFault.QUOTA_EXCEEDED),
)


def _error_of_words(words: str) -> ProviderError | None:
    fault = next((fault for word, fault in _WORD_FAULTS if word in words), None)
    return None if fault is None else provider_error(Upstream.TTS, fault)
