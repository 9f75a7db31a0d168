"""Which endpoint of speech is at which path."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from voice_fsm.web.speech import (
    elevenlabs_stt,
    elevenlabs_tts,
    multi_stream_input,
    openai_stt,
    openai_tts,
    scribe,
    stream_input,
    voices,
)
from voice_fsm.web.speech.api import Endpoint, guarded
from voice_fsm.web.speech.refusals import elevenlabs_refusal, openai_refusal

_TTS = "/v1/text-to-speech/{voice_id}"


def speech_routes() -> list[BaseRoute]:
    """The routes; they find their services in the app's state, as ``speech_api`` and ``scribe``."""
    return [
        Route(_TTS, _elevenlabs(elevenlabs_tts.convert, elevenlabs_tts.USE), methods=["GET", "POST"]),
        _post(f"{_TTS}/stream", elevenlabs_tts.stream, elevenlabs_tts.USE),
        _post(f"{_TTS}/with-timestamps", elevenlabs_tts.convert_with_timestamps, elevenlabs_tts.USE),
        _post(f"{_TTS}/stream/with-timestamps", elevenlabs_tts.stream_with_timestamps, elevenlabs_tts.USE),
        Route("/v1/voices", _elevenlabs(voices.list_all, voices.USE)),
        Route("/v2/voices", _elevenlabs(voices.search, voices.USE)),
        Route("/v1/voices/{voice_id}", _elevenlabs(voices.one, voices.USE)),
        _post("/v1/speech-to-text", elevenlabs_stt.transcribe, elevenlabs_stt.USE),
        WebSocketRoute("/v1/speech-to-text/realtime", _scribe),
        WebSocketRoute(f"{_TTS}/stream-input", _stream_input),
        WebSocketRoute(f"{_TTS}/multi-stream-input", _multi_stream_input),
        Route("/v1/audio/speech", _openai(openai_tts.speech, openai_tts.USE), methods=["POST"]),
        Route("/v1/audio/transcriptions", _openai(openai_stt.transcribe, openai_stt.USE), methods=["POST"]),
    ]


def _post(path: str, endpoint: Endpoint, use: str) -> Route:
    return Route(path, _elevenlabs(endpoint, use), methods=["POST"])


def _elevenlabs(endpoint: Endpoint, use: str) -> Callable[[Request], Awaitable[Response]]:
    return guarded(endpoint, use, elevenlabs_refusal)


def _openai(endpoint: Endpoint, use: str) -> Callable[[Request], Awaitable[Response]]:
    return guarded(endpoint, use, openai_refusal)


async def _scribe(websocket: WebSocket) -> None:
    endpoint: scribe.ScribeEndpoint = websocket.app.state.scribe
    await endpoint(websocket)


async def _stream_input(websocket: WebSocket) -> None:
    endpoint: stream_input.StreamInputEndpoint = websocket.app.state.stream_input
    await endpoint(websocket)


async def _multi_stream_input(websocket: WebSocket) -> None:
    endpoint: multi_stream_input.MultiStreamInputEndpoint = websocket.app.state.multi_stream_input
    await endpoint(websocket)
