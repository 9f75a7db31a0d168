"""Microphone audio on its way to the recogniser, kept until the recogniser has answered for it.

What was sent but not yet committed is kept, so that a new link can be given it again after the old one broke:
nothing said is lost, and nothing committed is said twice. All of it is bounded; the oldest goes first.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import Resampler
from voice_fsm.runtime.unanswered import Commit, Unanswered

log = structlog.get_logger()

KEEP_S: Final = 30.0
"""Audio kept for a recogniser that is away, in seconds."""
WORDLESS_S: Final = 5.0
"""The same while the recogniser keeps up and has heard no words in it: silence need not be heard again.

For one of which nothing is known of how far it may be behind.
"""
COMMIT_TAIL_MS: Final = 300
"""Audio before a commit by the recogniser that may belong to the next utterance: its answer takes time."""

SendNow = Callable[[bytes], bool]
"""Sends audio without waiting; ``False``: that cannot be now, and nothing was sent."""


@attrs.frozen
class Heard:
    """Audio as one piece, and whether the utterance was ended after it."""

    audio: bytes
    commit: bool


class Microphone:
    """A buffer between the client's reader and the link's sender; one task at a time may `take`."""

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        wordless_s: float = WORDLESS_S,
        tell_lost: Callable[[float], None] = lambda _: None,
        tell_kept: Callable[[Unanswered], None] | None = None,
    ) -> None:
        """``tell_lost`` is told how much audio had to be dropped, in seconds, each time.

        ``tell_kept`` is told when PCM is kept that may be made mu-law.
        """
        self._format = audio_format
        self._tell_lost = tell_lost
        self._max_bytes = audio_format.size_bytes(KEEP_S * 1000)
        self._wordless_bytes = audio_format.size_bytes(wordless_s * 1000)
        self._has_words = False
        """Whether words of what is kept are known, or asked for by a commit."""
        self._unsent: deque[bytes | Commit] = deque()
        self._unsent_bytes = 0
        self._unanswered = Unanswered(tell_kept if audio_format.codec == "pcm" else None)
        self._put_bytes = 0
        self.link_began_s = 0.0
        """Where in the session's audio the newest link began to listen, in seconds."""
        self._resamplers: dict[int, Resampler] = {}
        self._reader = trio.lowlevel.ParkingLot()
        self._send_now: SendNow | None = None
        self.previous_text: str | None = None
        """What was said before the audio that waits: context for a link that is new to it."""
        self.dropped_bytes = 0

    def put(self, audio: bytes, sample_rate_hz: int | None = None) -> None:
        """Add audio: whole samples of the configured codec, resampled if they came at another rate."""
        if sample_rate_hz is not None and sample_rate_hz != self._format.sample_rate_hz:
            resampler = self._resamplers.get(sample_rate_hz)
            if resampler is None:
                resampler = Resampler(sample_rate_hz, self._format.sample_rate_hz)
                self._resamplers = {sample_rate_hz: resampler}
            audio = resampler.feed(audio)
        if not audio:
            return
        size_bytes = len(audio)
        self._put_bytes += size_bytes
        kept_bytes = self._kept_bytes + size_bytes
        if kept_bytes > self._wordless_bytes and not (self._has_words or self._unsent):
            # Not for more than this: a recogniser that was away has not yet had time for words.
            self._unanswered.forget(min(size_bytes, kept_bytes - self._wordless_bytes))
        if not self._unsent and self._send_now is not None and self._send_now(audio):
            self._unanswered.append(audio)
        else:
            self._unsent.append(audio)
            self._unsent_bytes += size_bytes
            self._reader.unpark()
        if kept_bytes > self._max_bytes:
            self._drop_oldest()

    def commit(self) -> None:
        """End the utterance after the audio so far."""
        self._unsent.append(Commit())
        self._reader.unpark()

    async def take(self, send_now: SendNow | None = None) -> Heard:
        """All that has come up to the next commit, as one piece.

        ``send_now`` is a shorter way for audio that comes while we wait here, tried before the queue.
        """
        while not self._unsent:
            self._send_now = send_now
            try:
                await self._reader.park()
            finally:
                self._send_now = None
        taken: list[bytes] = []
        while self._unsent:
            item = self._unsent.popleft()
            self._unanswered.append(item)
            if isinstance(item, Commit):
                self._has_words = True
                return Heard(b"".join(taken), commit=True)
            self._unsent_bytes -= len(item)
            taken.append(item)
        return Heard(b"".join(taken), commit=False)

    def heard_words(self) -> None:
        """The recogniser hears words in what it was given: all of that is kept until it commits."""
        self._has_words = True

    def committed(self, text: str) -> None:
        """The recogniser has answered: what it answered for need not be kept, but is context for the rest."""
        if text.strip():
            self.previous_text = text
        if self._unanswered.has_commit:
            self._unanswered.forget_utterance()
        else:
            tail_bytes = self._format.size_bytes(COMMIT_TAIL_MS)
            self._unanswered.forget(self._unanswered.size_bytes - tail_bytes)
        self._has_words = self._unanswered.has_commit

    def rewind(self) -> None:
        """A new link listens: give it again what the old one had not committed."""
        self.link_began_s = self._format.duration_ms(self._put_bytes - self._kept_bytes) / 1000
        self._unsent_bytes += self._unanswered.size_bytes
        self._unsent.extendleft(reversed(self._unanswered.take_all()))

    @property
    def _kept_bytes(self) -> int:
        return self._unsent_bytes + self._unanswered.size_bytes

    def _drop_oldest(self) -> None:
        if self._kept_bytes > self._max_bytes:
            self._unanswered.forget(self._kept_bytes - self._max_bytes)
        while self._kept_bytes > self._max_bytes:
            item = self._unsent.popleft()
            if isinstance(item, Commit):
                continue
            if not self.dropped_bytes:
                log.warning("microphone_audio_dropped", reason="recogniser away")
            self._unsent_bytes -= len(item)
            self.dropped_bytes += len(item)
            self._tell_lost(self._format.duration_ms(len(item)) / 1000)


class LeadMeter:
    """How far a client's audio is ahead of real time."""

    def __init__(self, max_lead_s: float) -> None:
        self._max_lead_s = max_lead_s
        self._played_until_s = float("-inf")

    def admits(self, duration_s: float, now_s: float) -> bool:
        """Whether this audio is within the limit; if not, it is not counted."""
        until_s = max(self._played_until_s, now_s) + duration_s
        if until_s - now_s > self._max_lead_s:
            return False
        self._played_until_s = until_s
        return True
