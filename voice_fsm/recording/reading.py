"""A recording out of the bytes of its file."""

from collections.abc import Sequence
from typing import Final

import attrs

from voice_fsm.recording.codec import Codec, NotALine
from voice_fsm.recording.lines import FORMAT, End, Header, Line, Lost, Step, TextKept

CODECS: Final[dict[TextKept, Codec]] = {"plain": Codec("plain"), "redacted": Codec("redacted")}


class BadRecording(Exception):  # noqa: N818  # says what the file is
    """A file that is no recording; the message says in which line, and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line} {why}")
        self.line = line


@attrs.frozen(kw_only=True)
class Recording:
    """A file that was read."""

    header: Header
    lines: tuple[Step | Lost, ...]
    """From the file's second line on."""
    end: End | None
    is_cut_off: bool
    """The file ends within a line, which is left out."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the file, a sentence each."""
        notes = []
        if self.is_cut_off:
            notes.append("The last line is cut off and was left out.")
        if self.end is None:
            notes.append("There is no end: the session was cut off, the process died, or both still run.")
        elif self.end.reason == "size_limit":
            notes.append("The session went on: the file had reached its largest size.")
        missing = sum(line.steps for line in self.lines if isinstance(line, Lost))
        if missing:
            notes.append(f"{missing} steps are missing: the disk was too slow.")
        if self.header.text == "redacted":
            notes.append("Texts are redacted: decisions by the words themselves cannot be proved.")
        return tuple(notes)


def read_recording(data: bytes) -> Recording:
    """Read a whole file; a last line without its line feed may be cut off.

    Raises:
        BadRecording: it is not a recording, or one of a version that this one cannot read.
    """
    *whole, rest = data.split(b"\n")
    if not whole:
        raise BadRecording(1, "is not a recording's header" if rest else "is missing: the file is empty")
    header = _header(whole[0])
    codec = CODECS[header.text]
    lines = [_line(codec, number, text) for number, text in enumerate(whole[1:], start=2)]
    end = lines.pop() if lines and isinstance(lines[-1], End) else None
    return Recording(header=header, lines=_steps(lines), end=end, is_cut_off=bool(rest))  # type: ignore[arg-type]  # an End, by the line above


def _header(text: bytes) -> Header:
    header = _line(CODECS["plain"], 1, text)
    if not isinstance(header, Header):
        raise BadRecording(1, "is not a recording's header")
    if header.format != FORMAT:
        raise BadRecording(1, f"tells format {header.format}, and this version reads {FORMAT}")
    return header


def _line(codec: Codec, number: int, text: bytes) -> Line:
    try:
        return codec.decode(text)
    except NotALine as error:
        raise BadRecording(number, str(error)) from None


def _steps(lines: Sequence[Line]) -> tuple[Step | Lost, ...]:
    steps: list[Step | Lost] = []
    for number, line in enumerate(lines, start=2):
        if not isinstance(line, Step | Lost):
            is_end = isinstance(line, End)
            raise BadRecording(number, "is an End, and the file goes on" if is_end else "is a second Header")
        steps.append(line)
    return tuple(steps)
