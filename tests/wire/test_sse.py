import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.wire.lines import OversizedLineError
from voice_fsm.wire.sse import ServerSentEvent, SseDecoder


def decode(*pieces: bytes) -> list[ServerSentEvent]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_three_line_ends(end: bytes) -> None:
    """LF, CRLF and CR end a line alike."""
    assert decode(b"data: a" + end + end + b"data: b" + end + end) == [
        ServerSentEvent("a"),
        ServerSentEvent("b"),
    ]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: one\ndata: two\n\n", [ServerSentEvent("one\ntwo")], id="several data lines"),
        pytest.param(
            b"data:a\n\ndata:  a\n\n", [ServerSentEvent("a"), ServerSentEvent(" a")], id="one space"
        ),
        pytest.param(b": ping\n\ndata: a\n\n", [ServerSentEvent("a")], id="comments"),
        pytest.param(b"event: error\ndata: a\n\n", [ServerSentEvent("a", "error")], id="event type"),
        pytest.param(
            b"event: x\n\ndata: a\n\n", [ServerSentEvent("a")], id="a type without data is forgotten"
        ),
        pytest.param(b"id: 1\nretry: 5\nfoo: b\ndata: a\n\n", [ServerSentEvent("a")], id="other fields"),
        pytest.param(b"data\n\n", [ServerSentEvent("")], id="a field without a colon"),
        pytest.param(b"data: a: b\n\n", [ServerSentEvent("a: b")], id="colons in data"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [ServerSentEvent("a")], id="byte order mark"),
        pytest.param(
            b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [ServerSentEvent("a")], id="a mark later is no mark"
        ),
        pytest.param(b"data: \xff\n\n", [ServerSentEvent("\ufffd")], id="bad UTF-8"),
        pytest.param(b"data: a\n", [], id="unfinished"),
        pytest.param(b"\n\n\n", [], id="blank lines"),
    ],
)
def test_the_standards_rules(stream: bytes, events: list[ServerSentEvent]) -> None:
    """Each rule of the standard, in one stream each."""
    assert decode(stream) == events


EVENTS = st.lists(
    st.builds(
        ServerSentEvent,
        st.text(st.characters(exclude_characters="\r", codec="utf-8")),
        st.sampled_from(["message", "error", "m\u00e9ta"]),
    )
)


@given(EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.data())
def test_what_is_written_is_read_however_it_is_cut(
    events: list[ServerSentEvent], end: str, mark: bool, data: st.DataObject
) -> None:
    """Events survive any cut of their bytes, through characters and line ends too."""
    lines = ["\ufeff" if mark else ""]
    for event in events:
        fields = [f"event: {event.type}", *(f"data: {line}" for line in event.data.split("\n"))]
        lines += [field + end for field in [*fields, ": ping", ""]]
    stream = "".join(lines).encode()
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[start:stop] for start, stop in itertools.pairwise([0, *places, len(stream)])]
    assert decode(*pieces) == events


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"data: a", ServerSentEvent("a")),
        (b"data: a\n", ServerSentEvent("a")),
        (b"event: x\ndata: a\ndata: b", ServerSentEvent("a\nb", "x")),
        (b"data: a\n\n", None),
        (b"event: x", None),
        (b"", None),
    ],
)
def test_the_unfinished_event_can_be_had(stream: bytes, event: ServerSentEvent | None) -> None:
    """At the end of the stream a caller may ask for what no blank line has ended."""
    decoder = SseDecoder()
    decoder.feed(stream)
    assert decoder.end() == event


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: xx\n" * 50, b":" + b"x" * 101])
def test_events_are_bounded(stream: bytes) -> None:
    """Neither one endless line nor endless lines of one event fill the memory."""
    with pytest.raises(OversizedLineError):
        SseDecoder(max_event_bytes=100).feed(stream)


def test_the_bound_is_an_events_and_not_the_streams() -> None:
    """Many events go through one decoder."""
    decoder = SseDecoder(max_event_bytes=100)
    assert sum(len(decoder.feed(b"data: 0123456789\n\n")) for _ in range(100)) == 100
