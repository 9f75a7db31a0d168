"""One session's link to the local recogniser.

Recognition happens in steps inside the iteration; the event loop only keeps bytes.

**Falling behind.** A link's backlog is the audio it was given that no finished step has covered. `send`
waits while the backlog is over a bound of N seconds, so audio may be fed as fast as it is understood. A step
covers at most one second, so in N seconds of waiting an engine that keeps up finishes several; a link that
is still over the bound then is slower than real time, and fails with ``stt_overloaded``.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import Resampler, ulaw_decode
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.stt.base import Transcript
from voice_fsm.stt.listener import Listener, ListeningRules, SpeechEngine
from voice_fsm.stt.moonshine import MODEL_NAME, SAMPLE_RATE_HZ, EngineError, Samples
from voice_fsm.stt.turnstile import Turnstile
from voice_fsm.vad.engines import ThoroughJudge

STEP_S: Final = 0.2
"""Audio worth a step."""
MAX_STEP_S: Final = 1.0
"""More goes into further steps: links take turns, and a cancelled step is soon over."""


class LocalSttLink:
    """One session's link; satisfies `SttLink`."""

    def __init__(
        self,
        engine: SpeechEngine,
        judge: ThoroughJudge,
        rules: ListeningRules,
        audio_format: AudioFormat,
        turnstile: Turnstile,
        *,
        max_backlog_s: float,
    ) -> None:
        self._id = uuid.uuid4().hex
        self._listener = Listener(engine, judge, rules)
        self._rules = rules
        self._audio_format = audio_format
        self._decoder = Decoder(audio_format)
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
            "audio_format": str(self._audio_format),
            "sample_rate": self._audio_format.sample_rate_hz,
            "commit_strategy": "vad" if self._rules.commit_on_silence else "manual",
            "vad_threshold": self._rules.threshold,
            "vad_silence_threshold_secs": self._rules.silence_s,
            "min_speech_duration_ms": round(self._rules.min_speech_s * 1000),
            "min_silence_duration_ms": round(self._rules.pause_s * 1000),
            "include_timestamps": self._rules.timestamps,
            "timestamps": "estimated",
        }

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that were sent and that no finished step has covered."""
        return self._audio_format.duration_ms(self._backlog_bytes) / 1000

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:  # noqa: ARG002  # the engine takes no context
        """Hand over audio; waits while the backlog is too long.

        Raises:
            ProviderError: ``stt_overloaded``: the engine is slower than real time.
        """
        self._raise_if_broken()
        self._keep(audio)
        with trio.move_on_after(self._max_backlog_s) as patience:
            await trio.lowlevel.checkpoint()
            while self.backlog_s > self._max_backlog_s:
                await self._changed.wait()
                self._raise_if_broken()
        if patience.cancelled_caught:
            raise self._fail(
                ProviderFault.OVERLOADED, "Speech recognition on this server fell behind. Try again later."
            )

    def send_now(self, audio: bytes) -> bool:
        """Hand over audio if the backlog is short enough; see `SttLink`."""
        if self._closed or self._failure is not None or self.backlog_s > self._max_backlog_s:
            return False
        self._keep(audio)
        return True

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
        size = self._audio_format.size_bytes(MAX_STEP_S * 1000)
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

    def _keep(self, audio: bytes) -> None:
        self._inbox[-1] += audio
        self._backlog_bytes += len(audio)
        self._notify()

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


class Decoder:
    """A link's audio as the engine wants it."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._is_ulaw = audio_format.codec == "ulaw"
        self._sample_rate_hz = audio_format.sample_rate_hz
        self._resampler = self._new_resampler()

    def samples(self, audio: bytes) -> Samples:
        """The next audio, less what the resampler keeps for later."""
        return _floats(self._resampler.feed(self._pcm(audio)))

    def last_samples(self, audio: bytes) -> Samples:
        """The last audio before a commit, with the up to 70 ms that were kept."""
        resampler, self._resampler = self._resampler, self._new_resampler()
        return _floats(resampler.feed(self._pcm(audio), last=True))

    def _pcm(self, audio: bytes) -> bytes:
        return ulaw_decode(audio) if self._is_ulaw else audio

    def _new_resampler(self) -> Resampler:
        return Resampler(self._sample_rate_hz, SAMPLE_RATE_HZ)


def _floats(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
