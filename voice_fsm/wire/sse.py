"""Server-sent events out of a byte stream (WHATWG HTML, section 9.2.6, "Interpreting an event stream").

Reconnection is not ours, so the fields ``id`` and ``retry`` are ignored like unknown ones.
"""

from typing import Final

import attrs

from voice_fsm.wire.lines import MAX_LINE_BYTES, LineSplitter, OversizedLineError

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@attrs.frozen
class ServerSentEvent:
    """One event; ``type`` is ``message`` unless the stream names another."""

    data: str
    type: str = "message"


class SseDecoder:
    """Pieces of bytes in, whole events out."""

    def __init__(self, max_event_bytes: int = MAX_LINE_BYTES) -> None:
        self._lines = LineSplitter(max_event_bytes)
        self._max_event_bytes = max_event_bytes
        self._is_first_line = True
        self._data: list[str] = []
        self._data_bytes = 0
        self._type = ""

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """Take the next piece, and give the events it finishes.

        Raises:
            OversizedLineError: an event, finished or not, is longer than allowed.
        """
        finished = (self._take(line) for line in self._lines.feed(piece))
        return [event for event in finished if event is not None]

    def end(self) -> ServerSentEvent | None:
        """Give the event that no blank line has ended.

        The standard drops it, since it may be cut short; a caller that can tell whether it is may use it.

        Raises:
            OversizedLineError: it is longer than allowed.
        """
        return self._take(self._lines.end()) or self._dispatch()

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._keep(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        return None

    def _keep(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._max_event_bytes:
            raise OversizedLineError(f"an event exceeds {self._max_event_bytes} bytes")
        self._data.append(value.decode("utf-8", "replace"))

    def _dispatch(self) -> ServerSentEvent | None:
        data, kind = self._data, self._type
        self._data, self._data_bytes, self._type = [], 0, ""
        return ServerSentEvent("\n".join(data), kind or "message") if data else None
