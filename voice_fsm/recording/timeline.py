"""A session over time: rows of what happened, and bars of what lasted.

Events and effects that are not named here are shown by their class and fields, so new ones are seen at once.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal

import attrs

from voice_fsm.fsm import effects as fx
from voice_fsm.fsm import events as ev
from voice_fsm.recording.codec import TAG
from voice_fsm.recording.lines import ForeignEffect, Lost, RecordedEffect, Step
from voice_fsm.recording.reading import Recording

Lane = Literal["session", "user", "assistant", "interruption", "error"]
Track = Literal["state", "user", "thinking", "audio"]

_QUIET_EVENTS: Final = (
    # Told by their effects.
    *(ev.Configure, ev.Update, ev.BadInput, ev.Abort, ev.SttOpened, ev.SttFailed, ev.Partial, ev.Committed),
    *(ev.SpeechStarted, ev.SpeechStopped, ev.ReplyComplete, ev.FirstAudio, ev.TurnDone, ev.TurnFailed),
    # Many, and each says little.
    *(ev.Tick, ev.PlaybackProgress, ev.SpeechAligned, ev.UserActive),
)
_QUIET_EFFECTS: Final = (fx.EnsureStt, fx.PrepareVoice, fx.StartTurn, fx.CancelTurn, fx.StateChanged)


@attrs.frozen
class Row:
    """One thing that happened."""

    at_s: float
    """Since the session opened."""
    state: str
    """After it."""
    lane: Lane
    text: str


@attrs.frozen
class Bar:
    """Something that lasted."""

    track: Track
    start_s: float
    end_s: float
    kind: str
    """The state, or how it ended: ``completed``, ``interrupted`` and so on."""
    text: str


@attrs.frozen(kw_only=True)
class Timeline:
    """What is drawn."""

    title: str
    duration_s: float
    rows: tuple[Row, ...]
    bars: tuple[Bar, ...]
    notes: tuple[str, ...]


def make_timeline(recording: Recording) -> Timeline:
    """Tell what was recorded; nothing is stepped again."""
    pen = _Pen(recording.header.opened_s)
    for line in recording.lines:
        match line:
            case Step():
                pen.draw(line)
            case Lost(steps):
                pen.row("error", f"{steps} steps are missing")
    pen.finish()
    return Timeline(
        title=_title(recording, pen.session_id),
        duration_s=pen.now_s,
        rows=tuple(pen.rows),
        bars=tuple(sorted(pen.bars, key=lambda bar: bar.start_s)),
        notes=recording.notes,
    )


def _title(recording: Recording, session_id: str | None) -> str:
    header = recording.header
    started = header.started.replace("T", " ").partition(".")[0]
    return f"Session {session_id or '(never configured)'}, {started} UTC, voice_fsm {header.voice_fsm}"


class _Pen:
    """Where the drawing is."""

    def __init__(self, opened_s: float) -> None:
        self.now_s = 0.0
        self.session_id: str | None = None
        self.rows: list[Row] = []
        self.bars: list[Bar] = []
        self._opened_s = opened_s
        self._state = "unconfigured"
        self._open: dict[Track, tuple[float, str]] = {"state": (0.0, "unconfigured")}
        """Bars that have begun: when, and their text."""
        self._sent_ms = 0.0
        """Of the turn's audio."""
        self._reply = ""
        """The turn's, once it is known."""

    def draw(self, step: Step) -> None:
        self.now_s = max(step.event.at_s - self._opened_s, self.now_s)
        for effect in step.effects:
            if isinstance(effect, fx.StateChanged):
                self._state = effect.target
        self._tell(_event_words(step.event, self._sent_ms))
        match step.event:
            case ev.AudioSent():
                self._sent_ms += step.event.duration_ms
            case ev.TextPrompt():
                self.bars.append(Bar("user", self.now_s, self.now_s, "typed", step.event.text))
        for effect in step.effects:
            self._tell(_effect_words(effect, self._sent_ms))
            self._draw(effect)
        if step.raised:
            self.row("error", f"the machine failed with {step.raised}")

    def row(self, lane: Lane, text: str) -> None:
        self.rows.append(Row(self.now_s, self._state, lane, text))

    def finish(self) -> None:
        for track in list(self._open):
            self._end(track, "unfinished" if track != "state" else self._state)

    def _tell(self, told: tuple[Lane, str] | None) -> None:
        if told is not None:
            self.row(*told)

    def _draw(self, effect: RecordedEffect) -> None:  # noqa: C901  # a flat table
        match effect:
            case fx.Configured(session_id):
                self.session_id = session_id
            case fx.StateChanged():
                self._end("state", effect.source)
                self._begin("state", effect.target)
            case fx.SpeechBegan():
                self._caption("user", "")
            case fx.PartialHeard(text):
                self._caption("user", text)
            case fx.UtteranceCommitted(text):
                self._caption("user", text)
                self._end("user", "committed")
            case fx.TurnStarted(turn_id, text):
                self._sent_ms, self._reply = 0.0, ""
                self._begin("thinking", f"turn {turn_id}: {text}")
            case fx.AudioStarted(turn_id):
                self._end("thinking", "answered")
                self._begin("audio", self._reply or f"turn {turn_id}")
            case fx.ReplyTold(turn_id, text):
                self._reply = f"turn {turn_id}: {text}"
                if "audio" in self._open:
                    self._caption("audio", self._reply)
            case fx.TurnEnded(_, outcome):
                self._end("thinking", outcome)
                self._end("audio", outcome)
            case _:
                pass

    def _begin(self, track: Track, text: str) -> None:
        self._open[track] = (self.now_s, text)

    def _caption(self, track: Track, text: str) -> None:
        """Give a bar that may have begun already the text that it has as far as one knows."""
        start_s, before = self._open.get(track, (self.now_s, ""))
        self._open[track] = (start_s, text or before)

    def _end(self, track: Track, kind: str) -> None:
        if track in self._open:
            start_s, text = self._open.pop(track)
            self.bars.append(Bar(track, start_s, self.now_s, kind, text))


