"""ElevenLabs text to speech.

A reply whose text is still being written is spoken over a WebSocket that stays open for the next one. If none
is ready, it is opened when the user begins to speak (`ElevenLabsTts.prewarm`), or else when `speak` begins,
before the chat's first word. A text known as a whole goes over HTTP unless a socket is ready, for a pooled
connection saves the handshake. What has no WebSocket is spoken piece by piece over HTTP.

    async with open_elevenlabs_tts(config, client) as tts:
        tts.prewarm(options)
        async with tts.speak(pieces, options) as speech: ...
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count
from typing import Final, Literal

import attrs
import httpx

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import Speech, VoiceInfo
from voice_fsm.tts.elevenlabs_context import Context, overhear, suits
from voice_fsm.tts.elevenlabs_http import Endpoint, HttpRequest
from voice_fsm.tts.elevenlabs_voices import list_voices
from voice_fsm.tts.elevenlabs_wire import (
    STREAM_FORMATS,
    VOICE_ID,
    Voice,
    credentials,
    error_of_refusal,
    socket_url,
)
from voice_fsm.tts.reply import Request, speak_script
from voice_fsm.tts.script import Script
from voice_fsm.tts.socket_request import SocketRequest
from voice_fsm.tts.sockets import SocketPool, SpeechSocket, open_speech_socket
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.http import Deadlines
from voice_fsm.upstream.retry import RetryPolicy
from voice_fsm.upstream.websocket import background_nursery, derive_ws_url

_PEEK_S: Final = 0.005
"""How long the end of the text may take to show; spent before the first text is there, if it is not."""
_MAX_WHOLE_CHARS: Final = 5000
"""What every model takes in one request."""
_RANGES: Final = {
    "stability": (0.0, 1.0),
    "similarity_boost": (0.0, 1.0),
    "style": (0.0, 1.0),
    "speed": (0.7, 1.2),
}


def _model_id(name: str) -> str:
    """Correct the spelling of older settings, ``eleven_turbo_v2.5``."""
    return name.replace(".", "_")


def _key(text: str) -> str:
    return text.strip()


def _address(text: str) -> str:
    return text.strip().rstrip("/")


@attrs.frozen(kw_only=True)
class ElevenLabsTtsConfig:
    """What the operator chose; a session's options win where they say something.

    Raises:
        ValueError: ``base_url`` is no address of an HTTP service.
    """

    api_key: str = attrs.field(repr=False, converter=_key)
    voice_id: str
    base_url: str = attrs.field(default="https://api.elevenlabs.io", converter=_address)
    model_id: str = attrs.field(default="eleven_turbo_v2_5", converter=_model_id)
    stability: float = 0.9
    similarity_boost: float = 0.9
    alignment: bool = True
    """Ask when each character sounds. It makes messages larger, and what was heard exact to the word."""
    mode: Literal["auto", "http", "websocket"] = "auto"
    """``websocket`` still leaves to HTTP what has no WebSocket; ``http`` speaks piece by piece."""
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    retries: RetryPolicy = attrs.field(factory=RetryPolicy)
    max_idle_sockets: int = 16
    idle_socket_s: float = 120.0
    """How long a socket waits for a reply to speak; the service ends it after 180 s."""

    @base_url.validator
    def _check_base_url(self, _: object, value: str) -> None:
        derive_ws_url(value)
        if not value.startswith("http"):
            raise ValueError("the base address of ElevenLabs begins with https:// or http://")


@asynccontextmanager
async def open_elevenlabs_tts(
    config: ElevenLabsTtsConfig, client: httpx.AsyncClient
) -> AsyncIterator["ElevenLabsTts"]:
    """Run the provider; leaving closes all of its sockets. ``client`` stays the caller's."""
    async with background_nursery() as nursery:
        pool = SocketPool[Voice](
            nursery,
            partial(_open_socket, config),
            max_idle=config.max_idle_sockets,
            idle_s=config.idle_socket_s,
            suits=suits,
            overhear=overhear,
        )
        yield ElevenLabsTts(config, client, pool)


