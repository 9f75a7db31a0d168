"""What ElevenLabs' realtime speech-to-text is told, and what its answers mean. Time comes in as a number.

Rules that carry no other source are from ElevenLabs' API reference and published captures of the live
service, 2026-09 to 2026-11.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, Final

import pybase64
import structlog

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.events import Word
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, Transcript
from voice_fsm.upstream.faults import provider_error

log = structlog.get_logger()

_ECHO_S: Final = 0.3
"""How long after a commit its text may come again as a partial; 5 to 50 ms were seen."""
_ULAW_SILENCE: Final = b"\xff"

_ERRORS: Final = {
    "error": ProviderFault.SERVER_ERROR,
    "auth_error": ProviderFault.AUTH_FAILED,
    "quota_exceeded": ProviderFault.QUOTA_EXCEEDED,
    "unaccepted_terms": ProviderFault.REJECTED,
    "commit_throttled": ProviderFault.LOST,
    "rate_limited": ProviderFault.RATE_LIMITED,
    "queue_overflow": ProviderFault.OVERLOADED,
    "resource_exhausted": ProviderFault.OVERLOADED,
    "session_time_limit_exceeded": ProviderFault.LOST,
    "input_error": ProviderFault.REJECTED,
    "invalid_request": ProviderFault.REJECTED,
    "chunk_size_exceeded": ProviderFault.REJECTED,
    "insufficient_audio_activity": ProviderFault.LOST,
    "transcriber_error": ProviderFault.SERVER_ERROR,
}
"""Types of error messages. Each ends the session, whether or not the service closes it."""


def encode_chunk(
    audio: bytes, sample_rate_hz: int, *, commit: bool = False, previous_text: str | None = None
) -> bytes:
    """Write the only message that a client sends.

    It is put together by hand because JSON's encoder would look at each character of the audio.
    """
    return b'{"message_type":"input_audio_chunk","audio_base_64":"%b","commit":%b,"sample_rate":%d%b}' % (
        pybase64.b64encode(audio),
        b"true" if commit else b"false",
        sample_rate_hz,
        b',"previous_text":%b' % json.dumps(previous_text).encode() if previous_text else b"",
    )


def silence(audio_format: AudioFormat, size_bytes: int) -> bytes:
    """Make digital silence."""
    return (_ULAW_SILENCE if audio_format.codec == "ulaw" else b"\0") * size_bytes


def bare_language(code: str) -> str:
    """Strip the region of a language tag, which the service refuses: ``pt-BR`` is ``pt``."""
    return code.replace("_", "-").partition("-")[0].lower()


def decode_message(frame: str | bytes) -> Mapping[str, Any]:
    """Read one frame of the service.

    Raises:
        ProviderError: it is not a JSON object, or it is an error message.
    """
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _bad_response()
    fault = _ERRORS.get(message_type(message))
    if fault is not None:
        log.warning("stt_error_message", message_type=message_type(message))
        raise provider_error(Upstream.STT, fault)
    return message


def message_type(message: Mapping[str, Any]) -> str:
    """Name a message's type; blank if it has none."""
    name = message.get("message_type")
    return name if isinstance(name, str) else ""


class CommitLedger:
    """Counts what the service has not committed, and which commits are to be answered.

    A commit needs ``min_bytes`` of audio. No answer names its commit, so they are matched in order; the
    service also commits unasked (when it hears silence, or after half a minute or more).
    """

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = min_bytes
        self._fresh_bytes = 0
        self._has_uncommitted = False
        # One for each commit: when its answer is due, or None for a blank that follows the one before it.
        self._awaited: list[float | None] = []

    @property
    def padding_bytes(self) -> int:
        """How much silence a commit now needs before it."""
        return max(0, self._min_bytes - self._fresh_bytes)

    @property
    def has_uncommitted(self) -> bool:
        """Whether anything was sent after our last commit."""
        return self._has_uncommitted

    @property
    def answer_due_at_s(self) -> float:
        """When the next answer is overdue; infinity if none is awaited."""
        due_at_s = self._awaited[0] if self._awaited else None
        return math.inf if due_at_s is None else due_at_s

    def note_audio(self, size_bytes: int) -> None:
        """Audio or silence was sent."""
        self._fresh_bytes += size_bytes
        self._has_uncommitted = True

    def note_commit(self, answer_due_at_s: float) -> None:
        """A commit was sent."""
        self._fresh_bytes = 0
        self._has_uncommitted = False
        self._awaited.append(answer_due_at_s)

    def note_blank_commit(self) -> int:
        """A commit of nothing was asked for, and not sent; returns how many blanks to give for it now."""
        if not self._awaited:
            return 1
        self._awaited.append(None)
        return 0

    def note_answer(self) -> int:
        """The service committed; returns how many blanks to give after it.

        Of audio sent before an unasked commit it is not known how much was still on its way: all of it
        counts as committed for the padding, and as uncommitted for the question whether to commit.
        """
        if not self._awaited:
            self._fresh_bytes = 0
            return 0
        self._awaited.pop(0)
        blanks = 0
        while self._awaited and self._awaited[0] is None:
            self._awaited.pop(0)
            blanks += 1
        return blanks


