"""``GET /v1/voices``, ``/v2/voices`` and ``/v1/voices/{voice_id}``: the voices of the provider in use."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from voice_fsm.tts.base import VoiceInfo
from voice_fsm.web.speech.api import SpeechApi
from voice_fsm.web.speech.refusals import RequestError
from voice_fsm.wire.elevenlabs_speech import Voice

USE: Final = "tts"
_MOST_ON_A_PAGE: Final = 100


async def list_all(api: SpeechApi, _: Request) -> Response:
    """All of them."""
    return JSONResponse({"voices": [_shown(voice) for voice in await api.tts.voices()]})


async def search(api: SpeechApi, request: Request) -> Response:
    """Those whose name, id or language holds the ``search``, page by page."""
    wanted = request.query_params.get("search", "").casefold()
    found = [voice for voice in await api.tts.voices() if wanted in _searched(voice)]
    start = _number(request, "next_page_token", 0)
    end = start + min(max(1, _number(request, "page_size", 10)), _MOST_ON_A_PAGE)
    return JSONResponse(
        {
            "voices": [_shown(voice) for voice in found[start:end]],
            "has_more": end < len(found),
            "total_count": len(found),
            "next_page_token": str(end) if end < len(found) else None,
        }
    )


async def one(api: SpeechApi, request: Request) -> Response:
    """The voice of an id."""
    voice_id = request.path_params["voice_id"]
    for voice in await api.tts.voices():
        if voice.id == voice_id:
            return JSONResponse(_shown(voice))
    raise RequestError(404, "voice_not_found", "This server has no such voice.")


def _shown(voice: VoiceInfo) -> dict[str, object]:
    labels = {"language": voice.language} if voice.language else {}
    return Voice(voice_id=voice.id, name=voice.name, labels=labels).as_json()


def _searched(voice: VoiceInfo) -> str:
    return f"{voice.id} {voice.name} {voice.language or ''}".casefold()


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text[:9]) if text.isdecimal() and text.isascii() else default
