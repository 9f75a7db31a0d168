"""ElevenLabs' REST API of agents and speech engines, as far as a server in front of them needs it.

Source: ElevenLabs' API reference, 2026-11.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx

from voice_fsm.errors import VoiceError

_PAGE_SIZE: Final = 100
_TIMEOUT_S: Final = 10.0


class AgentsApiError(VoiceError):
    """ElevenLabs did not do what was asked; ``status`` is its answer's, if there was one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__("elevenlabs_api_error", message)
        self.status = status


class AgentsApi:
    """Calls with one key. Every method raises `AgentsApiError`."""

    def __init__(self, client: httpx.AsyncClient, *, base_url: str, api_key: str) -> None:
        self._client = client
        self._base_url = base_url
        self._api_key = api_key

    async def conversation_token(self, agent_id: str) -> str:
        """Get a token with which a browser may start one conversation with an agent or engine."""
        answer = await self._call("GET", "/v1/convai/conversation/token", params={"agent_id": agent_id})
        token = answer.get("token")
        if not isinstance(token, str) or not token:
            raise AgentsApiError("ElevenLabs answered without a token.")
        return token

    async def create_engine(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Make a speech engine; ``settings`` is the body that the API documents."""
        return await self._call("POST", "/v1/speech-engine", json=settings)

    async def engines(self) -> list[dict[str, Any]]:
        """All speech engines of the account."""
        engines: list[dict[str, Any]] = []
        params: dict[str, Any] = {"page_size": _PAGE_SIZE}
        while True:
            page = await self._call("GET", "/v1/speech-engine", params=params)
            engines += page.get("speech_engines", [])
            cursor = page.get("next_cursor")
            if not page.get("has_more") or not cursor or cursor == params.get("cursor"):
                return engines
            params["cursor"] = cursor

    async def update_engine(self, engine_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Change what ``settings`` names, and nothing else."""
        return await self._call("PATCH", _path_of(engine_id), json=settings)

    async def delete_engine(self, engine_id: str) -> None:
        await self._call("DELETE", _path_of(engine_id))

    async def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:  # noqa: ANN401  # httpx's own
        try:
            response = await self._client.request(
                method,
                self._base_url + path,
                headers={"xi-api-key": self._api_key},
                timeout=_TIMEOUT_S,
                **content,
            )
            answer = response.json() if response.is_success and response.content else {}
        except httpx.HTTPError as error:
            raise AgentsApiError(f"ElevenLabs cannot be reached ({type(error).__name__}).") from None
        except ValueError:
            raise AgentsApiError("ElevenLabs' answer is not JSON.") from None
        if not response.is_success:
            raise AgentsApiError(_why(response), status=response.status_code)
        return answer if isinstance(answer, dict) else {}


def _path_of(engine_id: str) -> str:
    return f"/v1/speech-engine/{quote(engine_id, safe='')}"


def _why(response: httpx.Response) -> str:
    """Say what ElevenLabs said, without what it may repeat of the request."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if isinstance(detail, dict) and isinstance(detail.get("message"), str):
        reason = detail["message"]
    elif isinstance(detail, list) and detail and isinstance(detail[0], dict):  # of what is wrong with a body
        where = ".".join(map(str, detail[0].get("loc", ())))
        reason = f"{where}: {detail[0].get('msg', 'is wrong')}"
    else:
        reason = HTTPStatus(response.status_code).phrase
    return f"ElevenLabs refused (HTTP {response.status_code}): {reason}"
