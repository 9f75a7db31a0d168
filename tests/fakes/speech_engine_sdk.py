"""ElevenLabs' own Speech Engine server, unmodified, in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from elevenlabs.speech_engine.server import SpeechEngineServer


@asynccontextmanager
async def official_server(api_key: str, **handlers: Any) -> AsyncIterator[str]:
    """Run it with these ``on_...`` handlers; gives the address of its WebSocket."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    server = SpeechEngineServer(port=port, path="/ws", api_key=api_key, **handlers)
    loop = asyncio.new_event_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with trio.fail_after(10):
            while server._server is None:
                await trio.sleep(0.01)
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await trio.to_thread.run_sync(thread.join)
