"""Cartesia's text to speech.

A reply goes over a WebSocket that stays open for the next one, and is opened when the user begins to speak if
none is; MP3, which sockets do not give, goes piece by piece over HTTP.

    async with open_cartesia_tts(config, client) as tts:
        tts.prewarm(options)
        async with tts.speak(pieces, options) as speech: ...
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import Final

import attrs
import httpx
import trio

from voice_fsm.errors import ClientError, Upstream
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import Speech, VoiceInfo
from voice_fsm.tts.cartesia_context import Context
from voice_fsm.tts.cartesia_voices import list_voices
from voice_fsm.tts.cartesia_wire import (
    MP3_FORMATS,
    RAW_ENCODINGS,
    SPEEDS,
    Access,
    Voice,
    error_of_refusal,
    source_format,
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

_LATE_ALIGNMENT_MS: Final = 1000.0
"""Words are told of after the first of their audio. If none is by then, the language has no timestamps."""
_MAX_PIECE_CHARS: Final = 2000


@attrs.frozen(kw_only=True)
class CartesiaTtsConfig:
    """What the operator chose; a session's options win where they say something.

    Raises:
        ValueError: ``base_url`` is no address of an HTTP service.
    """

    api_key: str = attrs.field(repr=False)
    voice_id: str
    base_url: str = attrs.field(default="https://api.cartesia.ai")
    model_id: str = "sonic-3.5"
    version: str = "2026-03-01"
    language: str = "en"
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    retries: RetryPolicy = attrs.field(factory=RetryPolicy)
    max_idle_sockets: int = 16
    idle_socket_s: float = 55.0
    """How long a socket waits for a reply to speak; the service ends it after five minutes, some say one."""

    @base_url.validator
    def _check_base_url(self, _: object, value: str) -> None:
        derive_ws_url(value)


@asynccontextmanager
async def open_cartesia_tts(
    config: CartesiaTtsConfig, client: httpx.AsyncClient
) -> AsyncIterator["CartesiaTts"]:
    """Run the provider; leaving closes all of its sockets. ``client`` stays the caller's."""
    access = Access(base_url=config.base_url, api_key=config.api_key.strip(), version=config.version)
    async with background_nursery() as nursery:
        pool = SocketPool[None](
            nursery,
            partial(_open_socket, access, config.deadlines.connect_s),
            max_idle=config.max_idle_sockets,
            idle_s=config.idle_socket_s,
        )
        yield CartesiaTts(config, access, client, pool)


def _open_socket(access: Access, connect_s: float, _: None) -> AbstractAsyncContextManager[UpstreamSocket]:
    explain = partial(error_of_refusal, voice=None)
    return open_speech_socket(access.socket_url, access.headers(), connect_s, explain)


class CartesiaTts:
    """A `TtsProvider`."""

    name = "cartesia"

    def __init__(
        self, config: CartesiaTtsConfig, access: Access, client: httpx.AsyncClient, pool: SocketPool[None]
    ) -> None:
        self._config = config
        self._access = access
        self._client = client
        self._pool = pool

    def check(self, options: TtsOptions) -> None:
        """Say early whether these options can be served; models and voices are for the service to know.

        Raises:
            ClientError: UNSUPPORTED_FORMAT, or INVALID_FIELD for the speed.
        """
        if options.output_format not in RAW_ENCODINGS and options.output_format not in MP3_FORMATS:
            check_format(options.output_format)
        check_speed(options, *SPEEDS)

    def prewarm(self, options: TtsOptions) -> None:
        """Open a socket in the background for a reply that may come soon; ignore what cannot be served."""
        with suppress(ClientError):
            self.check(options)
            if options.output_format not in MP3_FORMATS:
                self._pool.prewarm(None)

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """List the voices of the account and the public ones.

        Raises:
            ProviderError: see `TtsProvider`.
        """
        return await list_voices(self._client, self._access, self._config.deadlines)

    def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[Speech]]:
        """Speak one reply; see `TtsProvider`.

        Raises:
            ClientError: as `check`.
            ProviderError: see `speak_script`.
        """
        self.check(options)
        config = self._config
        voice = Voice(
            voice_id=options.voice_id or config.voice_id,
            model_id=options.model_id or config.model_id,
            language=config.language,
            source_format=source_format(options.output_format),
            speed=options.voice_settings.speed,
        )
        is_mp3 = voice.source_format in MP3_FORMATS
        return speak_script(
            pieces,
            options.output_format,
            partial(self._requests, voice),
            config.retries,
            source_format=voice.source_format,
            late_alignment_ms=0.0 if is_mp3 else _LATE_ALIGNMENT_MS,
            max_piece_chars=_MAX_PIECE_CHARS,
        )

    async def _requests(self, voice: Voice, script: Script) -> Iterator[Request]:
        await trio.lowlevel.checkpoint()
        if voice.source_format in MP3_FORMATS:
            return (PieceRequest(script, partial(self._ask_for, voice)) for _ in count())
        return (self._context_request(voice, script) for _ in count())

    def _context_request(self, voice: Voice, script: Script) -> Request:
        def start(_: SpeechSocket[None], untold: list[str]) -> Context:
            return Context(voice, script, untold)

        return SocketRequest(script, self._pool, None, start, self._config.deadlines)

    @asynccontextmanager
    async def _ask_for(self, voice: Voice, text: str) -> AsyncIterator[FrameSource]:
        url = f"{self._access.base_url}/tts/bytes"
        body = {**voice.request(), "transcript": text}
        request = json_request(self._client, url, body, self._access.headers())
        try:
            async with ask(
                self._client, request, upstream=Upstream.TTS, deadlines=self._config.deadlines
            ) as answer:
                yield RawFrames(answer)
        except RefusedError as refusal:
            raise error_of_refusal(refusal, voice) from None
