"""A timeline as a page of its own: tracks over a time axis, and rows below. No script, nothing fetched."""

import math
from collections.abc import Iterator
from html import escape
from typing import Final

from voice_fsm.recording.timeline import Bar, Row, Timeline, Track

_LABEL_PX: Final = 135
_TRACK_PX: Final = 44
_BAR_PX: Final = 30
_AXIS_PX: Final = 28
_WIDTH_PX: Final = 1100
"""Of the axis; longer sessions get more, and the page scrolls."""
_PX_PER_S: Final = 60.0
_MAX_WIDTH_PX: Final = 60_000
_NARROWEST_PX: Final = 6
"""So one sees a bar of no length."""
_TICK_PX: Final = 80
"""Room that the label of a second needs."""
_TICKS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

_TRACKS: Final[dict[Track, str]] = {
    "state": "State",
    "user": "User",
    "thinking": "Thinking",
    "audio": "Assistant audio",
}
_MARK_TRACKS: Final = {"interruption": "Interruptions", "error": "Errors"}

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light; font: 15px/1.5 system-ui, sans-serif; color: #1d2430; background: #fff; }
body { margin: 24px; }
h1 { font-size: 20px; margin: 0 0 4px; overflow-wrap: anywhere; }
.note { color: #8a5200; margin: 0; }
.scroll { overflow-x: auto; border: 1px solid #d5dae2; border-radius: 6px; margin: 16px 0; }
svg text { font: 13px system-ui, sans-serif; fill: #1d2430; }
svg .label { font-weight: 600; }
svg .tick { fill: #5b6675; font-size: 12px; }
svg .grid { stroke: #e6e9ee; }
.bar { stroke: #0003; fill: #dfe4ea; }
.unconfigured, .closed { fill: #e3e6eb; }
.listening { fill: #cfe8d5; }
.thinking { fill: #ffe4a8; }
.speaking { fill: #c6dcfa; }
.user .bar { fill: #cfe8d5; }
.thinking .bar { fill: #ffe4a8; }
.audio .bar { fill: #c6dcfa; }
.user .bar.typed { fill: #3f7d52; }
.user .bar.unfinished, .thinking .bar.unfinished, .audio .bar.unfinished { fill-opacity: .5; }
.audio .bar.interrupted, .thinking .bar.interrupted, .thinking .bar.cancelled {
  stroke: #b3261e; stroke-width: 2; }
.audio .bar.failed, .thinking .bar.failed { fill: #f7c9c5; stroke: #b3261e; stroke-width: 2; }
.mark { stroke: #b3261e; stroke-width: 2; }
.mark-line { stroke: #b3261e; stroke-dasharray: 3 3; opacity: .5; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; border-bottom: 2px solid #d5dae2; }
td, th { padding: 3px 10px 3px 0; vertical-align: top; }
td { border-bottom: 1px solid #eceff3; }
td:last-child { overflow-wrap: anywhere; }
td.at { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
tr.interruption td, tr.error td { background: #fdf0ef; }
"""


def render_html(timeline: Timeline) -> str:
    """One self-contained HTML document."""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in timeline.notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{_text(timeline.title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<h1>{_text(timeline.title)}</h1>{notes}\n"
        f'<div class="scroll">{_svg(timeline)}</div>\n{_table(timeline)}</body></html>\n'
    )


def _text(text: str) -> str:
    """Escaped, and without what no XML or UTF-8 can hold."""
    return escape("".join(char if char.isprintable() else " " for char in text))


# --- the drawing ------------------------------------------------------------------------------------


def _svg(timeline: Timeline) -> str:
    scale = _scale(timeline.duration_s)
    width = _LABEL_PX + math.ceil(timeline.duration_s * scale) + _TICK_PX
    tracks = len(_TRACKS) + len(_MARK_TRACKS)
    height = _AXIS_PX + tracks * _TRACK_PX
    parts = [*_axis(timeline.duration_s, scale, height)]
    for index, (track, label) in enumerate(_TRACKS.items()):
        parts += _track(track, label, [bar for bar in timeline.bars if bar.track == track], index, scale)
    for index, (lane, label) in enumerate(_MARK_TRACKS.items(), start=len(_TRACKS)):
        parts += _marks(label, [row for row in timeline.rows if row.lane == lane], index, scale)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        f'aria-label="Timeline">\n{body}\n</svg>'
    )


def _scale(duration_s: float) -> float:
    """Pixels a second."""
    wanted = max(_WIDTH_PX / max(duration_s, 0.1), _PX_PER_S)
    return min(wanted, _MAX_WIDTH_PX / max(duration_s, 0.1))


def _axis(duration_s: float, scale: float, height: int) -> Iterator[str]:
    step_s = next((step for step in _TICKS_S if step * scale >= _TICK_PX), _TICKS_S[-1])
    for number in range(math.floor(duration_s / step_s) + 1):
        x = _LABEL_PX + number * step_s * scale
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_AXIS_PX}" y2="{height}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="18" text-anchor="middle">{number * step_s:g} s</text>'


def _track(track: Track, label: str, bars: list[Bar], index: int, scale: float) -> Iterator[str]:
    top = _AXIS_PX + index * _TRACK_PX + (_TRACK_PX - _BAR_PX) // 2
    yield _label(label, index)
    yield f'<g class="{track}">'
    for bar in bars:
        x, width = _LABEL_PX + bar.start_s * scale, max((bar.end_s - bar.start_s) * scale, _NARROWEST_PX)
        place = f'x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR_PX}"'
        tip = f"{bar.start_s:.3f} to {bar.end_s:.3f} s, {bar.kind}: {bar.text}"
        yield (
            f"<g><title>{_text(tip)}</title>"
            f'<rect class="bar {bar.kind}" {place} rx="3"/><svg {place}>'
            f'<text x="5" y="20">{_text(bar.text)}</text></svg></g>'
        )
    yield "</g>"


def _marks(label: str, rows: list[Row], index: int, scale: float) -> Iterator[str]:
    middle = _AXIS_PX + index * _TRACK_PX + _TRACK_PX // 2
    yield _label(label, index)
    for row in rows:
        x = _LABEL_PX + row.at_s * scale
        yield (
            f"<g><title>{_text(f'{row.at_s:.3f} s: {row.text}')}</title>"
            f'<line class="mark-line" x1="{x:.1f}" x2="{x:.1f}" y1="{_AXIS_PX}" y2="{middle}"/>'
            f'<path class="mark" d="M{x - 6:.1f} {middle - 6} l12 12 m0 -12 l-12 12"/></g>'
        )


def _label(label: str, index: int) -> str:
    return f'<text class="label" x="8" y="{_AXIS_PX + index * _TRACK_PX + 27}">{label}</text>'


# --- the table --------------------------------------------------------------------------------------


def _table(timeline: Timeline) -> str:
    rows = "\n".join(
        f'<tr class="{row.lane}"><td class="at">{row.at_s:.3f}</td><td>{_text(row.state)}</td>'
        f"<td>{row.lane}</td><td>{_text(row.text)}</td></tr>"
        for row in timeline.rows
    )
    head = "<tr><th>second</th><th>state</th><th>who</th><th>what</th></tr>"
    return f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>"
