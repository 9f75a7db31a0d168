"""Several messages of a WebSocket in one write: an extension of ASGI that our server has and others have not.

The kernel takes as long to write to a socket as we to put together what is written.
"""

from collections.abc import Sequence
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.wire.frames import CONNECTION_LOST

TOGETHER: Final = "voice_fsm.websocket.send_together"
"""Its name in the scope; its ``send`` takes the messages, and raises `OSError` once the client has gone."""


async def send_together(websocket: WebSocket, messages: Sequence[str | bytes]) -> None:
    """Send messages, text or binary, in this order; where the server cannot do it in one write, one by one.

    Raises:
        WebSocketDisconnect: the client has gone.
    """
    together = websocket.scope.get("extensions", {}).get(TOGETHER)
    if together is None:
        for message in messages:
            kind = "text" if isinstance(message, str) else "bytes"
            await websocket.send({"type": "websocket.send", kind: message})
        return
    try:
        await together["send"](messages)
    except OSError:
        raise WebSocketDisconnect(CONNECTION_LOST) from None
