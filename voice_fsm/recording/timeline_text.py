"""A timeline as text, a line for each thing that happened."""

from typing import Final

from voice_fsm.recording.timeline import Row, Timeline

_TEXT_CHARS: Final = 90
_MARKS: Final = {"interruption": "!", "error": "!!"}
"""What stands in the column of the speaker where nobody speaks."""


def render_text(timeline: Timeline) -> str:
    """Columns of seconds since the session opened, the state where it is another, who, and what."""
    lines = [_printable(timeline.title), *timeline.notes, ""]
    state = ""
    for row in timeline.rows:
        lines.append(_line(row, "" if row.state == state else row.state))
        state = row.state
    return "\n".join(lines) + "\n"


def _line(row: Row, state: str) -> str:
    text = _printable(row.text)
    if len(text) > _TEXT_CHARS:
        text = f"{text[: _TEXT_CHARS - 3]}..."
    return f"{row.at_s:9.3f}  {state:<12}  {_MARKS.get(row.lane, row.lane):<9}  {text}"


def _printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
