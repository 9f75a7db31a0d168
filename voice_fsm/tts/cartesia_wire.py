"""Cartesia's text to speech on the wire: what is asked, what comes back, what a refusal means.

From docs.cartesia.ai (API versions 2024-06-10 to 2026-03-01, seen 2026-11-21) and the official Python client.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import attrs
import pybase64

from voice_fsm.audio import AudioFormat
from voice_fsm.config.retired import RETIRED
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import PCM_24K
from voice_fsm.tts.base import Alignment
from voice_fsm.upstream.faults import RefusedError, fault_of_status, provider_error
from voice_fsm.upstream.websocket import derive_ws_url
from voice_fsm.wire.upstream_json import read_upstream_json

SPEEDS: Final = (0.6, 1.5)
_RATES_HZ: Final = (8000, 16000, 22050, 24000, 44100, 48000)
RAW_ENCODINGS: Final = {
    **{AudioFormat("pcm", rate_hz): "pcm_s16le" for rate_hz in _RATES_HZ},
    AudioFormat("ulaw", 8000): "pcm_mulaw",
    AudioFormat("alaw", 8000): "pcm_alaw",
}
"""What sockets give."""
MP3_FORMATS: Final = frozenset(
    AudioFormat("mp3", rate_hz, kbps)
    for rate_hz, kbps in ((22050, 32), (44100, 32), (44100, 64), (44100, 96), (44100, 128), (44100, 192))
)
"""What only HTTP gives."""

_MAX_GAP_CHARS: Final = 60
"""How far ahead a word is looked for after one that was not found."""
_OLDER_MODELS: Final = ("sonic-2", "sonic-turbo", "sonic-english", "sonic-multilingual")
"""Models that know three paces."""
_SLOW, _FAST = 0.9, 1.1


@attrs.frozen(kw_only=True)
class Access:
    """Where the service is, and who asks."""

    base_url: str
    api_key: str = attrs.field(repr=False)
    version: str

    def headers(self) -> dict[str, str]:
        """Give what every call holds.

        Raises:
            ProviderError: AUTH_FAILED: the key cannot stand in a header (and would be quoted in an error).
        """
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise provider_error(Upstream.TTS, ProviderFault.AUTH_FAILED)
        return {"X-API-Key": self.api_key, "Cartesia-Version": self.version}

    @property
    def socket_url(self) -> str:
        """Address the WebSocket that speaks."""
        return f"{derive_ws_url(self.base_url)}/tts/websocket"


@attrs.frozen(kw_only=True)
class Voice:
    """Who speaks, and into which format: all that a request says beside its text."""

    voice_id: str
    model_id: str
    language: str
    source_format: AudioFormat
    speed: float | None

    def request(self) -> dict[str, Any]:
        """Give the fields that every request holds."""
        return {
            "model_id": self.model_id,
            "voice": {"mode": "id", "id": self.voice_id},
            "language": self.language,
            "output_format": _output_format(self.source_format),
            **self._pace(),
        }

    def _pace(self) -> dict[str, Any]:
        if self.speed is None:
            return {}
        if not self.model_id.startswith(_OLDER_MODELS):
            return {"generation_config": {"speed": self.speed}}
        return {"speed": "slow" if self.speed < _SLOW else "fast" if self.speed > _FAST else "normal"}


def source_format(output_format: AudioFormat) -> AudioFormat:
    """Choose what to ask for where ``output_format`` is wanted: itself, or PCM to make it from."""
    if output_format in RAW_ENCODINGS or output_format in MP3_FORMATS:
        return output_format
    return AudioFormat("pcm", 48000) if output_format.sample_rate_hz > PCM_24K.sample_rate_hz else PCM_24K


def _output_format(source: AudioFormat) -> dict[str, Any]:
    if source.bit_rate_kbps is not None:
        return {
            "container": "mp3",
            "sample_rate": source.sample_rate_hz,
            "bit_rate": source.bit_rate_kbps * 1000,
        }
    return {"container": "raw", "encoding": RAW_ENCODINGS[source], "sample_rate": source.sample_rate_hz}


def generation(voice: Voice, context_id: str, transcript: str, *, goes_on: bool) -> dict[str, Any]:
    """Add a text to a context; ``goes_on``: more will follow.

    The service is not to wait for more before it speaks (its own default differs from version to version).
    """
    return {
        **voice.request(),
        "context_id": context_id,
        "transcript": transcript,
        "continue": goes_on,
        "max_buffer_delay_ms": 0,
        "add_timestamps": True,
    }


def cancellation(context_id: str) -> dict[str, Any]:
    """End a context; what of it is still on its way is to be dropped by its id."""
    return {"context_id": context_id, "cancel": True}


# --- being answered -------------------------------------------------------------------------------------


def read_message(message: str | bytes) -> dict[str, Any]:
    """Read a message of the socket.

    Raises:
        ProviderError: BAD_RESPONSE.
    """
    try:
        value = read_upstream_json(message)
    except ValueError:
        raise _bad_response() from None
    if not isinstance(value, dict):
        raise _bad_response()
    return value


def audio_in(message: Mapping[str, Any]) -> bytes:
    """Take the audio out of a chunk.

    Raises:
        ProviderError: BAD_RESPONSE.
    """
    data = message.get("data")
    if not isinstance(data, str):
        raise _bad_response()
    try:
        return pybase64.b64decode(data, validate=True)
    except ValueError:
        raise _bad_response() from None


class Transcript:
    """The text that a context was given, to find the words in that the service tells the times of.

    It tells them without the spaces between, which are taken from here.
    """

    def __init__(self) -> None:
        self._text = ""
        self._told = 0

    def add(self, text: str) -> None:
        """Append what was sent."""
        self._text += text

    def align(self, message: Mapping[str, Any]) -> Alignment | None:
        """Give the times of the words' characters, spread evenly; what is not understood counts as none."""
        told = message.get("word_timestamps")
        try:
            words = [(str(word), _ms(start), _ms(end)) for word, start, end in _columns(told)]
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        chars: list[str] = []
        starts_ms: list[float] = []
        ends_ms: list[float] = []
        for word, start_ms, end_ms in words:
            spelled = self._spelled(word)
            step_ms = (end_ms - start_ms) / len(spelled)
            chars += spelled
            starts_ms += [start_ms + step_ms * number for number in range(len(spelled))]
            ends_ms += [start_ms + step_ms * (number + 1) for number in range(len(spelled))]
        return Alignment(tuple(chars), tuple(starts_ms), tuple(ends_ms)) if chars else None

    def _spelled(self, word: str) -> str:
        """Give the text from where the last word ended to the end of this one, and the spaces after it."""
        begin = self._text.find(word, self._told)
        if begin < 0 or begin - self._told > _MAX_GAP_CHARS:
            return f"{word} "  # said otherwise than it is written
        end = begin + len(word)
        while self._text[end : end + 1].isspace():
            end += 1
        gap, self._told = self._text[self._told : begin], end
        # Words in the gap were said otherwise, and told so.
        return self._text[begin if any(map(str.isalnum, gap)) else begin - len(gap) : end] or " "