# --- words ------------------------------------------------------------------------------------------


def _event_words(event: ev.AnyEvent, sent_ms: float) -> tuple[Lane, str] | None:  # noqa: PLR0911  # a flat table
    match event:
        case ev.TextPrompt():
            return "user", f"types {_quoted(event.text)}"
        case ev.Added(role=role, text=text):
            return "session", f"the client adds, as said by the {role}: {_quoted(text)}"
        case ev.CommitAsked():
            return "user", "ends the utterance"
        case ev.Respond():
            return "session", "the client asks for a reply"
        case ev.Interrupt():
            return "user", "asks for silence"
        case ev.ReplyStarted():
            return "assistant", f"turn {event.turn_id}: first text"
        case ev.AudioSent():
            return None if sent_ms else ("assistant", f"turn {event.turn_id}: first audio is sent")
        case ev.Disconnect():
            return "session", "the client has left"
        case ev.Drain():
            return "session", "the server is about to stop"
        case _:
            return None if isinstance(event, _QUIET_EVENTS) else ("session", _plainly(event))


def _effect_words(effect: RecordedEffect, sent_ms: float) -> tuple[Lane, str] | None:  # noqa: C901, PLR0911, PLR0912  # as above
    match effect:
        case fx.Configured(session_id):
            return "session", f"configured as {session_id}"
        case fx.SttStarted(session_id):
            return "session", f"recogniser is ready ({session_id})"
        case fx.PartialHeard(text):
            return "user", f"... {text}"
        case fx.UtteranceCommitted(text):
            return "user", _quoted(text)
        case fx.SpeechBegan():
            return "user", "begins to speak"
        case fx.SpeechEnded():
            return "user", "falls silent"
        case fx.TurnStarted(turn_id, text, cause):
            why = f"to answer {_quoted(text)}" if text else f"by itself ({cause})"
            return "assistant", f"turn {turn_id} begins, {why}"
        case fx.ReplyTold(turn_id, text):
            return "assistant", f"turn {turn_id}: {_quoted(text)}"
        case fx.AudioStarted(turn_id, output_format):
            return "assistant", f"turn {turn_id}: speaks ({output_format})"
        case fx.AudioEnded(turn_id):
            return "assistant", f"turn {turn_id}: no more audio, {sent_ms:.0f} ms sent"
        case fx.TurnPaused(turn_id, played_ms):
            return "assistant", f"turn {turn_id} is paused; heard {played_ms:.0f} ms"
        case fx.TurnResumed(turn_id, played_ms):
            return "assistant", f"turn {turn_id} goes on from {played_ms:.0f} ms"
        case fx.TurnInterrupted(turn_id, reason, heard_text, heard_ms):
            heard = f"heard {heard_ms:.0f} ms, {_quoted(heard_text)}"
            return "interruption", f"turn {turn_id} interrupted by {reason}; {heard}"
        case fx.TurnTimed():
            return "assistant", _timings(effect)
        case fx.TurnEnded(turn_id, outcome):
            return "assistant", f"turn {turn_id} is {outcome}"
        case fx.ErrorTold():
            return "error", f"{effect.code}: {effect.message}"
        case fx.Closing(reason):
            return "session", f"goodbye: {reason}"
        case fx.CloseSession(close_code):
            return "session", f"the socket closes with {close_code}"
        case ForeignEffect(document):
            return "session", f"{document[TAG]}, as another version wrote it"
        case _:
            return None if isinstance(effect, _QUIET_EFFECTS) else ("session", _plainly(effect))


def _timings(timed: fx.TurnTimed) -> str:
    stages = (
        ("text", timed.first_text_ms),
        ("speech", timed.first_speech_ms),
        ("audio sent", timed.first_audio_sent_ms),
        ("heard out", timed.playback_done_ms),
    )
    reached = ", ".join(f"{name} {after_ms:.0f}" for name, after_ms in stages if after_ms is not None)
    return f"turn {timed.turn_id}: ms after the commit: {reached or 'nothing came'}"


def _quoted(text: str) -> str:
    return f'"{text.strip()}"'


def _plainly(thing: Any) -> str:  # noqa: ANN401  # of any class
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(thing).__name__).lower()
    fields = ", ".join(_fields(thing))
    return f"{words} ({fields})" if fields else words


def _fields(thing: Any) -> Iterator[str]:  # noqa: ANN401  # of any class
    """What is short enough to be told."""
    for field in attrs.fields(type(thing)):
        value = getattr(thing, field.name)
        if field.name != "at_s" and field.repr is not False and isinstance(value, str | int | float):
            yield f"{field.name} {value}"
