"""Texts in, speech out: whoever asks for what is being spoken already listens along.

    async with speech.synthesize(SpeechRequest(text="Good morning!", options=options)) as synthesis:
        async for data in synthesis.audio(): ...

A synthesis belongs to the service, not to the one that asked first: it goes on while anybody listens, at the
pace of its maker and not of its listeners, and ends when the last of them leaves.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import attrs
import structlog
import trio

from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream, VoiceError
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.metrics import Metrics, SpeechSource, SynthesisOutcome
from voice_fsm.speech.cache import SpeechCache
from voice_fsm.speech.pieces import Pieces, split
from voice_fsm.speech.recording import AudioOnly, Listening, Recording
from voice_fsm.tts.base import StandIn, TtsProvider
from voice_fsm.upstream.websocket import background_nursery

log = structlog.get_logger()

_KEY_VERSION: Final = 1
"""Changes when the same request may sound different, or is stored differently."""


@attrs.frozen(kw_only=True)
class SpeechRequest:
    """A text and how it is to be spoken."""

    text: str
    options: TtsOptions = TtsOptions()
    cache: bool = True
    """False: synthesize it for this request alone, look nowhere and keep nothing."""


@attrs.frozen(kw_only=True)
class SpeechConfig:
    """What the service may take."""

    identity: str = ""
    """Whatever decides how a text sounds and is not in the request: the provider and its settings."""
    max_chars: int = 5000
    concurrency: int = 8
    """Syntheses at a time."""
    max_waiting: int = 64
    """Syntheses that may wait for their turn; the next is refused."""
    max_heard_bytes: int = 256_000_000
    """Audio of all that is listened to. More is begun only below it: slow listeners hold what was made."""


class Synthesis:
    """One listener's speech: iterate over it once, as `Speech` or by `audio`."""

    def __init__(self, recording: Recording, source: SpeechSource) -> None:
        self._listening = Listening(recording)
        self.shared = source == "joined"
        """Somebody else's request had begun it, and it goes on."""
        self.cached = source in {"memory", "disk"}
        """It was there already, as a whole."""

    def __aiter__(self) -> Listening:
        return self._listening

    def audio(self) -> AudioOnly:
        """The bytes of audio alone, in the request's ``output_format``."""
        return AudioOnly(self._listening)


