"""A fake of OpenAI's text to speech: ``POST /v1/audio/speech`` on a real socket.

    fake = FakeOpenAiTts(chunk_bytes=1001)
    async with serve_openai_tts(fake) as base_url: ...
    fake.troubles.append(Trouble.HANG_MIDWAY)  # for the next request

Rules and texts: OpenAI's API reference and its Python client, as of 2026-11. What is said depends on the
text alone (`speech_of`), so a test can say what it must be.
"""

import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs

from tests.fakes.elevenlabs_tts import speech_of
from tests.fakes.http_server import HttpServer, Pause, Request, Step, chunked_head, json_response
from tests.fakes.sockets import serve
from tests.fakes.troubles import Misfortune, before_http, chunks_of, instead_of_http, queue
from voice_fsm.audio import AudioFormat

_CONTENT_TYPES: Final = {
    "pcm": "audio/pcm",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
}
_MAX_CHARS: Final = 4096


@attrs.define(kw_only=True)
class FakeOpenAiTts:
    """The service. Attributes may be changed at any time; requests under way go on as they began."""

    api_key: str = "sk-key"
    models: frozenset[str] = frozenset({"gpt-4o-mini-tts", "tts-1"})
    voices: frozenset[str] = frozenset({"alloy", "echo"})
    always_wav: bool = False
    """Whether it sends a WAV file whatever is asked, as some compatible servers do."""
    rate_hz: int = 24000
    told_rate_hz: int | None = None
    """What a header says of the rate, where one does."""
    chunk_bytes: int = 4801
    """Odd by default: samples are cut in two."""
    first_audio_s: float = 0.0
    between_chunks_s: float = 0.0
    troubles: deque[Misfortune | None] = attrs.field(default=(), converter=queue)
    """One for each request to come, from the left; ``None`` is a good one."""
    http: HttpServer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.http = HttpServer(0, self._answer)

    @property
    def requests(self) -> list[Request]:
        """All requests for speech."""
        return [request for request in self.http.requests if request.method == "POST"]

    @property
    def spoken(self) -> list[str]:
        """The texts that were asked for."""
        return [request.json()["input"] for request in self.requests]

    async def gone(self) -> None:
        """Wait until no more than one connection is open, which a client's pool keeps for later."""
        await self.http.wait_until(lambda server: server.live_connections <= 1)

    def _answer(self, request: Request) -> Iterator[Step]:
        if request.method == "HEAD":
            yield json_response("", 404)[: -len('""')]
            return
        trouble = self.troubles.popleft() if self.troubles else None
        yield Pause(self.first_audio_s)
        yield from before_http(trouble)
        answer = instead_of_http(trouble) or self._refusal(request)
        if answer is not None:
            yield answer
            return
        asked = request.json()
        kind = "wav" if self.always_wav else asked.get("response_format", "mp3")
        told = {} if self.told_rate_hz is None else {"x_sample_rate": str(self.told_rate_hz)}
        yield chunked_head(_CONTENT_TYPES[kind], x_request_id="req_1", **told)
        audio = self._audio(asked["input"], kind)
        pieces = [audio[at : at + self.chunk_bytes] for at in range(0, len(audio), self.chunk_bytes)]
        yield from chunks_of(pieces, trouble, self.between_chunks_s)

    def _audio(self, text: str, kind: str) -> bytes:
        if kind == "mp3":
            return speech_of(text, AudioFormat("mp3", 44100, 128))
        pcm = speech_of(text, AudioFormat("pcm", self.rate_hz))
        return wav_head(self.rate_hz) + pcm if kind == "wav" else pcm

    def _refusal(self, request: Request) -> bytes | None:
        if request.path != "/v1/audio/speech":
            return _error(404, f"Invalid URL (POST {request.path})")
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _error(401, "Incorrect API key provided: sk-x.", code="invalid_api_key")
        return self._refusal_of(request.json())

    def _refusal_of(self, asked: dict[str, Any]) -> bytes | None:
        if asked.get("model") not in self.models:
            return _error(404, "The model does not exist or you do not have access to it.", "model_not_found")
        if asked.get("voice") not in self.voices:
            return _error(400, "Input should be 'alloy' or 'echo'", param="voice")
        if not 0 < len(asked.get("input", "")) <= _MAX_CHARS:
            return _error(400, "String should have at most 4096 characters", "string_too_long", param="input")
        if asked.get("response_format", "mp3") not in _CONTENT_TYPES:
            return _error(400, "Input should be 'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'")
        if not 0.25 <= asked.get("speed", 1.0) <= 4.0:
            return _error(400, "Input should be greater than or equal to 0.25", param="speed")
        return None


def wav_head(rate_hz: int) -> bytes:
    """Begin a WAV file of unknown length, with a chunk that nobody asked for."""
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    unknown = b"\xff\xff\xff\xff"
    return (
        b"RIFF" + unknown + b"WAVE" + b"fmt \x10\x00\x00\x00" + form
        + b"LIST\x04\x00\x00\x00INFO" + b"data" + unknown
    )  # fmt: skip


def _error(status: int, message: str, code: str | None = None, *, param: str | None = None) -> bytes:
    error: dict[str, Any] = {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    return json_response({"error": error}, status, x_request_id="req_1")


@asynccontextmanager
async def serve_openai_tts(fake: FakeOpenAiTts) -> AsyncIterator[str]:
    """Serve; gives the base address, such as ``http://127.0.0.1:41234/v1``."""
    async with serve(fake.http.serve) as address:  # type: ignore[arg-type]  # a socket's stream, by contract
        yield f"{address.replace('ws', 'http', 1)}/v1"
