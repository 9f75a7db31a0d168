"""Deepgram's text to speech (Aura).

A reply goes over a WebSocket that stays open for the next one, and is opened when the user begins to speak if
none is; MP3 and Opus, which sockets do not give, go piece by piece over HTTP.

    async with open_deepgram_tts(config, client) as tts:
        tts.prewarm(options)
        async with tts.speak(pieces, options) as speech: ...
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from itertools import count

import attrs
import httpx
import trio

from voice_fsm.errors import ClientError, Upstream
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import Speech, VoiceInfo
from voice_fsm.tts.deepgram_utterance import Utterance, suits
from voice_fsm.tts.deepgram_voices import list_voices
from voice_fsm.tts.deepgram_wire import (
    FILE_FORMATS,
    MAX_TEXT_CHARS,
    RAW_ENCODINGS,
    SPEEDS,
    Voice,
    credentials,
    error_of_refusal,
    socket_url,
    source_format,
    speak_url,
)
from voice_fsm.tts.encoding import check_format
from voice_fsm.tts.http_request import PieceRequest, RawFrames
from voice_fsm.tts.reply import FrameSource, Request, speak_script
from voice_fsm.tts.script import Script
from voice_fsm.tts.socket_request import SocketRequest
from voice_fsm.tts.sockets import SocketPool, SpeechSocket, open_speech_socket
from voice_fsm.tts.speed import check_speed
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import RefusedError
from voice_fsm.upstream.http import Deadlines, ask, json_request
from voice_fsm.upstream.retry import RetryPolicy
from voice_fsm.upstream.websocket import background_nursery, derive_ws_url


def _key(text: str) -> str:
    return text.strip()


@attrs.frozen(kw_only=True)
class DeepgramTtsConfig:
    """What the operator chose; a session's options win where they say something.

    Raises:
        ValueError: ``base_url`` is no address of an HTTP service.
    """

    api_key: str = attrs.field(repr=False, converter=_key)
    base_url: str = attrs.field(default="https://api.deepgram.com")
    model_voice: str = "aura-2-asteria-en"
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    retries: RetryPolicy = attrs.field(factory=RetryPolicy)
    max_idle_sockets: int = 4
    """Idle ones count against the account's limit, which is as low as five."""
    idle_socket_s: float = 60.0

    @base_url.validator
    def _check_base_url(self, _: object, value: str) -> None:
        derive_ws_url(value)


@asynccontextmanager
async def open_deepgram_tts(
    config: DeepgramTtsConfig, client: httpx.AsyncClient
) -> AsyncIterator["DeepgramTts"]:
    """Run the provider; leaving closes all of its sockets. ``client`` stays the caller's."""
    async with background_nursery() as nursery:
        pool = SocketPool[Voice](
            nursery,
            partial(_open_socket, config),
            max_idle=config.max_idle_sockets,
            idle_s=config.idle_socket_s,
            suits=suits,
        )
        yield DeepgramTts(config, client, pool)


def _open_socket(config: DeepgramTtsConfig, voice: Voice) -> AbstractAsyncContextManager[UpstreamSocket]:
    return open_speech_socket(
        socket_url(config.base_url, voice),
        credentials(config.api_key),
        config.deadlines.connect_s,
        partial(error_of_refusal, voice=voice),
    )


class DeepgramTts:
    """A `TtsProvider`."""

    name = "deepgram"

    def __init__(self, config: DeepgramTtsConfig, client: httpx.AsyncClient, pool: SocketPool[Voice]) -> None:
        self._config = config
        self._client = client
        self._pool = pool

    def check(self, options: TtsOptions) -> None:
        """Say early whether these options can be served; voices are for the service to know.

        Raises:
            ClientError: UNSUPPORTED_FORMAT, or INVALID_FIELD for the speed.
        """
        if options.output_format not in RAW_ENCODINGS and options.output_format not in FILE_FORMATS:
            check_format(options.output_format)
        check_speed(options, *SPEEDS)

    def prewarm(self, options: TtsOptions) -> None:
        """Open a socket in the background for a reply that may come soon; ignore what cannot be served."""
        with suppress(ClientError):
            self.check(options)
            voice = self._voice(options)
            if voice.source_format not in FILE_FORMATS:
                self._pool.prewarm(voice)

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """List the voices that the key may use.

        Raises:
            ProviderError: see `TtsProvider`.
        """
        config = self._config
        return await list_voices(self._client, config.base_url, config.api_key, config.deadlines)

    def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[Speech]]:
        """Speak one reply; see `TtsProvider`.

        Raises:
            ClientError: as `check`.
            ProviderError: see `speak_script`.
        """
        self.check(options)
        voice = self._voice(options)
        return speak_script(
            pieces,
            options.output_format,
            partial(self._requests, voice),
            self._config.retries,
            source_format=voice.source_format,
            max_piece_chars=MAX_TEXT_CHARS,
        )

    def _voice(self, options: TtsOptions) -> Voice:
        return Voice(
            model=options.voice_id or options.model_id or self._config.model_voice,
            source_format=source_format(options.output_format),
            speed=options.voice_settings.speed,
        )

    async def _requests(self, voice: Voice, script: Script) -> Iterator[Request]:
        await trio.lowlevel.checkpoint()
        if voice.source_format in FILE_FORMATS:
            return (PieceRequest(script, partial(self._ask_for, voice)) for _ in count())
        return (self._socket_request(voice, script) for _ in count())

    def _socket_request(self, voice: Voice, script: Script) -> Request:
        def start(socket: SpeechSocket[Voice], _: list[str]) -> Utterance:
            return Utterance(script, socket)

        return SocketRequest(script, self._pool, voice, start, self._config.deadlines)

    @asynccontextmanager
    async def _ask_for(self, voice: Voice, text: str) -> AsyncIterator[FrameSource]:
        config = self._config
        url, headers = speak_url(config.base_url, voice), credentials(config.api_key)
        request = json_request(self._client, url, {"text": text}, headers)
        try:
            async with ask(
                self._client, request, upstream=Upstream.TTS, deadlines=config.deadlines
            ) as answer:
                yield RawFrames(answer)
        except RefusedError as refusal:
            raise error_of_refusal(refusal, voice) from None