@asynccontextmanager
async def open_speech(
    tts: TtsProvider,
    config: SpeechConfig,
    cache: SpeechCache | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator["SpeechService"]:
    """Run the service; leaving ends all of its syntheses. Without ``cache`` nothing is kept."""
    async with background_nursery() as nursery:
        yield SpeechService(tts, config, cache or SpeechCache(0), metrics or Metrics(), nursery)


class SpeechService:
    """Shared by all who want a text spoken."""

    def __init__(
        self,
        tts: TtsProvider,
        config: SpeechConfig,
        cache: SpeechCache,
        metrics: Metrics,
        nursery: trio.Nursery,
    ) -> None:
        self._tts = tts
        self._config = config
        self._cache = cache
        self._metrics = metrics
        metrics.watch_cache(lambda: cache.memory_bytes)
        self._nursery = nursery
        self._slots = trio.CapacityLimiter(config.concurrency)
        self._recordings: dict[str, Recording] = {}
        """Those being made or kept, which others may join."""
        self._listened_to: set[Recording] = set()

    @property
    def max_chars(self) -> int:
        """The longest text that is spoken, in characters."""
        return self._config.max_chars

    def check(self, request: SpeechRequest) -> None:
        """Say early whether a request can be served.

        Raises:
            ClientError: ``empty_text``, ``text_too_long``, or what the provider says of the options.
        """
        if not request.text.strip():
            raise _empty()
        if len(request.text) > self._config.max_chars:
            raise ClientError(
                ClientFault.TEXT_TOO_LONG,
                f"The text has {len(request.text)} characters; this server speaks "
                f"{self._config.max_chars} at a time.",
                field="text",
            )
        self._tts.check(request.options)

    @asynccontextmanager
    async def synthesize(self, request: SpeechRequest) -> AsyncIterator[Synthesis]:
        """Speak a text. Entering waits for its first audio; leaving stops listening.

        Raises:
            ClientError: on entering, as `check`; or ``empty_text``, when nothing of it can be pronounced.
            ProviderError: on entering or while iterating.
        """
        self.check(request)
        key = _key(request, self._config.identity)
        recording = self._recordings.get(key) if request.cache else None
        source: SpeechSource = "synthesis"
        if recording is None or recording.is_abandoned:
            recording = self._begin(request, key)
        else:
            source = "memory" if recording.is_complete else "joined"
        with self._heard(recording):
            await recording.wait_audible()
            if recording.origin != "synthesis":
                source = recording.origin
            self._metrics.speech_requested(source)
            if source in {"memory", "disk"}:
                self._metrics.cache_gave(recording.audio_bytes)
            yield Synthesis(recording, source)

    def _begin(self, request: SpeechRequest, key: str) -> Recording:
        if sum(recording.audio_bytes for recording in self._listened_to) > self._config.max_heard_bytes:
            raise _overloaded()
        recording = Recording()
        if request.cache:
            self._recordings[key] = recording
        self._nursery.start_soon(self._make, recording, request, key)
        return recording

    @contextmanager
    def _heard(self, recording: Recording) -> Iterator[None]:
        self._listened_to.add(recording)
        try:
            with recording.heard():
                yield
        finally:
            if not recording.is_heard:
                self._listened_to.discard(recording)

    async def _make(self, recording: Recording, request: SpeechRequest, key: str) -> None:
        try:
            with recording.scope:
                if not (request.cache and await self._recall(recording, key)):
                    await self._synthesize(recording, request)
                    if request.cache and not any(isinstance(item, StandIn) for item in recording.items):
                        await self._cache.keep(key, recording.items)
        except VoiceError as error:
            recording.fail(error)
        except Exception as error:
            log.exception("synthesis_failed")
            recording.fail(error)
        finally:
            if self._recordings.get(key) is recording:
                del self._recordings[key]
            recording.fail(_provider_error(ProviderFault.UNAVAILABLE, "Speech synthesis has been stopped."))

    async def _recall(self, recording: Recording, key: str) -> bool:
        """Fill a recording from the cache, if that has it."""
        found = await self._cache.find(key)
        if found is None:
            return False
        recording.origin, items = found
        for item in items:
            recording.add(item)
        recording.finish()
        return True

    async def _synthesize(self, recording: Recording, request: SpeechRequest) -> None:
        outcome: SynthesisOutcome = "abandoned"
        try:
            await self._speak(recording, request)
            outcome = "completed"
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._metrics.synthesis_ended(outcome, recording.audio_bytes)

    async def _speak(self, recording: Recording, request: SpeechRequest) -> None:
        pieces = await split(request.text)
        if not pieces:
            raise _empty()
        if self._slots.statistics().tasks_waiting >= self._config.max_waiting:
            raise _overloaded()
        async with self._slots, self._tts.speak(Pieces(pieces), request.options) as speech:
            async for item in speech:
                recording.add(item)
        if not recording.audio_bytes:
            raise _provider_error(ProviderFault.BAD_RESPONSE, "The voice gave no audio for this text.")
        recording.finish()


def _key(request: SpeechRequest, identity: str) -> str:
    """What is the same for all requests that sound the same."""
    facts = [_KEY_VERSION, identity, attrs.asdict(request.options), request.text]
    # ASCII, for half a surrogate pair may be in a text and not in UTF-8.
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("ascii")).hexdigest()


def _overloaded() -> ProviderError:
    return _provider_error(
        ProviderFault.OVERLOADED, "This server speaks as many texts as it can at a time. Try again later."
    )


def _empty() -> ClientError:
    return ClientError(ClientFault.EMPTY_TEXT, "The text holds nothing to pronounce.", field="text")


def _provider_error(fault: ProviderFault, message: str) -> ProviderError:
    return ProviderError(Upstream.TTS, fault, message)
