"""Audio as HTTP answers: in one piece with its length and in ranges, or as it is made."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Self

import attrs
import structlog
import trio
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from voice_fsm.errors import VoiceError
from voice_fsm.runtime.groups import first_error
from voice_fsm.web.speech.api import Refuse

log = structlog.get_logger()

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
PIECE_BYTES: Final = 262_144
"""Of a file, read at once."""


@attrs.frozen
class _Part:
    """What of some audio is asked for: up to but without ``end``, and with which status and headers."""

    status: int
    first: int
    end: int
    headers: Mapping[str, str]


def whole_audio(
    audio: bytes, content_type: str, range_header: str | None, headers: Mapping[str, str]
) -> Response:
    """All of some audio, or the range that a player asks for (RFC 9110, 14)."""
    part = _part(len(audio), range_header)
    return Response(
        audio[part.first : part.end],
        part.status,
        media_type=content_type,
        headers={**headers, **part.headers},
    )


def stored_audio(path: Path, size_bytes: int, content_type: str, range_header: str | None) -> Response:
    """The same of a file that does not change; it is read as it is sent."""
    part = _part(size_bytes, range_header)
    headers = {**part.headers, "Content-Length": str(part.end - part.first)}
    pieces = _FilePieces(path, part.first, part.end)
    return StreamingResponse(pieces, part.status, media_type=content_type, headers=headers)


def _part(size: int, range_header: str | None) -> _Part:
    headers = {"Accept-Ranges": "bytes"}
    asked = _RANGE.fullmatch(range_header.strip()) if range_header else None
    if asked is None or asked.groups() == ("", ""):
        return _Part(200, 0, size, headers)
    first, last = _borders(asked[1], asked[2], size)
    if first > last:
        return _Part(416, 0, 0, {**headers, "Content-Range": f"bytes */{size}"})
    return _Part(206, first, last + 1, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})


def _borders(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


class _FilePieces:
    """Reads some of a file. It is open only meanwhile: who stops leaves nothing to close."""

    def __init__(self, path: Path, first: int, end: int) -> None:
        self._path = path
        self._at = first
        self._end = end

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._at >= self._end:
            raise StopAsyncIteration
        piece = await trio.to_thread.run_sync(self._read)
        self._at += len(piece)
        return piece

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            file.seek(self._at)
            piece = file.read(min(PIECE_BYTES, self._end - self._at))
        if not piece:
            raise OSError(f"{self._path} has become shorter")
        return piece


class Prefixed:
    """Pieces, with something before the first."""

    def __init__(self, prefix: bytes, pieces: AsyncIterator[bytes]) -> None:
        self._prefix = prefix
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        prefix, self._prefix = self._prefix, b""
        return prefix + await anext(self._pieces)


Opened = tuple[Mapping[str, str], AsyncIterator[bytes]]
"""The headers, and the body's pieces."""


class StreamedAnswer(Response):
    """An answer that begins with the first audio and ends with the last; the client's leaving ends it too.

    What goes wrong before the first piece is refused with its status. After it, the connection is broken off,
    so that nobody takes half of a text for the whole.
    """

    def __init__(
        self, source: AbstractAsyncContextManager[Opened], content_type: str, refuse: Refuse
    ) -> None:
        super().__init__(media_type=content_type)
        self._source = source
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        started = False
        error: VoiceError | None = None

        async def stream(everything: trio.CancelScope) -> None:
            nonlocal started
            async with self._source as (headers, pieces):
                self.headers.update(headers)
                raw = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
                async for piece in pieces:
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": raw})
                        started = True
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            everything.cancel(reason="all has been sent")

        try:
            await _until_left(receive, stream)
        except* VoiceError as group:
            error = first_error(group)
        if error is None:
            return
        if started:
            # An app that returns without its last piece has its connection closed.
            log.warning("speech_stream_broken_off", path=scope["path"], code=error.code)
        else:
            await self._refuse(error)(scope, receive, send)


async def _until_left(receive: Receive, work: Callable[[trio.CancelScope], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, nursery.cancel_scope)
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel(reason="the client has left")