def _open_socket(config: ElevenLabsTtsConfig, voice: Voice) -> AbstractAsyncContextManager[UpstreamSocket]:
    url, headers = socket_url(config.base_url, voice), credentials(config.api_key)
    return open_speech_socket(url, headers, config.deadlines.connect_s, error_of_refusal)


class ElevenLabsTts:
    """A `TtsProvider`."""

    name = "elevenlabs"

    def __init__(
        self, config: ElevenLabsTtsConfig, client: httpx.AsyncClient, pool: SocketPool[Voice]
    ) -> None:
        self._config = config
        self._client = client
        self._pool = pool

    def check(self, options: TtsOptions) -> None:
        """Say early whether these options can be served.

        Raises:
            ClientError: UNSUPPORTED_FORMAT, or INVALID_FIELD for a voice or its settings.
        """
        self._voice(options)

    def prewarm(self, options: TtsOptions) -> None:
        """Open a socket in the background for a reply that may come soon; ignore what cannot be served."""
        try:
            voice = self._voice(options)
        except ClientError:
            return
        if self._uses_socket(voice):
            self._pool.prewarm(voice)

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """List the voices of the account and those that come with it.

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
        voice = self._voice(options)
        plan = partial(self._requests, voice)
        return speak_script(pieces, voice.output_format, plan, self._config.retries)

    async def _requests(self, voice: Voice, script: Script) -> Iterator[Request]:
        """Choose the way: one request for the whole reply, or as many as there are pieces."""
        config = self._config
        endpoint = Endpoint(
            client=self._client,
            base_url=config.base_url,
            api_key=config.api_key,
            deadlines=config.deadlines,
        )
        if not self._uses_socket(voice):
            return (HttpRequest(endpoint, voice, script) for _ in count())
        if config.mode == "auto" and not self._pool.has(voice):
            whole = await script.whole(within_s=_PEEK_S, max_chars=_MAX_WHOLE_CHARS)
            if whole is not None:
                return iter([HttpRequest(endpoint, voice, script, text=whole)])

        def start(socket: SpeechSocket[Voice], untold: list[str]) -> Context:
            return Context(voice, script, socket, untold)

        return iter([SocketRequest(script, self._pool, voice, start, config.deadlines)])

    def _uses_socket(self, voice: Voice) -> bool:
        return voice.has_socket and self._config.mode != "http"

    def _voice(self, options: TtsOptions) -> Voice:
        config, asked = self._config, options.voice_settings
        voice = Voice(
            voice_id=options.voice_id or config.voice_id,
            model_id=_model_id(options.model_id or config.model_id),
            output_format=options.output_format,
            settings=attrs.evolve(
                asked,
                stability=config.stability if asked.stability is None else asked.stability,
                similarity_boost=(
                    config.similarity_boost if asked.similarity_boost is None else asked.similarity_boost
                ),
            ),
            alignment=config.alignment,
        )
        _check_voice(voice)
        return voice


def _check_voice(voice: Voice) -> None:
    if str(voice.output_format) not in STREAM_FORMATS:
        raise ClientError(
            ClientFault.UNSUPPORTED_FORMAT,
            f"ElevenLabs does not speak {voice.output_format}.",
            field="tts.output_format",
        )
    if VOICE_ID.fullmatch(voice.voice_id) is None:
        raise ClientError(ClientFault.INVALID_FIELD, "This is no voice of ElevenLabs.", field="tts.voice_id")
    for name, (low, high) in _RANGES.items():
        value = getattr(voice.settings, name)
        if value is not None and not low <= value <= high:
            raise ClientError(
                ClientFault.INVALID_FIELD,
                f"ElevenLabs takes a {name} from {low} to {high}.",
                field=f"tts.voice_settings.{name}",
            )
