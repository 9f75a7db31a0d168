"""A fake of ElevenLabs' REST API of speech engines and conversation tokens, on a real socket.

    async with serve_http(FakeAgentsApi().answer) as server: ...

`tests/fakes/test_elevenlabs_agents.py` runs the official SDK against it.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from tests.fakes.http_server import Request, Step, json_response, response

_ENGINES = "/v1/speech-engine"
PAGE_SIZE = 2


@attrs.define
class FakeAgentsApi:
    """Keeps engines in memory; pages have two of them, whatever was asked for."""

    key: str = "sk_test_key"
    engines: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    made: int = 0

    def answer(self, request: Request) -> Iterable[Step]:
        url = urlsplit(request.path)
        if request.headers.get("xi-api-key") != self.key:
            return [refusal(401, "invalid_api_key", "Invalid API key")]
        if url.path == "/v1/convai/conversation/token":
            (agent_id,) = parse_qs(url.query)["agent_id"]
            return [json_response({"token": f"jwt-for-{agent_id}", "conversation_id": "conv_1"})]
        if url.path == _ENGINES:
            return [self._create(request.json()) if request.method == "POST" else self._list(url.query)]
        engine_id = unquote(url.path.removeprefix(f"{_ENGINES}/"))
        if engine_id not in self.engines:
            return [refusal(404, "speech_engine_not_found", f"There is no {engine_id}")]
        if request.method == "DELETE":
            del self.engines[engine_id]
            return [response(200)]
        if request.method == "PATCH":
            self.engines[engine_id] |= request.json()
        return [json_response(self.engines[engine_id])]

    def _create(self, body: dict[str, Any]) -> bytes:
        if "ws_url" not in body.get("speech_engine", {}):
            where = ["body", "speech_engine", "ws_url"]
            return json_response({"detail": [{"loc": where, "msg": "Field required"}]}, 422)
        self.made += 1
        engine_id = f"seng_{self.made}"
        self.engines[engine_id] = {"name": "Speech Engine", **body, "speech_engine_id": engine_id}
        return json_response(self.engines[engine_id])

    def _list(self, query: str) -> bytes:
        start = int(parse_qs(query).get("cursor", ["0"])[0])
        page = list(self.engines.values())[start : start + PAGE_SIZE]
        has_more = start + PAGE_SIZE < len(self.engines)
        listed = [{"speech_engine_id": engine["speech_engine_id"], "name": engine["name"]} for engine in page]
        cursor = str(start + PAGE_SIZE) if has_more else None
        return json_response({"speech_engines": listed, "next_cursor": cursor, "has_more": has_more})


def refusal(status: int, code: str, message: str) -> bytes:
    return json_response({"detail": {"status": code, "message": message}}, status)
