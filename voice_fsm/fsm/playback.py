"""Where the listener is in a turn's audio: sent is not heard."""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from voice_fsm.fsm.events import SpokenSpan

MAX_CLIENT_LAG_S: Final = 10.0
"""How far a client's reports may put the end of playback behind our own reckoning."""


@attrs.define
class PlaybackClock:
    """Reckons with a client that plays as soon as audio arrives, without gaps but where we starve it."""

    sent_ms: float = 0.0
    _over_s: float = 0.0
    """When all audio sent so far will have been played."""
    _over_unreported_s: float = 0.0
    """The same, had the client never reported."""
    _paused_s: float | None = None
    """Since when the client has been standing still, as it was asked to."""

    @property
    def is_paused(self) -> bool:
        return self._paused_s is not None

    def pause(self, at_s: float) -> None:
        """The client stops playing, and keeps what it has."""
        self._paused_s = at_s

    def resume(self, at_s: float) -> None:
        """The client plays on where it stopped."""
        if self._paused_s is None:
            return
        stood_s = at_s - self._paused_s
        if self._over_s > self._paused_s:
            self._over_s += stood_s
            self._over_unreported_s += stood_s
        self._paused_s = None

    def audio_sent(self, duration_ms: float, at_s: float) -> None:
        at_s = self._playing_s(at_s)
        self.sent_ms += duration_ms
        self._over_s = max(self._over_s, at_s) + duration_ms / 1000
        self._over_unreported_s = max(self._over_unreported_s, at_s) + duration_ms / 1000

    def progress_reported(self, played_ms: float, at_s: float) -> None:
        """The client says it has played so much; it is believed within `MAX_CLIENT_LAG_S`."""
        at_s = self._playing_s(at_s)
        rest_s = (self.sent_ms - min(max(played_ms, 0.0), self.sent_ms)) / 1000
        self._over_s = min(at_s + rest_s, self._over_unreported_s + MAX_CLIENT_LAG_S)

    def over_at_s(self) -> float:
        """When all audio sent so far will have been heard; infinity while the client stands still."""
        return self._over_s if self._paused_s is None else math.inf

    def heard_ms(self, at_s: float) -> float:
        """How much has been heard by then."""
        at_s = self._playing_s(at_s)
        return min(max(self.sent_ms - max(self._over_s - at_s, 0.0) * 1000, 0.0), self.sent_ms)

    def _playing_s(self, at_s: float) -> float:
        return at_s if self._paused_s is None else self._paused_s


def heard_text(spans: Sequence[SpokenSpan], audio_ms: float, heard_ms: float) -> str:
    """The text whose audio was heard, cut at a word border; a span half heard gives its first words."""
    heard = ""
    for number, span in enumerate(spans):
        end_ms = _end_ms(spans, number, audio_ms)
        if heard_ms >= end_ms:
            heard = _join(heard, span.text)
            continue
        if heard_ms > span.start_ms:
            share = (heard_ms - span.start_ms) / (end_ms - span.start_ms)
            heard = _join(heard, _whole_words(span.text, share))
        break
    return heard.strip()


def text_between(spans: Sequence[SpokenSpan], audio_ms: float, from_ms: float, to_ms: float) -> str:
    """The text of which any sound falls between the two; a word at a border counts."""
    found = ""
    for number, span in enumerate(spans):
        end_ms = _end_ms(spans, number, audio_ms)
        length_ms = end_ms - span.start_ms
        if length_ms <= 0 or span.start_ms > to_ms or end_ms < from_ms:
            continue
        if from_ms <= span.start_ms and end_ms <= to_ms:
            found = _join(found, span.text)
        else:
            edges = ((edge_ms - span.start_ms) / length_ms for edge_ms in (from_ms, to_ms))
            found = _join(found, _words_between(span.text, *edges))
    return found.strip()


def _end_ms(spans: Sequence[SpokenSpan], number: int, audio_ms: float) -> float:
    end_ms = spans[number].end_ms
    if end_ms is not None:
        return end_ms
    return spans[number + 1].start_ms if number + 1 < len(spans) else audio_ms


def _join(left: str, right: str) -> str:
    """Spans are either pieces of a text, spaces included, or sentences without."""
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return left + right
    return f"{left} {right}"


def _whole_words(text: str, share: float) -> str:
    cut = int(len(text) * share)
    return text[:cut].rsplit(maxsplit=1)[0] if " " in text[:cut].strip() else ""


def _words_between(text: str, from_share: float, to_share: float) -> str:
    start, end = int(len(text) * max(from_share, 0.0)), math.ceil(len(text) * min(to_share, 1.0))
    while start and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return text[start:end]