def _columns(told: Any) -> Any:  # noqa: ANN401  # whatever JSON holds
    return zip(told["words"], told["start"], told["end"], strict=True)


def _ms(time_s: Any) -> float:  # noqa: ANN401  # whatever JSON holds
    value = float(time_s) * 1000
    if not math.isfinite(value):
        raise ValueError(time_s)
    return value


# --- being refused --------------------------------------------------------------------------------------

_MODEL_WORDS: Final = ("model_not_found", "model_sunsetted", "sunset")
_VOICE_WORDS: Final = ("voice_not_found", "invalid voice")
_QUOTA_WORDS: Final = ("quota", "credit", "payment")


def error_of_refusal(refusal: RefusedError, voice: Voice | None) -> ProviderError:
    """Look closer at a refusal over HTTP, whose status is the same for many things."""
    return _closer(refusal, voice, refusal.mentions)


def error_of_message(message: Mapping[str, Any], voice: Voice) -> ProviderError:
    """Make the error of an error message: structured since 2026-03-01, words before that."""
    status = message.get("status_code")
    status = status if isinstance(status, int) else None
    fault = ProviderFault.SERVER_ERROR if status is None else fault_of_status(status)
    error = provider_error(Upstream.TTS, fault, status=status)
    texts = (message.get(key) for key in ("error_code", "title", "message", "error"))
    words = " ".join(text for text in texts if isinstance(text, str)).lower()
    return _closer(error, voice, words.__contains__)


def _closer(error: ProviderError, voice: Voice | None, mentions: Any) -> ProviderError:  # noqa: ANN401
    if voice is not None and any(map(mentions, _MODEL_WORDS)):
        model = voice.model_id[:60]
        message = RETIRED.get(model) or f"The voice service does not serve the model {model!r}."
        return _told_as(error, ProviderFault.REJECTED, message, "tts.model_id")
    if any(map(mentions, _VOICE_WORDS)):
        return _told_as(error, ProviderFault.REJECTED, error.message, "tts.voice_id")
    if any(map(mentions, _QUOTA_WORDS)):
        return _told_as(error, ProviderFault.QUOTA_EXCEEDED, error.message, None)
    return error


def _told_as(error: ProviderError, fault: ProviderFault, message: str, field: str | None) -> ProviderError:
    return ProviderError(
        Upstream.TTS,
        fault,
        message,
        field=field,
        status=error.status,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
    )


def _bad_response() -> ProviderError:
    return provider_error(Upstream.TTS, ProviderFault.BAD_RESPONSE)
