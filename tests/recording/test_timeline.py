"""What was recorded, told and drawn."""

import re
from html.parser import HTMLParser
from typing import Any

import attrs
import pytest

from tests.recording.sessions import EXAMPLE, GOLDEN, PAGE, SCRIPTS
from voice_fsm.fsm import events as ev
from voice_fsm.fsm.effects import PartialHeard, SpeechBegan, UtteranceCommitted
from voice_fsm.recording.lines import ForeignEffect, Lost, Step
from voice_fsm.recording.reading import read_recording
from voice_fsm.recording.timeline import Timeline, make_timeline
from voice_fsm.recording.timeline_html import render_html
from voice_fsm.recording.timeline_text import render_text


def timeline(name: str, *more: Step | Lost) -> Timeline:
    recording = read_recording((GOLDEN / f"{name}.jsonl").read_bytes())
    return make_timeline(attrs.evolve(recording, lines=(*recording.lines, *more)))


def test_the_page_on_operations_shows_a_timeline_that_is_made() -> None:
    """Its example is the golden one."""
    (example,) = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert example == (GOLDEN / "barge_in.txt").read_text(encoding="utf-8")


def test_bars_tell_what_lasted_and_how_it_ended() -> None:
    """States without a gap; speech, thinking and audio from their beginning to their end."""
    bars = timeline("barge_in").bars
    states = [bar for bar in bars if bar.track == "state"]
    assert [bar.kind for bar in states] == [
        *("unconfigured", "listening", "thinking", "speaking"),
        *("listening", "thinking", "speaking", "listening", "closed"),
    ]
    assert [bar.start_s for bar in states[1:]] == [bar.end_s for bar in states[:-1]]
    rest = [(bar.track, bar.start_s, bar.end_s, bar.kind) for bar in bars if bar.track != "state"]
    assert rest == [
        ("user", 0.5, 0.5, "committed"),
        ("thinking", 0.5, pytest.approx(0.72), "answered"),
        ("audio", pytest.approx(0.72), 2.0, "interrupted"),
        ("user", 2.0, 2.4, "committed"),
        ("thinking", 2.4, pytest.approx(2.62), "answered"),
        ("audio", pytest.approx(2.62), pytest.approx(2.82), "completed"),
    ]


def test_what_was_typed_and_what_the_voice_detector_hears_are_bars_too() -> None:
    """A prompt takes no time; speech begins before its first words."""
    more = [
        Step(event=ev.SpeechStarted(at_s=40.0), effects=(SpeechBegan(),)),
        Step(event=ev.Partial(at_s=41.0, text="oh"), effects=(PartialHeard("oh"),)),
    ]
    bars = [bar for bar in timeline("typed_prompt", *more).bars if bar.track == "user"]
    assert [(bar.start_s, bar.end_s, bar.kind, bar.text) for bar in bars] == [
        (0.0, 0.0, "typed", "How are you?"),
        (0.7, 0.7, "typed", "Answer in one word."),
        (40.0, 41.0, "unfinished", "oh"),
    ]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            ev.Added(at_s=40.0, role="assistant", text="Hello."),
            'the client adds, as said by the assistant: "Hello."',
        ),
        (ev.CommitAsked(at_s=40.0), "ends the utterance"),
        (ev.Respond(at_s=40.0), "the client asks for a reply"),
    ],
)
def test_what_clients_of_the_realtime_protocol_ask_for_is_told_in_words(
    event: ev.AnyEvent, told: str
) -> None:
    """Nothing of it has an effect that would tell."""
    assert timeline("idle_close", Step(event=event, effects=())).rows[-1].text == told


def test_what_nobody_gave_words_is_told_by_its_fields() -> None:
    """An event of a later version is seen without a change here."""

    @attrs.frozen(kw_only=True)
    class DoorBell:
        at_s: float
        rings: int

    rows = timeline("idle_close", Step(event=DoorBell(at_s=40.0, rings=2))).rows  # type: ignore[arg-type]  # as said
    assert (rows[-1].at_s, rows[-1].text) == (40.0, "door bell (rings 2)")


def test_an_effect_of_another_version_is_told_by_its_name() -> None:
    """More of it cannot be known."""
    step = Step(event=_partial(), effects=(ForeignEffect({"is": "Applause"}),))
    assert timeline("idle_close", step).rows[-1].text == "Applause, as another version wrote it"


def test_a_text_cannot_command_a_terminal_nor_break_a_line() -> None:
    """Control characters and half surrogate pairs are spaces; what is long is cut."""
    text = "\x1b[2J\r\nred\ud83d" + "y" * 200
    lines = render_text(timeline("idle_close", Step(event=_partial(), effects=(PartialHeard(text),)))).split(
        "\n"
    )
    assert lines[-2].endswith("y...")
    assert "... [2J red yyy" in lines[-2]
    assert all(line.isprintable() for line in lines)


class Elements(HTMLParser):
    """Names of all elements, in order; complains of what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.names.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_page_is_whole_and_has_every_row_and_bar(name: str) -> None:
    """Well-formed, with a mark for each interruption and error, and nothing fetched or run."""
    drawn = timeline(name)
    page = render_html(drawn)
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    assert elements.names.count("rect") == len(drawn.bars)
    assert elements.names.count("tr") == len(drawn.rows) + 1
    assert elements.names.count("path") == sum(row.lane in {"interruption", "error"} for row in drawn.rows)
    assert {"script", "link", "img"}.isdisjoint(elements.names)
    assert "src=" not in page


def test_what_somebody_said_is_no_markup() -> None:
    """Transcripts and replies come from strangers."""
    said = '<script>alert("1")</script>&\x00\ud83d'
    page = render_html(
        timeline("idle_close", Step(event=_partial(), effects=(UtteranceCommitted(said, ()),)))
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    page.encode()


def test_an_hour_is_drawn_on_a_bounded_width() -> None:
    """The scale gives way, and ticks stay apart."""
    page = render_html(timeline("idle_close", Step(event=attrs.evolve(_partial(), at_s=7200.0))))
    width = int(re.search(r'<svg [^>]*width="(\d+)"', page)[1])  # type: ignore[index]  # there is one
    assert 1000 < width < 61_000
    assert 10 < page.count('class="tick"') < 1000


def test_a_session_of_no_length_is_drawn() -> None:
    """One that was closed before anything took time."""
    recording = read_recording((GOLDEN / "idle_close.jsonl").read_bytes())
    page = render_html(make_timeline(attrs.evolve(recording, lines=recording.lines[:1])))
    assert "configured as golden" in page


def _partial() -> ev.Partial:
    return ev.Partial(at_s=40.0, text="x")
