"""A customer's chat backend on a loopback socket: gives registrations, and plays replies."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from tests.fakes.http_server import HttpServer, Request, Step, json_response, serve_http

Play = Callable[[Request], Iterable[Step]]


@attrs.define
class ChatBackend:
    """Its behaviour, to be changed by tests at any time, and what it was asked."""

    url: str = ""
    server: HttpServer | None = None
    registering: list[Step] | None = None
    """Played in place of giving a registration."""
    chatting: list[Step] | None = None
    """Played in place of the usual reply; unknown registrations are refused all the same."""
    unknown: list[Step] = attrs.field(factory=lambda: [json_response({"error": "unknown"}, 404)])
    """Played for a registration that was not given, or was forgotten."""
    valid_ids: set[str] = attrs.field(factory=set)
    registrations: list[Request] = attrs.field(factory=list)
    chats: list[Request] = attrs.field(factory=list)

    def forget(self) -> None:
        """Lose all registrations, as a backend that was restarted does."""
        self.valid_ids.clear()

    def __call__(self, request: Request) -> Iterable[Step]:
        if request.path == "/v1/register":
            self.registrations.append(request)
            return self.registering if self.registering is not None else self._register()
        if request.path == "/v1/chat":
            self.chats.append(request)
            return self._chat(request.json())
        return [json_response({"error": "no such path"}, 404)]

    def _register(self) -> list[Step]:
        registration_id = f"reg-{len(self.registrations)}"
        self.valid_ids.add(registration_id)
        return [json_response({"registration_id": registration_id})]

    def _chat(self, body: dict[str, Any]) -> list[Step]:
        if body.get("registration_id") not in self.valid_ids:
            return self.unknown
        if self.chatting is not None:
            return self.chatting
        return [json_response({"response": f"You said: {body['message']}"})]


@asynccontextmanager
async def chat_backend() -> AsyncIterator[ChatBackend]:
    """Run a backend until the context is left."""
    backend = ChatBackend()
    async with serve_http(backend) as server:
        backend.url, backend.server = server.url, server
        yield backend
