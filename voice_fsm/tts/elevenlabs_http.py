"""ElevenLabs' speech over HTTP: one request for one text, whose audio streams back."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

import attrs
import httpx

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.elevenlabs_script import Script
from voice_fsm.tts.elevenlabs_wire import (
    Frame,
    Voice,
    credentials,
    error_of_refusal,
    read_timestamps_line,
    stream_body,
    stream_url,
)
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.http import Answer, Deadlines, ask

_MAX_LINE_BYTES: Final = 4 * 1024 * 1024


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where to ask, and how patiently."""

    client: httpx.AsyncClient
    base_url: str
    api_key: str = attrs.field(repr=False)
    deadlines: Deadlines


class HttpRequest:
    """The speech of one text: the next piece of the script, unless another is given."""

    def __init__(self, endpoint: Endpoint, voice: Voice, script: Script, *, text: str | None = None) -> None:
        self.untold: list[str] = []
        """Text that the next frame says, if it does not tell so itself."""
        self._endpoint = endpoint
        self._voice = voice
        self._script = script
        self._text = text
        self._previous_text = ""

    async def has_text(self) -> bool:
        """Wait for the text; there may be none any more."""
        if self._text is None:
            number = self._script.taken
            self._text = await self._script.piece(number)
            self._previous_text = self._script.until(number)
            self._script.taken += 1
        return bool(self._text)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[Frame]]:
        """Ask, and give the answer's frames; it may be asked again.

        Raises:
            ProviderError: on entering or while iterating; BAD_RESPONSE too if there is no audio at all.
        """
        text = self._text or ""
        self.untold[:] = [text]
        endpoint = self._endpoint
        request = endpoint.client.build_request(
            "POST",
            stream_url(endpoint.base_url, self._voice),
            headers=credentials(endpoint.api_key),
            json=stream_body(self._voice, text, self._previous_text),
        )
        try:
            async with ask(
                endpoint.client, request, upstream=Upstream.TTS, deadlines=endpoint.deadlines
            ) as answer:
                yield _TimedFrames(answer) if self._voice.alignment else _RawFrames(answer)
        except RefusedError as refusal:
            raise error_of_refusal(refusal) from None

    async def aclose(self) -> None:
        """Do nothing: whatever was opened is closed."""


class _RawFrames:
    """The frames of ``/stream``: bare audio."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._heard = False
        if answer.content_type.startswith(("application/json", "text/")):
            raise answer.error(ProviderFault.BAD_RESPONSE)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        audio = await anext(self._answer, None)
        if audio is not None:
            self._heard = True
            return Frame(audio)
        if not self._heard:
            raise self._answer.error(ProviderFault.BAD_RESPONSE)
        raise StopAsyncIteration


class _TimedFrames:
    """The frames of ``/stream/with-timestamps``: a JSON object a line."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._heard = False
        self._lines: deque[bytes] = deque()
        self._unfinished = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        line = await self._line()
        if line:
            frame = read_timestamps_line(line)
            self._heard = self._heard or bool(frame.audio)
            return frame
        if not self._heard:
            raise self._answer.error(ProviderFault.BAD_RESPONSE)
        raise StopAsyncIteration

    async def _line(self) -> bytes:
        """Read the next line that is not blank; at the end there is none."""
        while not self._lines:
            data = await anext(self._answer, None)
            if data is None:
                rest, self._unfinished = self._unfinished, b""
                return rest.strip()
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            self._lines.extend(filter(bytes.strip, lines))
            if len(self._unfinished) > _MAX_LINE_BYTES:
                raise self._answer.error(ProviderFault.BAD_RESPONSE)
        return self._lines.popleft()
