"""The ledger of one turn: what was asked, what was said of the answer, and when."""

import math
from typing import Final

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import TurnTimed
from voice_fsm.fsm.events import SpokenSpan
from voice_fsm.fsm.history import Exchange, TurnCause
from voice_fsm.fsm.playback import PlaybackClock, heard_text, text_between

MS_PER_CHAR: Final = 65.0
"""Unhurried English speech, about 15 characters a second."""


@attrs.define(kw_only=True)
class Turn:
    """Facts about the turn in hand. In which phase it is, only the chart says."""

    turn_id: int
    user_text: str
    cause: TurnCause = "user"
    interruptible: bool = True
    """By what the user says; the client may always."""
    output_format: AudioFormat
    started_s: float
    reply_text: str = ""
    spans: list[SpokenSpan] = attrs.field(factory=list)
    asked_s: float | None = None
    """When its reply was asked for, if that was before the turn began."""
    wasted_calls: int = 0
    clock: PlaybackClock = attrs.field(factory=PlaybackClock)
    first_text_s: float | None = None
    first_speech_s: float | None = None
    first_audio_sent_s: float | None = None
    hesitating_since_s: float = 0.0
    """When the session last began to hesitate about it."""
    exchange: Exchange | None = None
    """How the turn stands in the history, once it is over."""
    times_resumed: int = 0
    sent_s: float | None = None
    """When the last of the turn's output had gone to the client."""

    def audio_sent(self, duration_ms: float, at_s: float) -> None:
        if self.first_audio_sent_s is None:
            self.first_audio_sent_s = at_s
        self.clock.audio_sent(duration_ms, at_s)

    def audible_ms(self, at_s: float) -> float:
        """How long ago its first audio was sent."""
        return 0.0 if self.first_audio_sent_s is None else (at_s - self.first_audio_sent_s) * 1000

    def heard_text(self, at_s: float) -> str:
        return heard_text(self.spans, self._audio_ms(), self.clock.heard_ms(at_s))

    def rest_ms(self, at_s: float) -> float:
        """How much of its audio is still to be heard; infinity while more is being made."""
        return math.inf if self.sent_s is None else self.clock.sent_ms - self.clock.heard_ms(at_s)

    def said_between(self, from_s: float, to_s: float, at_s: float) -> str:
        """What was, or will be, audible between these times."""
        heard_ms = self.clock.heard_ms(at_s)
        from_ms, to_ms = (heard_ms + (edge_s - at_s) * 1000 for edge_s in (from_s, to_s))
        return text_between(self.spans, self._audio_ms(), from_ms, to_ms)

    def completed(self) -> Exchange:
        return Exchange(self.user_text, self.reply_text)

    def cut_short(self, at_s: float) -> Exchange:
        return Exchange(self.user_text, self.heard_text(at_s), interrupted=True)

    def cut_off_at(self, played_ms: float) -> Exchange:
        heard = heard_text(self.spans, self._audio_ms(), min(played_ms, self.clock.sent_ms))
        return Exchange(self.user_text, heard, interrupted=True)

    def timed(self, playback_done_s: float | None) -> TurnTimed:
        return TurnTimed(
            turn_id=self.turn_id,
            first_text_ms=self._after_start_ms(self.first_text_s),
            first_speech_ms=self._after_start_ms(self.first_speech_s),
            first_audio_sent_ms=self._after_start_ms(self.first_audio_sent_s),
            playback_done_ms=self._after_start_ms(playback_done_s),
            asked_early_ms=None if self.asked_s is None else (self.started_s - self.asked_s) * 1000,
            wasted_calls=self.wasted_calls,
        )

    def _audio_ms(self) -> float:
        """How long the audio of the spans is; while it is still being made, no less than a guess."""
        if self.sent_s is not None or not self.spans:
            return self.clock.sent_ms
        last = self.spans[-1]
        return max(self.clock.sent_ms, last.start_ms + len(last.text) * MS_PER_CHAR)

    def _after_start_ms(self, at_s: float | None) -> float | None:
        return None if at_s is None else (at_s - self.started_s) * 1000
