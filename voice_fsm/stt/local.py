"""Speech to text on this machine: no network, no account, English only.

One model serves all links. It is used by one thread at a time, so local recognition takes at most one core;
who needs more runs more processes. Recognition runs in that thread, the event loop only keeps bytes. Audio
that comes while a step is under way goes into the next one, and while other links wait for the engine a step
leaves partials out: a busy engine gives fewer of them, not later ones.

**Falling behind.** A link's backlog is the audio it was given that no finished step has covered. `send`
waits while the backlog is over a bound of N seconds, so audio may be fed as fast as it is understood. A step
covers at most one second, so in N seconds of waiting an engine that keeps up finishes several; a link that
is still over the bound then is slower than real time, and fails with ``stt_overloaded``.
"""

import os
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import numpy as np
import trio

from voice_fsm.audio import AudioFormat, Resampler, ulaw_decode
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.base import Transcript
from voice_fsm.stt.listener import Listener, ListeningRules, SpeechEngine
from voice_fsm.stt.moonshine import MODEL_NAME, SAMPLE_RATE_HZ, EngineError, Moonshine, Samples
from voice_fsm.stt.turnstile import Turnstile

MAX_BACKLOG_S: Final = 3.0
STEP_S: Final = 0.2
"""Audio worth a step. The detector costs about 10 ms of CPU time a second in steps of this size."""
MAX_STEP_S: Final = 1.0
"""More goes into further steps: links take turns, and a cancelled step is soon over."""
MAX_WAIT_S: Final = 1.0
"""No new link is opened while a step waits longer than this for the engine."""

_TALKER_COST: Final = 0.2
"""CPU seconds for a second of unbroken speech on a core of an EPYC: 0.15 to 0.24 alone, 0.08 among ten."""
_TALKING_SHARE: Final = 0.5
"""In a conversation with an assistant, at most half the time is the user's."""
_CLOSE_S: Final = 5.0
_ENGLISH: Final = re.compile(r"en|eng|en[-_]\w+", re.IGNORECASE)


def default_max_sessions(cpu_count: int) -> int:
    """How many conversations one process can follow: 10, or 5 where the only core has other work too."""
    cores_to_use = 1.0 if cpu_count > 1 else 0.5
    return int(cores_to_use / (_TALKER_COST * _TALKING_SHARE))


@asynccontextmanager
async def open_local_stt(
    *, max_sessions: int | None = None, max_backlog_s: float = MAX_BACKLOG_S
) -> AsyncIterator["LocalStt"]:
    """Load the model; free it on leaving, when all links have been left.

    ``max_sessions`` ``None`` is `default_max_sessions` of this machine.

    Raises:
        ProviderError: ``stt_unavailable``: not installed, or of no use on this machine.
    """
    turnstile = Turnstile()
    engine = await turnstile.call(Moonshine.load)
    try:
        yield LocalStt(
            engine,
            turnstile,
            max_sessions=max_sessions or default_max_sessions(os.cpu_count() or 1),
            max_backlog_s=max_backlog_s,
        )
    finally:
        # In turn: freeing the model under a step that is still at work would crash.
        with trio.move_on_after(_CLOSE_S, shield=True):
            async with turnstile.turn():
                engine.close()


class LocalStt:
    """The recogniser of this process; satisfies `SttProvider`."""

    name = "local"

    def __init__(
        self, engine: SpeechEngine, turnstile: Turnstile, *, max_sessions: int, max_backlog_s: float
    ) -> None:
        self._engine = engine
        self._turnstile = turnstile
        self._max_sessions = max_sessions
        self._max_backlog_s = max_backlog_s
        self._open_links = 0

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator["LocalSttLink"]:
        """Open a link.

        All of the options count, except ``model_id``: there is one model. Times of words are estimates, see
        `voice_fsm.stt.listener.estimate_words`.

        Raises:
            ProviderError: ``stt_overloaded``: one more could not be kept up with.
            ClientError: another language than English, a compressed format, a value out of range.
        """
        rules, decoder = _listening_rules(options), _decoder(options.audio_format)
        if self._open_links >= self._max_sessions or self._turnstile.longest_wait_s > MAX_WAIT_S:
            raise ProviderError(
                Upstream.STT,
                ProviderFault.OVERLOADED,
                "Speech recognition on this server has no room for another session. Try again later.",
            )
        link = LocalSttLink(self._engine, rules, decoder, self._turnstile, max_backlog_s=self._max_backlog_s)
        self._open_links += 1
        try:
            await trio.lowlevel.checkpoint()
            yield link
        finally:
            self._open_links -= 1
            link.close()