class Timeline:
    """Seconds of the connection's audio as seconds of the caller's, which lacks the silence we put in."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._sent_bytes = 0
        self._silence_ends_s: list[float] = []
        self._silence_before_s = [0.0]

    def note_audio(self, size_bytes: int) -> None:
        """The caller's audio was sent."""
        self._sent_bytes += size_bytes

    def note_silence(self, size_bytes: int) -> None:
        """Silence of ours was sent."""
        self._sent_bytes += size_bytes
        self._silence_ends_s.append(self._sent_bytes / self._bytes_per_second)
        self._silence_before_s.append(self._silence_before_s[-1] + size_bytes / self._bytes_per_second)

    def caller_s(self, connection_s: float) -> float:
        """Convert a time, to the millisecond."""
        silences = bisect_right(self._silence_ends_s, connection_s)
        return round(connection_s - self._silence_before_s[silences], 3)


class Interpreter:
    """Turns messages into transcripts.

    With ``timed``, each commit is reported twice, and the second report, with its words, is the one that
    counts; only a blank commit is taken from the first, since a second is not certain to come.
    """

    def __init__(self, timeline: Timeline, *, timed: bool) -> None:
        self._timeline = timeline
        self._timed = timed
        self._echo: str | None = None
        self._echo_until_s = -math.inf

    def interpret(self, message: Mapping[str, Any], now_s: float) -> Transcript | None:
        """Find the transcript in a message, if there is one to report.

        Raises:
            ProviderError: BAD_RESPONSE: a transcript without text.
        """
        match message_type(message):
            case "partial_transcript":
                return self._partial(_text(message), now_s)
            case "committed_transcript":
                return self._committed(_text(message), now_s)
            case "committed_transcript_with_timestamps" if self._timed:
                text = _text(message)
                return CommittedTranscript(text, self._words(message)) if text.strip() else None
            case other:
                log.debug("stt_message_ignored", message_type=other[:40])
                return None

    def _partial(self, text: str, now_s: float) -> PartialTranscript | None:
        if text == self._echo and now_s <= self._echo_until_s:
            self._echo = None
            return None
        return PartialTranscript(text) if text.strip() else None

    def _committed(self, text: str, now_s: float) -> CommittedTranscript | None:
        self._echo, self._echo_until_s = text, now_s + _ECHO_S
        return None if self._timed and text.strip() else CommittedTranscript(text)

    def _words(self, message: Mapping[str, Any]) -> tuple[Word, ...]:
        listed = message.get("words")
        words = [self._word(item) for item in listed] if isinstance(listed, list) else []
        return tuple(word for word in words if word is not None)

    def _word(self, item: object) -> Word | None:
        match item:
            case {"type": "word", "text": str(text), "start": int() | float() as start, "end": end} if (
                isinstance(end, (int, float)) and math.isfinite(start) and math.isfinite(end)
            ):
                return Word(text, self._timeline.caller_s(start), self._timeline.caller_s(end))
            case _:
                return None


def _text(message: Mapping[str, Any]) -> str:
    text = message.get("text")
    if not isinstance(text, str):
        raise _bad_response()
    return text


def _bad_response() -> ProviderError:
    return provider_error(Upstream.STT, ProviderFault.BAD_RESPONSE)
