"""Pings of the Agents protocol: messages of its own, beside those of WebSockets."""

from typing import Final

import attrs

from voice_fsm.wire.convai import Ping

PING_EVERY_S: Final = 5.0


@attrs.define
class Pings:
    """Numbers pings from 1, and knows how long the newest answer took."""

    _sent: int = 0
    _sent_at_s: float = 0.0
    _round_trip_ms: int | None = None

    def next(self, now_s: float) -> Ping:
        """The ping to send now."""
        self._sent += 1
        self._sent_at_s = now_s
        return Ping(event_id=self._sent, ping_ms=self._round_trip_ms)

    def answered(self, event_id: int, now_s: float) -> None:
        """A pong has come; only one for the newest ping tells anything."""
        if event_id == self._sent:
            self._round_trip_ms = round((now_s - self._sent_at_s) * 1000)
