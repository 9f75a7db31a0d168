"""OpenAI's text to speech on the wire: ``POST {base}/audio/speech``, and what servers like it make of it.

From the API reference (developers.openai.com/api/reference, seen 2026-11-21) and, where compatible servers
differ, from what they are known to send: a WAV file in place of bare PCM, in a rate of their own.
"""

import re
import struct
from typing import Any, Final

import attrs

from voice_fsm.audio.samples import Resampler
from voice_fsm.config.retired import RETIRED
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import PCM_24K
from voice_fsm.upstream.faults import RefusedError, provider_error

SPEECH_FORMAT: Final = PCM_24K
"""What ``pcm`` is."""
MAX_TEXT_CHARS: Final = 4096
SPEEDS: Final = (0.25, 4.0)
VOICES: Final = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)

_RATES_HZ: Final = range(4000, 192_001)
_MAX_HEAD_BYTES: Final = 4096
_PCM, _EXTENSIBLE = 1, 0xFFFE
_OTHER_MAGIC: Final = (b"ID3", b"OggS", b"fLaC", b"<!DO", b"<htm", b'{"er')
_MAGIC_BYTES: Final = 4


@attrs.frozen(kw_only=True)
class Voice:
    """Who speaks: all that a request says beside its text."""

    voice_id: str
    model_id: str
    speed: float | None


def speech_body(voice: Voice, text: str) -> dict[str, Any]:
    """Ask for the speech of one text, in `SPEECH_FORMAT`."""
    body = {"model": voice.model_id, "input": text, "voice": voice.voice_id, "response_format": "pcm"}
    return body if voice.speed is None else {**body, "speed": voice.speed}


def rate_told(header: str) -> int:
    """Read ``x-sample-rate``, which some servers send; it is `SPEECH_FORMAT`'s if there is none."""
    told_hz = int(header) if re.fullmatch(r"[0-9]{4,6}", header) else 0
    return told_hz if told_hz in _RATES_HZ else SPEECH_FORMAT.sample_rate_hz


class PcmReader:
    """The body of an answer as whole samples in `SPEECH_FORMAT`, be it bare PCM or a WAV file."""

    def __init__(self, sample_rate_hz: int) -> None:
        """Take bare PCM to be of this rate; a WAV file says its own."""
        self._rate_hz = sample_rate_hz
        self._resampler: Resampler | None = None
        self._unread = b""

    def feed(self, data: bytes) -> bytes:
        """Read the next bytes of the body. May be empty.

        Raises:
            ProviderError: BAD_RESPONSE: it is some other kind of file.
        """
        self._unread += data
        if self._resampler is None and not self._has_begun():
            return b""
        assert self._resampler is not None  # noqa: S101  # `_has_begun` made it
        whole = len(self._unread) & ~1
        samples, self._unread = self._unread[:whole], self._unread[whole:]
        return self._resampler.feed(samples)

    def end(self) -> bytes:
        """Give what the resampler held back."""
        return self._resampler.feed(b"", last=True) if self._resampler is not None else b""

    def _has_begun(self) -> bool:
        if len(self._unread) < _MAGIC_BYTES:
            return False
        if self._unread.startswith(_OTHER_MAGIC):
            raise _bad_response()
        if self._unread.startswith(b"RIFF") and not self._skip_head():
            return False
        self._resampler = Resampler(self._rate_hz, SPEECH_FORMAT.sample_rate_hz)
        return True

    def _skip_head(self) -> bool:
        """Go to the samples; their number is not known to a server that streams, so it is not read."""
        position = 12
        while len(self._unread) >= position + 8:
            name, size = struct.unpack_from("<4sI", self._unread, position)
            position += 8
            if name == b"data":
                self._unread = self._unread[position:]
                return True
            if name == b"fmt " and len(self._unread) >= position + 16:
                self._rate_hz = _rate_in(self._unread[position : position + 16])
            position += size + size % 2
        if len(self._unread) > _MAX_HEAD_BYTES:
            raise _bad_response()
        return False


def _rate_in(head: bytes) -> int:
    kind, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", head)
    if kind not in (_PCM, _EXTENSIBLE) or (channels, bits) != (1, 16) or rate_hz not in _RATES_HZ:
        raise _bad_response()
    return int(rate_hz)


def error_of_refusal(refusal: RefusedError, voice: Voice) -> ProviderError:
    """Say what is wrong with the model, or else what the status means."""
    if "model_not_found" in refusal.codes or refusal.status in (404, 410):
        return _about_the_model(refusal, voice)
    return refusal


def _about_the_model(refusal: RefusedError, voice: Voice) -> ProviderError:
    model = voice.model_id[:60]
    error = refusal.told_as(RETIRED.get(model) or f"The voice service knows no model {model!r}.")
    error.field = "tts.model_id"
    return error


def _bad_response() -> ProviderError:
    return provider_error(Upstream.TTS, ProviderFault.BAD_RESPONSE)
