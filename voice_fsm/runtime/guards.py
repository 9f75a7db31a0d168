"""Providers behind a circuit breaker, and providers with another to step in for them."""

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Final, Self

import attrs
import structlog
import trio

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyPart
from voice_fsm.errors import ClientError, ProviderError, Upstream
from voice_fsm.fsm.options import BackendOptions, SttOptions, TtsOptions
from voice_fsm.stt.base import SttLink, SttProvider
from voice_fsm.stt.recording import RecordedSpeech, Transcribe, Transcription
from voice_fsm.tts.base import Speech, SpeechAudio, StandIn, TtsProvider
from voice_fsm.upstream.breaker import Breaker

log = structlog.get_logger()

_OUR_BACKEND: Final = BackendOptions()


class GuardedStt:
    """A recogniser that is left alone while it is ill."""

    def __init__(self, provider: SttProvider, breaker: Breaker | None = None) -> None:
        self.name = provider.name
        self._provider = provider
        self._breaker = breaker or Breaker(Upstream.STT)

    def connect(self, options: SttOptions) -> AbstractAsyncContextManager[SttLink]:
        """See `SttProvider`.

        Opening a link is the call. What becomes of the link later tells nothing of the next one's chances: a
        recogniser that restarts breaks the links of all sessions at once, and is back by then.
        """
        return _GuardedOpening(self._provider.connect(options), self._breaker)


class _GuardedOpening(AbstractAsyncContextManager[SttLink]):
    """Guards the entering of a context; kept as long as the context, and therefore small."""

    def __init__(self, link: AbstractAsyncContextManager[SttLink], breaker: Breaker) -> None:
        self._link = link
        self._breaker = breaker

    async def __aenter__(self) -> SttLink:
        with self._breaker.call():
            return await self._link.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._link.__aexit__(kind, error, traceback)


class GuardedChat:
    """A chat backend that is left alone while it is ill."""

    def __init__(self, provider: ChatProvider, breaker: Breaker | None = None) -> None:
        self.name = provider.name
        self.check = provider.check
        self.forget = provider.forget
        self._provider = provider
        self._breaker = breaker or Breaker(Upstream.CHAT)

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ReplyPart]]:
        """See `ChatProvider`. A client's own backend is none of the others' business."""
        guard = self._breaker.call() if request.backend == _OUR_BACKEND else nullcontext()
        with guard:
            async with self._provider.reply(request) as parts:
                yield parts


class GuardedTts:
    """A synthesiser that is left alone while it is ill."""

    def __init__(self, provider: TtsProvider, breaker: Breaker | None = None) -> None:
        self.name = provider.name
        self.check = provider.check
        self.prewarm = provider.prewarm
        self.voices = provider.voices
        self._provider = provider
        self._breaker = breaker or Breaker(Upstream.TTS)

    @asynccontextmanager
    async def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AsyncIterator[AsyncIterator[Speech]]:
        """See `TtsProvider`."""
        with self._breaker.call():
            async with self._provider.speak(pieces, options) as speech:
                yield _Recovering(speech, self._breaker) if self._breaker.is_open else speech


class _Recovering:
    """What an upstream says that has been ill: its first audio tells all others that it is well.

    A reply lasts as long as it is listened to, and until then they would be turned away.
    """

    def __init__(self, speech: AsyncIterator[Speech], breaker: Breaker) -> None:
        self._speech = speech
        self._breaker = breaker
        self._is_audible = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Speech:
        item = await anext(self._speech)
        if isinstance(item, SpeechAudio) and not self._is_audible:
            self._is_audible = True
            self._breaker.healthy()
        return item


class FallbackStt:
    """A recogniser, and the one that listens while the first cannot be had."""

    def __init__(self, first: SttProvider, second: SttProvider, *, patience_s: float) -> None:
        self.name = first.name
        self._first = first
        self._second = second
        self._patience_s = patience_s

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator[SttLink]:
        """See `SttProvider`. Every new link asks the first again."""
        error: ProviderError | None = None
        with trio.CancelScope(deadline=trio.current_time() + self._patience_s) as opening:
            try:
                async with self._first.connect(options) as link:
                    opening.deadline = math.inf
                    yield link
                    return
            except ProviderError as failure:
                if opening.deadline == math.inf:
                    raise
                error = failure
        log.warning("stt_fallback", code=error.code if error else "stt_timeout", to=self._second.name)
        async with self._second.connect(attrs.evolve(options, model_id=None)) as link:
            yield link


def with_fallback(first: Transcribe, second: Transcribe) -> Transcribe:
    """Have recordings transcribed by the second where the first fails."""

    async def transcribe(recorded: RecordedSpeech) -> Transcription:
        try:
            return await first(recorded)
        except ProviderError as error:
            log.warning("transcription_fallback", code=error.code, status=error.status)
        return await second(recorded)

    return transcribe


class FallbackTts:
    """A synthesiser, and the one that speaks a reply of which the first has said nothing yet.

    Voice and model are the first's own; the second speaks with its default.
    """

    def __init__(self, first: TtsProvider, second: TtsProvider) -> None:
        self.name = first.name
        self.check = first.check
        self.prewarm = first.prewarm
        self.voices = first.voices
        self._first = first
        self._second = second

    @trio.as_safe_channel
    async def speak(self, pieces: AsyncIterable[str], options: TtsOptions) -> AsyncGenerator[Speech]:
        """See `TtsProvider`."""
        remembered = _Remembered(pieces)
        own = attrs.evolve(options, voice_id=None, model_id=None)
        audible, held = False, list[Speech]()
        try:
            async with self._first.speak(remembered, options) as speech:
                async for item in speech:
                    held.append(item)
                    if audible or isinstance(item, SpeechAudio):
                        audible = True
                        for ready in held:
                            yield ready
                        held.clear()
        except ProviderError as error:
            if audible or not self._can_step_in(own):
                raise
            log.warning("tts_fallback", code=error.code, status=error.status, to=self._second.name)
        else:
            return
        yield StandIn(self._second.name)
        async with self._second.speak(remembered.again(), own) as speech:
            async for item in speech:
                yield item

    def _can_step_in(self, options: TtsOptions) -> bool:
        """Whether the second knows the format and the pace that the first was asked for."""
        try:
            self._second.check(options)
        except ClientError:
            return False
        return True


class _Remembered:
    """Pieces of text that can be had again from the start."""

    def __init__(self, source: AsyncIterable[str]) -> None:
        self._source = aiter(source)
        self._taken: list[str] = []
        self._position = 0

    def again(self) -> Self:
        self._position = 0
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._position == len(self._taken):
            self._taken.append(await anext(self._source))
        else:
            await trio.lowlevel.checkpoint()
        self._position += 1
        return self._taken[self._position - 1]
