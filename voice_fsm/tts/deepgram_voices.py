"""Which voices there are at Deepgram: ``GET /v1/models``."""

from typing import Any, Final

import httpx

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.base import VoiceInfo
from voice_fsm.tts.deepgram_wire import credentials
from voice_fsm.upstream.http import Deadlines, ask

_MAX_LIST_BYTES: Final = 8 * 1024 * 1024
_FAMILY: Final = "aura"
"""What ``/v1/speak`` serves; others have an endpoint of their own."""


async def list_voices(
    client: httpx.AsyncClient, base_url: str, api_key: str, deadlines: Deadlines
) -> tuple[VoiceInfo, ...]:
    """List the voices, each of which is a model.

    Raises:
        ProviderError: the service refused, or did not answer as it should.
    """
    request = client.build_request("GET", f"{base_url}/v1/models", headers=credentials(api_key))
    async with ask(client, request, upstream=Upstream.TTS, deadlines=deadlines) as answer:
        listing = await answer.read_json(_MAX_LIST_BYTES)
        models = listing.get("tts") if isinstance(listing, dict) else None
        if not isinstance(models, list):
            raise answer.error(ProviderFault.BAD_RESPONSE)
    # A voice stands there once for each of its versions.
    voices = {model["canonical_name"]: _voice(model) for model in models if _is_voice(model)}
    return tuple(voices.values())


def _is_voice(model: object) -> bool:
    name = model.get("canonical_name") if isinstance(model, dict) else None
    return isinstance(name, str) and name.startswith(_FAMILY)


def _voice(model: dict[str, Any]) -> VoiceInfo:
    voice_id, languages = model["canonical_name"], model.get("languages")
    language = languages[0] if isinstance(languages, list) and languages else None
    return VoiceInfo(
        voice_id,
        str(model.get("name") or voice_id).title(),
        language if isinstance(language, str) else None,
    )
