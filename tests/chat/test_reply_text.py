import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_fsm.chat.reply_text import ReplyTextFilter, SurrogateJoiner, ThoughtFilter


def filtered(*pieces: str) -> str:
    text_filter = ReplyTextFilter()
    return "".join([*map(text_filter.feed, pieces), text_filter.end()])


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("Hello.", "Hello."),
        ("<think>Hm.</think>Hello.", "Hello."),
        ("<think>Hm.</think>Hello. <think>Hm?</think>Bye.", "Hello. Bye."),
        ("<THINK>Hm.</Think>Hello.", "Hello."),
        ("<thinking>Hm.</thinking>Hello.", "Hello."),
        ("Hello.<think>never closed", "Hello."),
        ("</think>Hello.", "Hello."),
        ("1 < 2, <b>bold</b>, <thin", "1 < 2, <b>bold</b>, <thin"),
        ("<think>a < b </thin", ""),
        ("", ""),
    ],
)
def test_thoughts_are_not_told(written: str, told: str) -> None:
    """What stands between the tags of a thought is left out, and nothing else, however it is cut."""
    assert filtered(written) == told
    assert filtered(*written) == told


@given(st.lists(st.sampled_from(["<think>", "</think>", "<thinking>", "<", "<t", "a", " "])), st.data())
@example(["<think>", "a", "</think>"], None)
def test_the_cuts_do_not_matter(parts: list[str], data: st.DataObject | None) -> None:
    """Text that comes in pieces is filtered like the whole."""
    text = "".join(parts)
    places = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *places, len(text)])]
    assert filtered(*pieces) == filtered(text)


def test_text_is_not_held_back_without_need() -> None:
    """Only an end that may become a tag waits for more."""
    thoughts = ThoughtFilter()
    assert thoughts.feed("Hello <") == "Hello "
    assert thoughts.feed("b") == "<b"


def test_halves_of_a_character_are_joined() -> None:
    """A character that JSON escapes tore apart over two pieces is whole again."""
    joiner = SurrogateJoiner()
    assert joiner.feed("a\ud83d") == "a"
    assert joiner.feed("\ude00b") == "\U0001f600b"
    assert joiner.end() == ""


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (["a\ud83d"], "a\ufffd"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00b"], "\ufffdb"),
        (["\ud83d", "\ud83d\ude00"], "\ufffd\U0001f600"),
        (["\ud83d\ude00"], "\U0001f600"),
    ],
)
def test_a_lone_half_is_replaced(pieces: list[str], told: str) -> None:
    """No text leaves that UTF-8 cannot hold."""
    assert filtered(*pieces) == told


@given(st.lists(st.text(st.characters(exclude_categories=[]))))
def test_all_text_can_be_encoded(pieces: list[str]) -> None:
    """Whatever comes, UTF-8 can hold what leaves."""
    filtered(*pieces).encode()
