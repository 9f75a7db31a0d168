"""The bodies of OpenAI's audio endpoints, as far as their clients send and read them.

Source: the official client ``openai`` 3.54.0. Fields that are not here are taken and have no effect.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import attrs

from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, line
from voice_fsm.wire.converter import base64_text

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
TRANSCRIPT_FORMATS: Final[tuple[str, ...]] = get_args(TranscriptFormat)

BUILT_IN_VOICES: Final = frozenset(
    [
        "alloy",
        "ash",
        "ballad",
        "coral",
        "echo",
        "fable",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
        "marin",
        "cedar",
    ]
)


@attrs.frozen(kw_only=True)
class CreateSpeech:
    """A text to be spoken."""

    input: str
    model: str | None = line()
    voice: str | None = line()
    response_format: SpeechFormat = "mp3"
    speed: float | None = attrs.field(default=None, validator=between(0.25, 4))
    stream_format: Literal["audio", "sse"] = "audio"


def read_create_speech(body: bytes) -> CreateSpeech:
    """Read a request's body; a ``voice`` may also be an object with its ``id``.

    Raises:
        ClientError: ``malformed_message`` or ``invalid_field``.
    """
    document = codec.read_object(body)
    voice = document.get("voice")
    if isinstance(voice, Mapping):
        document = {**document, "voice": voice.get("id")}
    return codec.structure(document, CreateSpeech)


def sse(event: Mapping[str, Any]) -> bytes:
    """Write one event of a stream."""
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def audio_delta(audio: bytes) -> bytes:
    """The next audio of a text."""
    return sse({"type": "speech.audio.delta", "audio": base64_text(audio)})


def audio_done() -> bytes:
    """All audio has been sent. Nothing is charged, so no tokens are counted."""
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    return sse({"type": "speech.audio.done", "usage": usage})


# --- transcripts ------------------------------------------------------------------------------------


@attrs.frozen
class TimedText:
    """A word or a segment, with its times in seconds."""

    text: str
    start: float
    end: float


@attrs.frozen(kw_only=True)
class Transcript:
    """What a recording says."""

    text: str
    language: str
    duration_s: float
    words: Sequence[TimedText]
    segments: Sequence[TimedText]


def as_json(transcript: Transcript) -> dict[str, Any]:
    """The short form."""
    return {"text": transcript.text, "usage": _usage(transcript)}


def as_verbose_json(transcript: Transcript, granularities: Sequence[str]) -> dict[str, Any]:
    """The long form, with words, segments or both."""
    document: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.language,
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "word" in granularities:
        document["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in transcript.words
        ]
    if "segment" in granularities or not granularities:
        document["segments"] = [
            _segment(number, segment) for number, segment in enumerate(transcript.segments)
        ]
    return document


def as_subtitles(transcript: Transcript, kind: Literal["srt", "vtt"]) -> str:
    """A caption for each segment."""
    point = "," if kind == "srt" else "."
    captions = [
        f"{_clock(segment.start, point)} --> {_clock(segment.end, point)}\n{segment.text}\n"
        for segment in transcript.segments
    ]
    if kind == "srt":
        return "\n".join(f"{number}\n{caption}" for number, caption in enumerate(captions, 1))
    return "\n".join(["WEBVTT\n", *captions])


def as_events(transcript: Transcript) -> bytes:
    """The stream: a delta for each segment, then the whole."""
    deltas = [
        sse({"type": "transcript.text.delta", "delta": f"{' ' if number else ''}{segment.text}"})
        for number, segment in enumerate(transcript.segments)
    ]
    return b"".join([*deltas, sse({"type": "transcript.text.done", "text": transcript.text})])


def _segment(number: int, segment: TimedText) -> dict[str, Any]:
    """With the figures of whisper that clients insist on; there are none here."""
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": max(1, round(transcript.duration_s))}


def _clock(at_s: float, point: str) -> str:
    ms = round(at_s * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
