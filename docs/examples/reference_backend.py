"""A chat backend for voice_fsm in one file; docs/backend.md explains it. To run it:

cd docs/examples
BACKEND_API_KEY=secret hypercorn --worker-class trio --bind 127.0.0.1:9000 reference_backend:app
"""
# ruff: noqa: INP001  # a file to copy, not a package

import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

API_KEY = os.environ.get("BACKEND_API_KEY", "")


async def register(request: Request) -> Response:
    """Remember how to answer, under an id that the same inputs get again."""
    if not is_allowed(request):
        return JSONResponse({"error": "wrong key"}, 401)
    inputs = await request.json()
    registration_id = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    request.app.state.registrations[registration_id] = inputs
    return JSONResponse({"registration_id": registration_id})


async def chat(request: Request) -> Response:
    """Answer one turn, as a stream."""
    if not is_allowed(request):
        return JSONResponse({"error": "wrong key"}, 401)
    turn = await request.json()
    inputs = request.app.state.registrations.get(turn["registration_id"])
    if inputs is None:
        return JSONResponse({"error": "unknown registration_id"}, 404)
    return StreamingResponse(events(messages_of(inputs, turn)), media_type="text/event-stream")


def messages_of(inputs: dict[str, Any], turn: dict[str, Any]) -> list[dict[str, str]]:
    """Write the conversation as it was heard: what nobody heard of a reply was not said."""
    messages = [{"role": "system", "content": inputs.get("system_prompt", "Be brief.")}]
    for exchange in turn["metadata"]["history"]:
        heard = exchange["assistant"] + (" (interrupted)" if exchange["interrupted"] else "")
        messages.append({"role": "user", "content": exchange["user"]})
        messages.append({"role": "assistant", "content": heard})
    return [*messages, {"role": "user", "content": turn["message"]}]


async def events(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    async for piece in think(messages):
        yield f"data: {json.dumps({'delta': piece})}\n\n"
    yield f"event: metadata\ndata: {json.dumps({'messages': len(messages)})}\n\n"
    yield "data: [DONE]\n\n"


async def think(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """Here goes your model. This one repeats the user, and what was heard of its reply before."""
    heard = next(
        (message["content"] for message in messages[::-1] if message["role"] == "assistant"), "nothing"
    )
    for word in f"You said: {messages[-1]['content']}. You heard before: {heard}.".split():
        await anyio.sleep(0.01)
        yield f"{word} "


def is_allowed(request: Request) -> bool:
    given, expected = request.headers.get("authorization", ""), f"Bearer {API_KEY}"
    return hmac.compare_digest(given.encode(), expected.encode())


routes = [Route("/v1/register", register, methods=["POST"]), Route("/v1/chat", chat, methods=["POST"])]
app = Starlette(routes=routes)
app.state.registrations = {}
