"""ElevenLabs' speech over HTTP: one request for one text, whose audio streams back."""

from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs
import httpx

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.tts.elevenlabs_wire import (
    Voice,
    credentials,
    error_of_refusal,
    read_timestamps_line,
    stream_body,
    stream_url,
)
from voice_fsm.tts.http_request import RawFrames
from voice_fsm.tts.reply import Frame, FrameSource
from voice_fsm.tts.script import Script
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.http import Answer, Deadlines, open_answer
from voice_fsm.wire.lines import LineSplitter, OversizedLineError

_MAX_LINE_BYTES: Final = 16 * 1024 * 1024


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
        self._answer: Answer | None = None

    async def has_text(self) -> bool:
        """Wait for the text; there may be none any more."""
        if self._text is None:
            number = self._script.taken
            self._text = await self._script.piece(number)
            self._previous_text = self._script.until(number)
            self._script.taken += 1
        return bool(self._text)

    async def open(self) -> FrameSource:
        """See `Request`."""
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
            self._answer = answer = await open_answer(
                endpoint.client, request, upstream=Upstream.TTS, deadlines=endpoint.deadlines
            )
        except RefusedError as refusal:
            raise error_of_refusal(refusal) from None
        return _TimedFrames(answer) if self._voice.alignment else RawFrames(answer)

    async def aclose(self) -> None:
        """See `Request`."""
        if self._answer is not None:
            answer, self._answer = self._answer, None
            await answer.aclose()


class _TimedFrames:
    """The frames of ``/stream/with-timestamps``: a JSON object a line."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._lines: deque[bytes] = deque()
        self._splitter = LineSplitter(_MAX_LINE_BYTES)

    async def next_frames(self) -> Sequence[Frame]:
        line = await self._line()
        return (read_timestamps_line(line),) if line else ()

    async def _line(self) -> bytes:
        """Read the next line that is not blank; at the end there is none."""
        while not self._lines:
            data = await anext(self._answer, None)
            if data is None:
                return self._splitter.end().strip()
            try:
                self._lines.extend(filter(bytes.strip, self._splitter.feed(data)))
            except OversizedLineError:
                raise self._answer.error(ProviderFault.BAD_RESPONSE) from None
        return self._lines.popleft()
