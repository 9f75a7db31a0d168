"""``/v1/text-to-speech/{voice_id}/multi-stream-input``: several streams of text over one socket."""

from functools import partial
from typing import Final

import trio
from starlette.websockets import WebSocket

from voice_fsm.web.speech.stream_input import (
    InputError,
    SpokenStream,
    StreamInputEndpoint,
    client_left,
    first_message,
    next_message,
    stop_at,
)
from voice_fsm.wire import stream_input as wire

_MAX_CONTEXTS: Final = 5


class MultiStreamInputEndpoint(StreamInputEndpoint):
    """Lets clients in, as many as there is room for."""

    async def _serve(self, websocket: WebSocket) -> None:
        query = wire.read_query(websocket.query_params)
        first = await first_message(websocket, query, wire.decode_of_context, self._api.gate)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_at, self._draining, nursery.cancel_scope)
            async with trio.open_nursery() as speaking:
                begin = partial(SpokenStream, self._api, websocket, query)
                reader = _Reader(websocket, query, begin, speaking)
                if await reader.run(first):
                    nursery.start_soon(_watch, websocket, nursery.cancel_scope)
                else:
                    speaking.cancel_scope.cancel(reason="the client has left")
            nursery.cancel_scope.cancel(reason="all has been spoken")


async def _watch(websocket: WebSocket, everything: trio.CancelScope) -> None:
    await client_left(websocket)
    everything.cancel(reason="the client has left")


class _Context:
    """One stream of text, from its first message to its final frame."""

    def __init__(self, stream: SpokenStream) -> None:
        self.stream = stream
        self.is_closed = False


class _Reader:
    """Hands each message to its context."""

    def __init__(
        self,
        websocket: WebSocket,
        query: wire.StreamQuery,
        begin: partial[SpokenStream],
        speaking: trio.Nursery,
    ) -> None:
        self._websocket = websocket
        self._query = query
        self._begin = begin
        self._speaking = speaking
        self._contexts: dict[str, _Context] = {}

    async def run(self, first: wire.ContextMessage | None) -> bool:
        """Read until the client closes all of its contexts; false: it has left."""
        message = first
        while message is not None and not message.close_socket:
            if not message.is_for_the_socket:
                await self._take(message)
            message = await next_message(
                self._websocket, self._query.inactivity_timeout, wire.decode_of_context
            )
        for context in list(self._contexts.values()):  # they leave as they end
            await self._close(context)
        return message is not None

    async def _take(self, message: wire.ContextMessage) -> None:
        context = self._contexts.get(message.context_id) or self._open(message)
        if context.is_closed:
            return
        await context.stream.take(message.text or "", flush=message.flush)
        if message.close_context:
            await self._close(context)

    def _open(self, message: wire.ContextMessage) -> _Context:
        if len(self._contexts) >= _MAX_CONTEXTS:
            raise InputError(
                "max_active_conversations",
                f"Maximum simultaneous contexts per WebSocket connection exceeded ({_MAX_CONTEXTS}). Please "
                "close an existing context before opening a new one.",
            )
        context = _Context(self._begin(message.voice_settings, message.context_id))
        self._contexts[message.context_id] = context
        self._speaking.start_soon(self._speak, message.context_id, context)
        return context

    async def _speak(self, context_id: str, context: _Context) -> None:
        try:
            await context.stream.speak()
        finally:
            del self._contexts[context_id]

    async def _close(self, context: _Context) -> None:
        if not context.is_closed:
            context.is_closed = True
            await context.stream.end()
