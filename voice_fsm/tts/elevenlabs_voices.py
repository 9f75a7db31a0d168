"""Which voices an account of ElevenLabs may speak with: ``GET /v2/voices``, page by page."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.base import VoiceInfo
from voice_fsm.tts.elevenlabs_wire import credentials, error_of_refusal
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.http import Deadlines, ask

_PAGE_SIZE: Final = 100
_MAX_PAGES: Final = 10
_MAX_PAGE_BYTES: Final = 8 * 1024 * 1024


async def list_voices(
    client: httpx.AsyncClient, base_url: str, api_key: str, deadlines: Deadlines
) -> tuple[VoiceInfo, ...]:
    """List the first thousand voices.

    Raises:
        ProviderError: the service refused, or did not answer as it should.
    """
    found: list[VoiceInfo] = []
    query: dict[str, Any] = {"page_size": _PAGE_SIZE}
    for _ in range(_MAX_PAGES):
        page = await _page(client, f"{base_url}/v2/voices?{urlencode(query)}", api_key, deadlines)
        found.extend(_voices_in(page))
        token = page.get("next_page_token")
        if not (page.get("has_more") and isinstance(token, str) and token):
            break
        query["next_page_token"] = token
    return tuple(found)


async def _page(client: httpx.AsyncClient, url: str, api_key: str, deadlines: Deadlines) -> dict[str, Any]:
    request = client.build_request("GET", url, headers=credentials(api_key))
    try:
        async with ask(client, request, upstream=Upstream.TTS, deadlines=deadlines) as answer:
            page = await answer.read_json(_MAX_PAGE_BYTES)
            if not (isinstance(page, dict) and isinstance(page.get("voices"), list)):
                raise answer.error(ProviderFault.BAD_RESPONSE)
            return page
    except RefusedError as refusal:
        raise error_of_refusal(refusal) from None


def _voices_in(page: dict[str, Any]) -> Iterator[VoiceInfo]:
    for voice in page["voices"]:
        if isinstance(voice, dict) and isinstance(voice_id := voice.get("voice_id"), str):
            yield VoiceInfo(voice_id, str(voice.get("name") or voice_id), _language(voice))


def _language(voice: dict[str, Any]) -> str | None:
    """Read what the voice was labelled with; most speak several languages all the same."""
    labels = voice.get("labels")
    language = labels.get("language") if isinstance(labels, dict) else None
    return language if isinstance(language, str) and language else None
