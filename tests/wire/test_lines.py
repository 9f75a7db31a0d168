import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.wire.lines import LineSplitter, OversizedLineError

STREAMS = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", "\u00e9".encode()])).map(b"".join)


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """Cut a stream into pieces, some of them empty."""
    stream = draw(streams)
    places = sorted(draw(st.lists(st.integers(0, len(stream)))))
    return [stream[start:end] for start, end in itertools.pairwise([0, *places, len(stream)])]


@given(cut(STREAMS))
def test_lines_do_not_depend_on_the_cuts(pieces: list[bytes]) -> None:
    """Wherever a stream is cut, its lines are those of the whole."""
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    assert [*lines, splitter.end()] == re.split(rb"\r\n|\r|\n", b"".join(pieces))


def test_an_empty_piece_changes_nothing() -> None:
    """A CR and a LF are one end, also with an empty piece between them."""
    splitter = LineSplitter()
    assert splitter.feed(b"a\r") == [b"a"]
    assert splitter.feed(b"") == []
    assert splitter.feed(b"\nb\n") == [b"b"]


@pytest.mark.parametrize(
    "pieces", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"ok\n", b"x" * 11], [b"x" * 11 + b"\n"]]
)
def test_lines_are_bounded(pieces: list[bytes]) -> None:
    """A line that does not end is an error before it is much memory."""
    splitter = LineSplitter(max_bytes=10)
    with pytest.raises(OversizedLineError):
        list(map(splitter.feed, pieces))


def test_the_bound_is_a_lines_and_not_the_streams() -> None:
    """Many lines of the greatest length are fine."""
    splitter = LineSplitter(max_bytes=10)
    assert sum(len(splitter.feed(b"x" * 5 + b"x" * 5 + b"\n")) for _ in range(100)) == 100
