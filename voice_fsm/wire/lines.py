"""Lines out of a byte stream that comes in pieces: the frame of newline-delimited JSON and of SSE."""

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")

MAX_LINE_BYTES: Final = 1024 * 1024


class OversizedLineError(ValueError):
    """A line, or the lines of one event together, are longer than anything sensible."""


class LineSplitter:
    """Cuts at LF, CR and CRLF, wherever the pieces happen to be cut."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._unfinished: list[bytes] = []
        self._unfinished_bytes = 0
        self._lf_is_pending = False
        """A CR ended the last piece: a LF at the next one's beginning belongs to it."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next piece, and give the lines it finishes, without their ends.

        Raises:
            OversizedLineError: a line, finished or not, is longer than allowed.
        """
        if not piece:
            return []
        if self._lf_is_pending and piece.startswith(b"\n"):
            piece = piece[1:]
        self._lf_is_pending = piece.endswith(b"\r")
        head, *tails = _LINE_END.split(piece)
        self._keep(head)
        lines = []
        for tail in tails:
            lines.append(self.end())
            self._keep(tail)
        return lines

    def end(self) -> bytes:
        """Give the line that nothing has ended; blank when there is none."""
        line = b"".join(self._unfinished)
        self._unfinished.clear()
        self._unfinished_bytes = 0
        return line

    def _keep(self, part: bytes) -> None:
        self._unfinished_bytes += len(part)
        if self._unfinished_bytes > self._max_bytes:
            raise OversizedLineError(f"a line exceeds {self._max_bytes} bytes")
        if part:
            self._unfinished.append(part)