class LocalSttLink:
    """One session's link; satisfies `SttLink`. Recognition happens inside the iteration."""

    def __init__(
        self,
        engine: SpeechEngine,
        rules: ListeningRules,
        decoder: "_Decoder",
        turnstile: Turnstile,
        *,
        max_backlog_s: float,
    ) -> None:
        self._id = uuid.uuid4().hex
        self._listener = Listener(engine, rules)
        self._rules = rules
        self._decoder = decoder
        self._turnstile = turnstile
        self._max_backlog_s = max_backlog_s
        self._inbox = [bytearray()]
        """Audio as it came; each commit begins a new entry."""
        self._backlog_bytes = 0
        self._transcripts: list[Transcript] = []
        self._changed = trio.Event()
        self._closed = False
        self._failure: ProviderError | None = None

    @property
    def session_id(self) -> str:
        """A random name: the engine has none of its own."""
        return self._id

    @property
    def config(self) -> Mapping[str, Any]:
        """What is in force, in the words of `session.configure`."""
        return {
            "model_id": MODEL_NAME,
            "language_code": "en",
            "audio_format": str(self._decoder.audio_format),
            "sample_rate": self._decoder.audio_format.sample_rate_hz,
            "commit_strategy": "vad" if self._rules.commit_on_silence else "manual",
            "vad_threshold": self._rules.threshold,
            "vad_silence_threshold_secs": self._rules.silence_s,
            "min_speech_duration_ms": round(self._rules.min_speech_s * 1000),
            "min_silence_duration_ms": round(self._rules.pause_s * 1000),
            "include_timestamps": self._rules.timestamps,
        }

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that were sent and that no finished step has covered."""
        return self._decoder.audio_format.duration_ms(self._backlog_bytes) / 1000

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:  # noqa: ARG002  # the engine takes no context
        """Hand over audio; waits while the backlog is too long.

        Raises:
            ProviderError: ``stt_overloaded``: the engine is slower than real time.
        """
        self._raise_if_broken()
        self._inbox[-1] += audio
        self._backlog_bytes += len(audio)
        self._notify()
        with trio.move_on_after(self._max_backlog_s) as patience:
            await trio.lowlevel.checkpoint()
            while self.backlog_s > self._max_backlog_s:
                await self._changed.wait()
                self._raise_if_broken()
        if patience.cancelled_caught:
            raise self._fail(
                ProviderFault.OVERLOADED, "Speech recognition on this server fell behind. Try again later."
            )

    async def commit(self) -> None:
        """End the utterance with the audio sent so far."""
        self._raise_if_broken()
        self._inbox.append(bytearray())
        self._notify()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Drop what is pending; who waits for room or for transcripts learns of the end."""
        self._closed = True
        self._inbox = [bytearray()]
        self._notify()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transcript:
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self._transcripts:
                return self._transcripts.pop(0)
            self._raise_if_broken()
            if len(self._inbox) > 1 or self.backlog_s >= STEP_S:
                await self._step()
            else:
                await self._changed.wait()

    async def _step(self) -> None:
        async with self._turnstile.turn():
            audio, ends_utterance = self._take()
            understand = self._conclude if ends_utterance else self._understand
            try:
                self._transcripts += await self._turnstile.call(understand, audio)
            except trio.Cancelled:  # the step had not begun
                self._give_back(audio, ends_utterance)
                raise
            except EngineError as error:
                message = "Speech recognition on this server failed."
                raise self._fail(ProviderFault.SERVER_ERROR, message) from error
        self._backlog_bytes -= len(audio)
        self._notify()

    def _take(self) -> tuple[bytes, bool]:
        first = self._inbox[0]
        size = self._decoder.audio_format.size_bytes(MAX_STEP_S * 1000)
        audio = bytes(first[:size])
        del first[:size]
        ends_utterance = not first and len(self._inbox) > 1
        if ends_utterance:
            del self._inbox[0]
        return audio, ends_utterance

    def _give_back(self, audio: bytes, ends_utterance: bool) -> None:
        if ends_utterance:
            self._inbox.insert(0, bytearray())
        self._inbox[0][:0] = audio

    def _understand(self, audio: bytes) -> list[Transcript]:
        return self._listener.hear(self._decoder.samples(audio), hurried=self._turnstile.is_contended)

    def _conclude(self, audio: bytes) -> list[Transcript]:
        transcripts = self._listener.hear(self._decoder.last_samples(audio), hurried=True)
        return [*transcripts, self._listener.commit()]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _fail(self, fault: ProviderFault, message: str) -> ProviderError:
        self._failure = ProviderError(Upstream.STT, fault, message)
        self._notify()
        return self._failure

    def _raise_if_broken(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the link was closed")
        if self._failure is not None:
            raise self._failure


class _Decoder:
    """A link's audio as the engine wants it."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self.audio_format = audio_format
        self._resampler = self._new_resampler()

    def samples(self, audio: bytes) -> Samples:
        return _floats(self._resampler.feed(self._pcm(audio)))

    def last_samples(self, audio: bytes) -> Samples:
        """The same before a commit, with the up to 70 ms that the resampler would keep for later."""
        resampler, self._resampler = self._resampler, self._new_resampler()
        return _floats(resampler.feed(self._pcm(audio), last=True))

    def _pcm(self, audio: bytes) -> bytes:
        return ulaw_decode(audio) if self.audio_format.codec == "ulaw" else audio

    def _new_resampler(self) -> Resampler:
        return Resampler(self.audio_format.sample_rate_hz, SAMPLE_RATE_HZ)


def _floats(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def _decoder(audio_format: AudioFormat) -> _Decoder:
    if audio_format.codec not in ("pcm", "ulaw"):
        raise ClientError(
            ClientFault.UNSUPPORTED_FORMAT,
            f"Speech recognition on this server does not read {audio_format}; send PCM or mu-law.",
            field="stt.audio_format",
        )
    return _Decoder(audio_format)


def _listening_rules(options: SttOptions) -> ListeningRules:
    if options.language_code is not None and not _ENGLISH.fullmatch(options.language_code):
        raise ClientError(
            ClientFault.INVALID_FIELD,
            f"Speech recognition on this server understands English only, not {options.language_code!r}.",
            field="stt.language_code",
        )
    default = ListeningRules()
    pause_s = (
        _within("min_silence_duration_ms", options.min_silence_duration_ms, 0, 5000, default.pause_s * 1000)
        / 1000
    )
    silence_s = _within(
        "vad_silence_threshold_secs", options.vad_silence_threshold_secs, 0.1, 10, default.silence_s
    )
    min_speech_ms = options.min_speech_duration_ms
    return ListeningRules(
        commit_on_silence=options.commit_strategy == "vad",
        threshold=_within("vad_threshold", options.vad_threshold, 0.1, 0.9, default.threshold),
        silence_s=max(silence_s, pause_s),
        pause_s=pause_s,
        min_speech_s=_within("min_speech_duration_ms", min_speech_ms, 0, 5000, default.min_speech_s * 1000)
        / 1000,
        timestamps=options.include_timestamps,
    )


def _within(field: str, value: float | None, low: float, high: float, default: float) -> float:
    if value is None:
        return default
    if not low <= value <= high:
        raise ClientError(
            ClientFault.INVALID_FIELD, f"{field} is {value}, outside {low} to {high}.", field=f"stt.{field}"
        )
    return value
