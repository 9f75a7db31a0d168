"""``POST /v1/audio/speech``: a text spoken, for OpenAI's clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from starlette.requests import Request
from starlette.responses import Response

from voice_fsm.audio import AudioFormat, wav_header
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.speech.service import SpeechRequest
from voice_fsm.web.speech.api import SpeechApi
from voice_fsm.web.speech.elevenlabs_tts import cache_headers
from voice_fsm.web.speech.refusals import RequestError, openai_refusal
from voice_fsm.web.speech.requests import read_body
from voice_fsm.web.speech.sound import Opened, Prefixed, StreamedAnswer
from voice_fsm.wire import openai_audio as wire

USE: Final = "tts"
_BODY_BYTES: Final = 1_048_576
_PCM: Final = AudioFormat("pcm", 24000)
_FORMATS: Final = {
    "mp3": (AudioFormat("mp3", 44100, 128), "audio/mpeg"),
    "opus": (AudioFormat("opus", 48000, 64), "audio/ogg"),
    "wav": (_PCM, "audio/wav"),
    "pcm": (_PCM, "audio/pcm"),
}


async def speech(api: SpeechApi, request: Request) -> Response:
    """Audio of a text as it is made, or events that carry it."""
    body = wire.read_create_speech(await read_body(request, _BODY_BYTES))
    if body.response_format not in _FORMATS:
        raise RequestError(
            400,
            "unsupported_format",
            f"This server does not write {body.response_format}; ask for {', '.join(_FORMATS)}.",
            field="response_format",
        )
    audio_format, content_type = _FORMATS[body.response_format]
    ordered = SpeechRequest(text=body.input, options=_options(api, body, audio_format))
    api.speech.check(ordered)

    @asynccontextmanager
    async def source() -> AsyncIterator[Opened]:
        async with api.speech.synthesize(ordered) as synthesis:
            header = wav_header(_PCM, None) if body.response_format == "wav" else b""
            pieces = Prefixed(header, synthesis.audio())
            yield cache_headers(synthesis), Events(pieces) if body.stream_format == "sse" else pieces

    shown_type = "text/event-stream" if body.stream_format == "sse" else content_type
    return StreamedAnswer(source(), shown_type, openai_refusal)


def _options(api: SpeechApi, body: wire.CreateSpeech, audio_format: AudioFormat) -> TtsOptions:
    """Names of OpenAI's models and voices mean its own default to another provider."""
    is_theirs = api.tts.name == "openai"
    built_in = body.voice in wire.BUILT_IN_VOICES
    return TtsOptions(
        output_format=audio_format,
        voice_id=body.voice if is_theirs or not built_in else None,
        model_id=body.model if is_theirs else None,
        voice_settings=VoiceSettings(speed=body.speed),
    )


class Events:
    """Pieces of audio as server-sent events, and a last one that says so."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        try:
            return wire.audio_delta(await anext(self._pieces))
        except StopAsyncIteration:
            self._is_over = True
            return wire.audio_done()
