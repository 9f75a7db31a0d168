"""The first moments of a conversation: what the client wants, before there is a session."""

from typing import Final

import attrs
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.wire import convai as wire

INITIATION_S: Final = 3.0
"""How long the client's first message is waited for; without it the agent is as its settings say."""
EARLY_CHARS: Final = 1 << 20
"""How much may come before it; some clients stream audio from the start."""


@attrs.frozen
class Opening:
    """The client's first message, and what came before it, in order."""

    initiation: wire.Initiation
    early: tuple[wire.ClientMessage | wire.Unknown, ...] = ()


async def read_opening(websocket: WebSocket) -> Opening:
    """Read up to the initiation.

    Raises:
        ClientError: a message is wrong; nobody can tell what the client wanted.
        WebSocketDisconnect: it has left.
    """
    early: list[wire.ClientMessage | wire.Unknown] = []
    chars = 0
    with trio.move_on_after(INITIATION_S):
        while chars <= EARLY_CHARS:
            text = await receive_frame(websocket)
            message = wire.decode(text)
            if isinstance(message, wire.Initiation):
                return Opening(message, tuple(early))
            chars += len(text)
            early.append(message)
    return Opening(wire.Initiation(), tuple(early))


async def receive_frame(websocket: WebSocket) -> str | bytes:
    """The next frame; all of this protocol's are JSON, whichever kind of frame they come in.

    Raises:
        WebSocketDisconnect: there is none: the client has left.
    """
    frame = await websocket.receive()
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(frame["code"])
    text: str | bytes | None = frame.get("text")
    return frame["bytes"] if text is None else text
