"""Which voices an account of Cartesia may speak with: ``GET /voices``, page by page."""

from typing import Any, Final
from urllib.parse import urlencode

import httpx

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.base import VoiceInfo
from voice_fsm.tts.cartesia_wire import Access, error_of_refusal
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.http import Deadlines, ask

_PAGE_SIZE: Final = 100
_MAX_PAGES: Final = 10
_MAX_PAGE_BYTES: Final = 8 * 1024 * 1024


async def list_voices(
    client: httpx.AsyncClient, access: Access, deadlines: Deadlines
) -> tuple[VoiceInfo, ...]:
    """List the first thousand voices.

    Raises:
        ProviderError: the service refused, or did not answer as it should.
    """
    found: list[VoiceInfo] = []
    query: dict[str, Any] = {"limit": _PAGE_SIZE}
    for _ in range(_MAX_PAGES):
        voices, has_more = await _page(client, access, query, deadlines)
        found += voices
        if not (has_more and voices):
            break
        query["starting_after"] = voices[-1].id
    return tuple(found)


async def _page(
    client: httpx.AsyncClient, access: Access, query: dict[str, Any], deadlines: Deadlines
) -> tuple[list[VoiceInfo], bool]:
    url = f"{access.base_url}/voices?{urlencode(query)}"
    request = client.build_request("GET", url, headers=access.headers())
    try:
        async with ask(client, request, upstream=Upstream.TTS, deadlines=deadlines) as answer:
            page = await answer.read_json(_MAX_PAGE_BYTES)
            # The versions of 2024 give all voices as one bare list.
            voices = page.get("data") if isinstance(page, dict) else page
            if not isinstance(voices, list):
                raise answer.error(ProviderFault.BAD_RESPONSE)
            has_more = isinstance(page, dict) and bool(page.get("has_more"))
            return [_voice(voice) for voice in voices if _is_voice(voice)], has_more
    except RefusedError as refusal:
        raise error_of_refusal(refusal, None) from None


def _is_voice(voice: object) -> bool:
    return isinstance(voice, dict) and isinstance(voice.get("id"), str)


def _voice(voice: dict[str, Any]) -> VoiceInfo:
    language = voice.get("language")
    return VoiceInfo(
        voice["id"], str(voice.get("name") or voice["id"]), language if isinstance(language, str) else None
    )
