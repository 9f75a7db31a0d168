"""``/v1/text-to-speech/{voice_id}`` and what lies below it, for ElevenLabs' clients.

Besides, a GET with the text in its query, as the source of an ``<audio>`` element.
"""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from voice_fsm.audio import PCM_RATES_HZ, AudioFormat, wav_header
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.speech.service import SpeechRequest, Synthesis
from voice_fsm.speech.timing import TimedSpeech, with_timing
from voice_fsm.tts.base import Alignment
from voice_fsm.web.speech.api import SpeechApi
from voice_fsm.web.speech.refusals import elevenlabs_refusal
from voice_fsm.web.speech.requests import read_body, while_connected
from voice_fsm.web.speech.sound import Opened, Prefixed, StreamedAnswer, whole_audio
from voice_fsm.wire import elevenlabs_speech as wire
from voice_fsm.wire.elevenlabs_speech import (
    DEFAULT_OUTPUT_FORMAT,
    AudioWithTimestamps,
    CharacterAlignment,
    TextToSpeech,
    read_text_to_speech,
)

USE: Final = "tts"
"""What tokens for a GET are bought for."""

_WAV_TYPE: Final = "audio/wav"
_BODY_BYTES: Final = 1_048_576


@attrs.frozen
class Ordered:
    """A request as it was understood."""

    speech: SpeechRequest
    is_wav: bool
    """The PCM goes into a WAV file."""

    @property
    def audio_format(self) -> AudioFormat:
        return self.speech.options.output_format

    @property
    def content_type(self) -> str:
        return _WAV_TYPE if self.is_wav else content_type(self.audio_format)


def content_type(audio_format: AudioFormat) -> str:
    """What HTTP calls a format; ``audio/…``, for clients take anything else for an error."""
    if audio_format.codec == "pcm":
        return f"audio/pcm;rate={audio_format.sample_rate_hz}"
    return audio_format.content_type


async def convert(api: SpeechApi, request: Request) -> Response:
    """All audio of a text, with its length."""
    ordered = await _order(api, request)

    async def collect() -> tuple[bytes, dict[str, str]]:
        async with api.speech.synthesize(ordered.speech) as synthesis:
            audio = b"".join([data async for data in synthesis.audio()])
            return audio, cache_headers(synthesis)

    audio, headers = await while_connected(request, collect)
    if ordered.is_wav:
        audio = wav_header(ordered.audio_format, len(audio)) + audio
    return whole_audio(audio, ordered.content_type, request.headers.get("range"), headers)


async def stream(api: SpeechApi, request: Request) -> Response:
    """Audio of a text as it is made."""
    ordered = await _order(api, request)

    @asynccontextmanager
    async def source() -> AsyncIterator[Opened]:
        async with api.speech.synthesize(ordered.speech) as synthesis:
            header = wav_header(ordered.audio_format, None) if ordered.is_wav else b""
            yield cache_headers(synthesis), Prefixed(header, synthesis.audio())

    return StreamedAnswer(source(), ordered.content_type, elevenlabs_refusal)


async def convert_with_timestamps(api: SpeechApi, request: Request) -> Response:
    """All audio of a text, and when each character sounds, as one JSON object."""
    ordered = await _order(api, request)

    async def collect() -> tuple[list[TimedSpeech], dict[str, str]]:
        async with (
            api.speech.synthesize(ordered.speech) as synthesis,
            with_timing(synthesis, ordered.audio_format) as timed,
        ):
            return [item async for item in timed], cache_headers(synthesis)

    items, headers = await while_connected(request, collect)
    audio = b"".join(item.audio for item in items)
    if ordered.is_wav:
        audio = wav_header(ordered.audio_format, len(audio)) + audio
    alignments = [item.alignment for item in items if item.alignment]
    answer = AudioWithTimestamps(audio_base64=audio, alignment=_in_seconds(*alignments))
    return JSONResponse(answer.as_json(), headers=headers | _timing_headers(items[0]))


async def stream_with_timestamps(api: SpeechApi, request: Request) -> Response:
    """The same as lines of JSON, as it is made."""
    ordered = await _order(api, request)

    @asynccontextmanager
    async def source() -> AsyncIterator[Opened]:
        async with (
            api.speech.synthesize(ordered.speech) as synthesis,
            with_timing(synthesis, ordered.audio_format) as timed,
        ):
            first = await anext(timed)
            yield cache_headers(synthesis) | _timing_headers(first), TimestampLines(first, timed)

    return StreamedAnswer(source(), "application/json", elevenlabs_refusal)


async def _order(api: SpeechApi, request: Request) -> Ordered:
    if request.method == "POST":
        body = read_text_to_speech(await read_body(request, _BODY_BYTES))
    else:
        body = TextToSpeech(text=request.query_params.get("text", ""))
    chosen = request.query_params.get("output_format") or DEFAULT_OUTPUT_FORMAT
    is_wav = chosen.startswith("wav_")
    options = TtsOptions(
        output_format=read_format(f"pcm_{chosen.removeprefix('wav_')}" if is_wav else chosen),
        voice_id=request.path_params["voice_id"],
        model_id=body.model_id if api.tts.name == "elevenlabs" else None,  # others do not know these names
        voice_settings=voice_settings(body.voice_settings),
    )
    ordered = Ordered(SpeechRequest(text=body.text, options=options), is_wav)
    api.speech.check(ordered.speech)
    return ordered


def voice_settings(chosen: wire.VoiceSettings | None) -> VoiceSettings:
    """The settings of a request, as a synthesiser takes them."""
    return VoiceSettings(**attrs.asdict(chosen)) if chosen else VoiceSettings()


def read_format(name: str) -> AudioFormat:
    """A format that a request names.

    Raises:
        ClientError: ``invalid_field``.
    """
    try:
        return AudioFormat.parse(name)
    except ValueError:
        rates = "|".join(map(str, PCM_RATES_HZ))
        raise ClientError(
            ClientFault.INVALID_FIELD,
            f"`output_format` must be a format such as mp3_44100_128, pcm_<{rates}>, wav_… or ulaw_8000.",
            field="query.output_format",
        ) from None


def cache_headers(synthesis: Synthesis) -> dict[str, str]:
    """Tell whether it was there already, or being made for somebody else."""
    origin = "hit" if synthesis.cached else "shared" if synthesis.shared else "miss"
    return {"X-Cache": origin, "request-id": secrets.token_urlsafe(15)}


def _timing_headers(first: TimedSpeech) -> dict[str, str]:
    return {"X-Timestamps": "estimated" if first.estimated else "provider"}


class TimestampLines:
    """Timed speech as lines of JSON, the ``first`` of it already at hand."""

    def __init__(self, first: TimedSpeech, rest: AsyncIterator[TimedSpeech]) -> None:
        self._first: TimedSpeech | None = first
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            item, self._first = self._first, None
        else:
            item = await anext(self._rest)
        alignment = _in_seconds(item.alignment) if item.alignment else None
        line = AudioWithTimestamps(audio_base64=item.audio, alignment=alignment)
        return json.dumps(line.as_json(), separators=(",", ":")).encode() + b"\n"


def _in_seconds(*alignments: Alignment) -> CharacterAlignment | None:
    if not alignments:
        return None
    return CharacterAlignment(
        characters=tuple(char for part in alignments for char in part.chars),
        character_start_times_seconds=tuple(at / 1000 for part in alignments for at in part.starts_ms),
        character_end_times_seconds=tuple(at / 1000 for part in alignments for at in part.ends_ms),
    )
