"""Where the listener is in a turn's audio: sent is not heard."""

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

    def audio_sent(self, duration_ms: float, at_s: float) -> None:
        self.sent_ms += duration_ms
        self._over_s = max(self._over_s, at_s) + duration_ms / 1000
        self._over_unreported_s = max(self._over_unreported_s, at_s) + duration_ms / 1000

    def progress_reported(self, played_ms: float, at_s: float) -> None:
        """The client says it has played so much; it is believed within `MAX_CLIENT_LAG_S`."""
        rest_s = (self.sent_ms - min(max(played_ms, 0.0), self.sent_ms)) / 1000
        self._over_s = min(at_s + rest_s, self._over_unreported_s + MAX_CLIENT_LAG_S)

    def over_at_s(self) -> float:
        """When all audio sent so far will have been heard."""
        return self._over_s

    def heard_ms(self, at_s: float) -> float:
        """How much has been heard by then."""
        return min(max(self.sent_ms - max(self._over_s - at_s, 0.0) * 1000, 0.0), self.sent_ms)


def heard_text(spans: Sequence[SpokenSpan], audio_ms: float, heard_ms: float) -> str:
    """The text whose audio was heard, cut at a word border; a span half heard gives its first words."""
    heard = ""
    for number, span in enumerate(spans):
        following = spans[number + 1].start_ms if number + 1 < len(spans) else audio_ms
        end_ms = span.end_ms if span.end_ms is not None else following
        if heard_ms >= end_ms:
            heard = _join(heard, span.text)
            continue
        if heard_ms > span.start_ms:
            share = (heard_ms - span.start_ms) / (end_ms - span.start_ms)
            heard = _join(heard, _whole_words(span.text, share))
        break
    return heard.strip()


def _join(left: str, right: str) -> str:
    """Spans are either pieces of a text, spaces included, or sentences without."""
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return left + right
    return f"{left} {right}"


def _whole_words(text: str, share: float) -> str:
    cut = int(len(text) * share)
    return text[:cut].rsplit(maxsplit=1)[0] if " " in text[:cut].strip() else ""
