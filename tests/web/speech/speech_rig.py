"""The endpoints of speech on a real socket, with upstreams that a test holds in its hand."""

import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx
import pytest
import trio
from starlette.applications import Starlette
from trio_websocket import ConnectionClosed

from tests.fakes.scripted import ScriptedStt
from voice_fsm.errors import ClientError, ClientFault, Upstream
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.speech.service import SpeechConfig, open_speech
from voice_fsm.stt.recording import transcribe
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText, VoiceInfo
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.websocket import open_websocket
from voice_fsm.web.auth import Gate
from voice_fsm.web.seats import Seats
from voice_fsm.web.serve import serve
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.speech.api import SocketPolicy, SpeechApi
from voice_fsm.web.speech.multi_stream_input import MultiStreamInputEndpoint
from voice_fsm.web.speech.routes import speech_routes
from voice_fsm.web.speech.scribe import ScribeEndpoint
from voice_fsm.web.speech.stream_input import StreamInputEndpoint
from voice_fsm.web.speech.transcripts import TranscriptLimits, Transcripts

CHUNK = bytes(range(100)) * 2
"""What each piece of text sounds like, twice."""


class GatedTts:
    """Speaks each piece as two chunks, the second when ``gate`` is open; an ``error`` comes in its place."""

    name = "gated"

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.error: Exception | None = None
        self.first_error: Exception | None = None
        self.running = 0
        self.spoken: list[str] = []
        self.options: TtsOptions | None = None
        self.idle = trio.Event()

    def check(self, options: TtsOptions) -> None:
        if options.voice_id == "nobody":
            raise ClientError(ClientFault.INVALID_FIELD, "No such voice.", field="tts.voice_id")

    def prewarm(self, options: TtsOptions) -> None:
        """Nothing to do."""

    async def voices(self) -> tuple[VoiceInfo, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(VoiceInfo(f"voice-{n}", f"Voice {n}", "en") for n in range(25))

    @asynccontextmanager
    async def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AsyncIterator[AsyncIterator[Speech]]:
        self.options = options
        self.running += 1
        try:
            async with self._stream(pieces) as speech:
                yield speech
        finally:
            self.running -= 1
            self.idle.set()

    @trio.as_safe_channel
    async def _stream(self, pieces):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # decorated
        async for piece in pieces:
            self.spoken.append(piece)
            if self.first_error is not None:
                raise self.first_error
            yield SpokenText(piece)
            yield SpeechAudio(CHUNK)
            await self.gate.wait()
            if self.error is not None:
                raise self.error
            yield SpeechAudio(CHUNK)


@attrs.define
class Socket:
    """A raw client of one of the sockets."""

    websocket: UpstreamSocket

    async def send(self, **fields: object) -> None:
        await self.websocket.send_message(json.dumps(fields))

    async def receive(self) -> Any:
        with trio.fail_after(10):
            return json.loads(await self.websocket.get_message())

    async def closed(self) -> tuple[int, str | None]:
        """The code and reason of the server's goodbye; nothing may come before it."""
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(10):
            await self.websocket.get_message()
        assert closed.value.reason is not None
        return int(closed.value.reason.code), closed.value.reason.reason


@attrs.define
class SpeechServer:
    """One that is running."""

    url: str
    tts: GatedTts
    stt: ScriptedStt
    seats: Seats
    draining: trio.Event
    http: httpx.AsyncClient

    @asynccontextmanager
    async def connect(self, path: str, **kwargs: Any) -> AsyncIterator[Socket]:
        url = self.url.replace("http", "ws", 1) + path
        async with open_websocket(url, upstream=Upstream.TTS, **kwargs) as websocket:
            yield Socket(websocket)


@asynccontextmanager
async def speech_server(
    *, gate: Gate | None = None, limits: TranscriptLimits | None = None, seats: int = 5, concurrency: int = 8
) -> AsyncIterator[SpeechServer]:
    """Serve, and stop in bounded time."""
    tts, stt, draining = GatedTts(), ScriptedStt(), trio.Event()
    app = Starlette(routes=speech_routes())
    stop = trio.Event()
    config = SpeechConfig(identity="gated", concurrency=concurrency)
    async with open_speech(tts, config) as speech, trio.open_nursery() as nursery:
        api = SpeechApi(
            gate=gate or Gate(),
            stt=stt,
            tts=tts,
            speech=speech,
            transcripts=Transcripts(partial(transcribe, stt), limits or TranscriptLimits()),
        )
        places = Seats(seats)
        app.state.speech_api = api
        app.state.scribe = ScribeEndpoint(api, places, SocketPolicy(), draining)
        app.state.stream_input = StreamInputEndpoint(api, places, SocketPolicy(), draining)
        app.state.multi_stream_input = MultiStreamInputEndpoint(api, places, SocketPolicy(), draining)
        serving = partial(
            serve, app, ServeConfig(port=0, drain_s=2), shutdown_trigger=stop.wait, draining=draining
        )
        (url,) = await nursery.start(serving)
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            yield SpeechServer(url, tts, stt, places, draining, http)
        stop.set()
