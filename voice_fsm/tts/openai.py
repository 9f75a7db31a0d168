"""OpenAI's text to speech, and that of servers with the same API: a request for each piece of text.

Audio streams back while it is made. It is PCM at 24 kHz, and is made into other formats here.

    async with open_openai_tts(config, client) as tts:
        async with tts.speak(pieces, options) as speech: ...
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from itertools import count

import attrs
import httpx
import trio

from voice_fsm.errors import ClientError, Upstream
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import Speech, VoiceInfo
from voice_fsm.tts.encoding import check_format
from voice_fsm.tts.http_request import PieceRequest, RawFrames
from voice_fsm.tts.openai_wire import (
    MAX_TEXT_CHARS,
    SPEECH_FORMAT,
    SPEEDS,
    VOICES,
    PcmReader,
    Voice,
    error_of_refusal,
    rate_told,
    speech_body,
)
from voice_fsm.tts.reply import Frame, FrameSource, Request, speak_script
from voice_fsm.tts.script import Script
from voice_fsm.tts.speed import check_speed
from voice_fsm.tts.warm_http import WarmConnection
from voice_fsm.upstream.faults import RefusedError, bearer
from voice_fsm.upstream.http import Answer, Deadlines, ask, json_request
from voice_fsm.upstream.retry import RetryPolicy
from voice_fsm.upstream.websocket import background_nursery


@attrs.frozen(kw_only=True)
class OpenAiTtsConfig:
    """What the operator chose; a session's options win where they say something."""

    api_key: str = attrs.field(repr=False)
    """Blank for a server that asks for none."""
    base_url: str = "https://api.openai.com/v1"
    """What ``/audio/speech`` is appended to."""
    model_id: str = "gpt-4o-mini-tts"
    voice_id: str = "alloy"
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    retries: RetryPolicy = attrs.field(factory=RetryPolicy)


@asynccontextmanager
async def open_openai_tts(config: OpenAiTtsConfig, client: httpx.AsyncClient) -> AsyncIterator["OpenAiTts"]:
    """Run the provider. ``client`` stays the caller's."""
    async with background_nursery() as nursery:
        yield OpenAiTts(config, client, WarmConnection(nursery, client, config.base_url, config.deadlines))


class OpenAiTts:
    """A `TtsProvider`."""

    name = "openai"

    def __init__(self, config: OpenAiTtsConfig, client: httpx.AsyncClient, warm: WarmConnection) -> None:
        self._config = config
        self._client = client
        self._warm = warm

    def check(self, options: TtsOptions) -> None:
        """Say early whether these options can be served; models and voices are for the server to know.

        Raises:
            ClientError: UNSUPPORTED_FORMAT, or INVALID_FIELD for the speed.
        """
        check_format(options.output_format)
        check_speed(options, *SPEEDS)

    def prewarm(self, options: TtsOptions) -> None:
        """Connect in the background, unless a connection was used a moment ago."""
        with suppress(ClientError):
            self.check(options)
            self._warm.prewarm()

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """List OpenAI's voices, which speak all languages; the API has no list of them."""
        await trio.lowlevel.checkpoint()
        return tuple(VoiceInfo(name, name.title()) for name in VOICES)

    def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[Speech]]:
        """Speak one reply; see `TtsProvider`.

        Raises:
            ClientError: as `check`.
            ProviderError: see `speak_script`.
        """
        self.check(options)
        voice = Voice(
            voice_id=options.voice_id or self._config.voice_id,
            model_id=options.model_id or self._config.model_id,
            speed=options.voice_settings.speed,
        )
        return speak_script(
            pieces,
            options.output_format,
            partial(self._requests, voice),
            self._config.retries,
            source_format=SPEECH_FORMAT,
            max_piece_chars=MAX_TEXT_CHARS,
        )

    async def _requests(self, voice: Voice, script: Script) -> Iterator[Request]:
        await trio.lowlevel.checkpoint()
        return (PieceRequest(script, partial(self._ask_for, voice)) for _ in count())

    @asynccontextmanager
    async def _ask_for(self, voice: Voice, text: str) -> AsyncIterator[FrameSource]:
        config = self._config
        request = json_request(
            self._client,
            f"{config.base_url}/audio/speech",
            speech_body(voice, text),
            bearer(Upstream.TTS, config.api_key),
        )
        try:
            async with ask(
                self._client, request, upstream=Upstream.TTS, deadlines=config.deadlines
            ) as answer:
                yield _PcmFrames(answer, self._warm)
        except RefusedError as refusal:
            raise error_of_refusal(refusal, voice) from None


class _PcmFrames:
    """The frames of an answer: its audio as it comes."""

    def __init__(self, answer: Answer, warm: WarmConnection) -> None:
        self._warm = warm
        self._raw = RawFrames(answer)
        self._reader = PcmReader(rate_told(answer.headers.get("x-sample-rate", "")))
        self._ended = False

    async def next_frames(self) -> Sequence[Frame]:
        if self._ended:
            return ()
        while raw := await self._raw.next_frames():
            if audio := self._reader.feed(raw[0].audio):
                return (Frame(audio),)
        self._ended = True
        self._warm.was_used()
        return (Frame(self._reader.end()),)
