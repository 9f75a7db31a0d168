"""Messages of a WebSocket without ASGI's events around them, by an extension that our own server has.

Several go out in one write: the kernel takes as long to write to a socket as we to put together what is
written. What comes in passes no second layer that checks it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

import attrs
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.wire.frames import CONNECTION_LOST

EXTENSION: Final = "voice_fsm.websocket.messages"
"""Its name in the scope, where it is a dict of these two functions.

``send`` takes messages, and raises `OSError` once the client has gone; ``receive`` gives one, or ``None``.
"""


@attrs.frozen
class Messages:
    """Those of one connection that was accepted; text is `str`, binary `bytes`."""

    receive: Callable[[], Awaitable[str | bytes | None]]
    """Waits for the next message; ``None`` once the client has gone."""
    _send: Callable[[Sequence[str | bytes]], Awaitable[None]]

    @classmethod
    def of(cls, websocket: WebSocket) -> Self:
        """Take the short way if the server has it, else ASGI's."""
        extension = websocket.scope.get("extensions", {}).get(EXTENSION)
        if extension is not None:
            return cls(extension["receive"], extension["send"])

        async def receive() -> str | bytes | None:
            event = await websocket.receive()
            message: str | bytes | None = event.get("text")
            return event.get("bytes") if message is None else message

        async def send(messages: Sequence[str | bytes]) -> None:
            for message in messages:
                kind = "text" if isinstance(message, str) else "bytes"
                await websocket.send({"type": "websocket.send", kind: message})

        return cls(receive, send)

    async def send(self, messages: Sequence[str | bytes]) -> None:
        """Send these in this order, in one write where the server can.

        Raises:
            WebSocketDisconnect: the client has gone.
        """
        try:
            await self._send(messages)
        except OSError:
            raise WebSocketDisconnect(CONNECTION_LOST) from None
