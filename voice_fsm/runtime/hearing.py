"""A session's hearing: one link to the recogniser after another, for as long as the session wants one."""

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream, VoiceError
from voice_fsm.fsm.events import AnyEvent, Committed, Partial, SttFailed, SttOpened, Word
from voice_fsm.fsm.options import SttOptions
from voice_fsm.metrics import Metrics
from voice_fsm.runtime.companding import Companding
from voice_fsm.runtime.groups import first_error
from voice_fsm.runtime.microphone import Microphone
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, SttLink, SttProvider

log = structlog.get_logger()

STEADY_S: Final = 10.0
"""A link that lasted so long was a good one: the next starts without a delay."""


class Hearing:
    """Gives the recogniser what the microphone takes in, and the session what the recogniser makes of it.

    A link that breaks is made again, with growing pauses. When there was none for ``give_up_s``, all told
    since the last good one, the session is told, and stays deaf until it asks anew.
    """

    def __init__(
        self,
        provider: SttProvider,
        *,
        connect_s: float,
        give_up_s: float,
        step: Callable[[AnyEvent], None],
        lag_s: float,
        metrics: Metrics,
        companding: Companding,
    ) -> None:
        self._provider = provider
        self._connect_s = connect_s
        self._give_up_s = give_up_s
        self._step = step
        self._lag_s = lag_s
        self._metrics = metrics
        self._companding = companding
        self._options: SttOptions | None = None
        self._wanted = trio.Event()
        self._scope = trio.CancelScope()
        self.microphone: Microphone | None = None
        """Where audio goes; ``None`` while nobody would listen to it."""

    def ensure(self, options: SttOptions) -> bool:
        """Have a link with these options; one that is up, or under way, with the same options stays.

        Tells whether there is to be a new one, which knows nothing of what the old one heard.
        """
        if options == self._options:
            return False
        self._options = options
        self.microphone = Microphone(
            options.audio_format,
            wordless_s=self._lag_s,
            tell_lost=partial(self._metrics.dropped, "recogniser_away"),
            tell_kept=self._companding.add,
        )
        self._scope.cancel()
        self._wanted.set()
        return True

    async def run(self) -> None:
        """Keep the link that was asked for; never returns."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            options, microphone = self._options, self.microphone
            if options is not None and microphone is not None:
                with trio.CancelScope() as self._scope:
                    error = await self._keep_linked(options, microphone)
                    self._options = self.microphone = None
                    log.warning("stt_given_up", code=error.code, provider=self._provider.name)
                    self._step(
                        SttFailed(
                            at_s=trio.current_time(),
                            code=error.code,
                            message=error.message,
                            field=error.field,
                            retryable=error.retryable,
                        )
                    )

    async def _keep_linked(self, options: SttOptions, microphone: Microphone) -> VoiceError:
        """Make links until there is no hope; gives the error that took it away."""
        attempt, away_s = 0, 0.0
        while True:
            began_s = trio.current_time()
            error, lasted_s = await self._use_link(options, microphone)
            if isinstance(error, ProviderError):
                self._metrics.upstream_failed(error)
            if lasted_s > STEADY_S:
                attempt, away_s = 0, 0.0
            else:
                away_s += trio.current_time() - began_s - lasted_s
            delay_s = _pause_s(attempt, error)
            away_s += delay_s
            if not error.retryable or away_s > self._give_up_s:
                return error
            log.info("stt_link_lost", code=error.code, provider=self._provider.name, again_in_s=delay_s)
            attempt += 1
            await trio.sleep(delay_s)

    async def _use_link(self, options: SttOptions, microphone: Microphone) -> tuple[VoiceError, float]:
        """Open one link and use it until it breaks; gives the error that broke it, and how long it lasted."""
        error: VoiceError | None = None
        opened_s: float | None = None
        with trio.CancelScope(deadline=trio.current_time() + self._connect_s) as opening:
            try:
                async with self._provider.connect(options) as link:
                    opening.deadline = math.inf
                    opened_s = trio.current_time()
                    microphone.rewind()
                    self._step(
                        SttOpened(at_s=trio.current_time(), session_id=link.session_id, config=link.config)
                    )
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._send, link, microphone)
                        await self._receive(link, microphone)
                        nursery.cancel_scope.cancel()
            except* VoiceError as group:
                error = first_error(group)
        if opening.cancelled_caught:
            error = ProviderError(
                Upstream.STT, ProviderFault.TIMEOUT, "Speech recognition did not get ready in time."
            )
        error = error or ProviderError(
            Upstream.STT, ProviderFault.LOST, "The link to speech recognition was closed."
        )
        return error, 0.0 if opened_s is None else trio.current_time() - opened_s

    async def _send(self, link: SttLink, microphone: Microphone) -> None:
        """Send what `Microphone.put` cannot, because the link would have to wait for it."""
        while True:
            heard = await microphone.take(link.send_now)
            if heard.audio:
                await link.send(heard.audio, previous_text=microphone.previous_text)
            if heard.commit:
                await link.commit()

    async def _receive(self, link: SttLink, microphone: Microphone) -> None:
        async for transcript in link:
            now_s = trio.current_time()
            match transcript:
                case PartialTranscript():
                    microphone.heard_words()
                    self._step(Partial(at_s=now_s, text=transcript.text))
                case CommittedTranscript():
                    microphone.committed(transcript.text)
                    words = _later(transcript.words, microphone.link_began_s)
                    self._step(Committed(at_s=now_s, text=transcript.text, words=words))


def _later(words: tuple[Word, ...], by_s: float) -> tuple[Word, ...]:
    """Times of a link's audio as times of the session's."""
    if not by_s:
        return words
    return tuple(Word(word.text, word.start_s + by_s, word.end_s + by_s) for word in words)


def _pause_s(attempt: int, error: VoiceError) -> float:
    """Doubling from 0.25 s to 5 s, less up to a quarter so that sessions do not march in step.

    It is longer where the recogniser asks for that.
    """
    doubled_s: float = min(0.25 * 2**attempt, 5.0)
    asked_s = error.retry_after_s if isinstance(error, ProviderError) else None
    return max(doubled_s * random.uniform(0.75, 1.0), asked_s or 0.0)  # noqa: S311  # no secret
