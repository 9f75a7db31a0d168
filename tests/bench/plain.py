"""The layer that anybody would write first, to compare with: FastAPI, uvicorn, a task or two per session.

It speaks as much of the contract as the bench needs, and keeps none of its promises about errors, slow
clients, lost links, settings, or what was heard. It is written to be quick: uvloop, httptools, one pooled
HTTP client, no compression, audio passed on as the base64 it came in.
"""

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import httpx
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect

UPSTREAM: Final = os.environ["UPSTREAM"]
"""Host and port of the bench's upstreams."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient() as client:
        app.state.http = client
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/v1/voice/ws")
async def voice(websocket: WebSocket) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        await Session(websocket).run()


class Session:
    """One client, its recogniser, and at most one turn."""

    def __init__(self, client: WebSocket) -> None:
        self._client = client
        self._turn: asyncio.Task[None] | None = None
        self._turn_id = 0

    async def run(self) -> None:
        await self._tell(type="session.ready", message="Send session.configure to begin.")
        await self._client.receive_text()
        await self._tell(type="session.configured", session_id="plain")
        url = f"ws://{UPSTREAM}/v1/speech-to-text/realtime"
        async with connect(url, compression=None) as recogniser:
            hearing = asyncio.create_task(self._hear(recogniser))
            try:
                while True:
                    message = await self._client.receive()
                    if message["type"] == "websocket.disconnect":
                        return
                    if (audio := message.get("bytes")) is not None:
                        await recogniser.send(_audio_message(audio))
            finally:
                hearing.cancel()
                if self._turn is not None:
                    self._turn.cancel()

    async def _hear(self, recogniser: ClientConnection) -> None:
        async for frame in recogniser:
            heard = json.loads(frame)
            match heard["message_type"]:
                case "session_started":
                    await self._tell(type="stt.session_started", session_id=heard["session_id"], config={})
                case "partial_transcript":
                    await self._tell(type="transcript.partial", text=heard["text"])
                    await self._interrupt()
                case "committed_transcript":
                    await self._tell(type="transcript.committed", text=heard["text"])
                    await self._interrupt()
                    self._turn_id += 1
                    self._turn = asyncio.create_task(self._reply(self._turn_id, heard["text"]))

    async def _interrupt(self) -> None:
        turn, self._turn = self._turn, None
        # Sent is not played: the audio of a turn of the bench lasts longer than sending it takes.
        if turn is not None:
            turn.cancel()
            with suppress(asyncio.CancelledError):
                await turn
            await self._tell(type="assistant.interrupted", turn_id=self._turn_id)
            await self._tell(type="assistant.done", turn_id=self._turn_id, outcome="interrupted")

    async def _reply(self, turn_id: int, text: str) -> None:
        await self._tell(type="assistant.started", turn_id=turn_id, text=text)
        http: httpx.AsyncClient = self._client.app.state.http
        answer = await http.post(f"http://{UPSTREAM}/chat", json={"message": text})
        reply = answer.json()["response"]
        await self._tell(type="assistant.message", turn_id=turn_id, text=reply)
        await self._tell(type="assistant.audio.start", turn_id=turn_id, output_format="pcm_16000")
        count = 0
        async with connect(f"ws://{UPSTREAM}/v1/text-to-speech/v/stream-input", compression=None) as speech:
            for piece in (" ", reply, ""):
                await speech.send(json.dumps({"text": piece}))
            async for frame in speech:
                said = json.loads(frame)
                if said.get("isFinal"):
                    break
                count += 1
                await self._tell(
                    type="assistant.audio.chunk", turn_id=turn_id, audio=said["audio"], chunk_index=count
                )
        await self._tell(type="assistant.audio.end", turn_id=turn_id, chunk_count=count)

    async def _tell(self, **event: object) -> None:
        await self._client.send_text(json.dumps(event))


def _audio_message(audio: bytes) -> str:
    chunk = {"message_type": "input_audio_chunk", "audio_base_64": base64.b64encode(audio).decode()}
    return json.dumps({**chunk, "commit": False, "sample_rate": 16000})


def main() -> None:
    """Serve on a free port, and print it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2000)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  # told to the parent
    config = uvicorn.Config(app, log_level="error", ws_per_message_deflate=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
