import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.fsm.echo import without_echo
from voice_fsm.fsm.words import keys

SAID = "The weather in Paris is sunny today, with twenty two degrees and a light breeze."


@pytest.mark.parametrize(
    ("heard", "short", "own"),
    [
        ("The weather in Paris", False, ""),
        ("weather in parish is sunny", False, ""),
        ("in Paris is sun", False, ""),
        ("weather Paris is sunny today", False, ""),
        ("the weather uh in Paris is", False, ""),
        ("the leather in Paris is", False, ""),
        ("degreas and a light breeze", False, ""),
        ("stop the weather in Paris is", False, "stop"),
        ("in Paris is sunny today wait what about Rome", False, "wait what about Rome"),
        ("is sunny today no I meant Rome", False, "no I meant Rome"),
        ("what about London", True, "what about London"),
        ("sunny", True, ""),
        ("sunny", False, "sunny"),
        ("light breeze", True, ""),
        ("light breeze", False, "light breeze"),
        ("breeze light", True, "breeze light"),
        ("is it sunny in London", True, "is it sunny in London"),
        ("", True, ""),
        ("Yes — please", True, "Yes — please"),
    ],
)
def test_the_echo_is_taken_away(heard: str, own: str, *, short: bool) -> None:
    """Runs of the assistant's words are an echo, even misheard; the user's stay as they are."""
    assert without_echo(heard, SAID, short=short) == own


@pytest.mark.parametrize(
    ("heard", "unfinished", "own"),
    [
        ("the weather in Paris it", True, ""),
        ("the weather in Paris it", False, ""),
        ("the weather in Paris stop", True, "stop"),
        ("wait the weather in Paris", False, "wait"),
        ("the weather in Paris no I", True, "no I"),
        ("the feather", True, ""),
        ("the feather", False, "the feather"),
        ("the weather on", True, ""),
        ("stop sunny", True, "stop"),
        ("hello", True, "hello"),
    ],
)
def test_a_single_word_beside_an_echo_is_misheard(heard: str, own: str, *, unfinished: bool) -> None:
    """But for an order; and of the first words only while more are to come."""
    assert without_echo(heard, SAID, short=True, unfinished=unfinished, language_code="en") == own


def test_an_echo_that_does_not_end_is_one_to_its_end() -> None:
    """A recogniser that hears no pause has the whole reply in one transcript."""
    said = " ".join(f"{letter}{letter}word" for letter in "abcdefghijklmnopqrstuvwxyz") + " and " + SAID
    assert without_echo(f"{said} {said}", f"{said} {said}", short=True) == ""


def test_nothing_said_has_no_echo() -> None:
    """A silent assistant takes no word away."""
    assert without_echo("three words here", "", short=True) == "three words here"


def test_redacted_words_are_no_echo() -> None:
    """In a redacted recording all words look the same; none of them is taken for another."""
    assert without_echo("xxx xxxx xx", "xxx xxxx xx xxxxx", short=True) == "xxx xxxx xx"


def test_of_a_long_transcript_the_newest_words_are_compared() -> None:
    """The work is bounded; what came before stays."""
    heard = SAID + " mine" * 120 + " the weather in Paris is sunny today"
    assert without_echo(heard, SAID, short=False) == SAID + " mine" * 120


TEXT = st.lists(st.sampled_from([*SAID.split(), "no", "London", "—"]), max_size=12).map(" ".join)


@settings(deadline=None)  # machines differ
@given(TEXT, TEXT, st.booleans())
def test_what_is_kept_was_heard(heard: str, said: str, short: bool) -> None:  # hypothesis
    """Words are only taken away, and one that was not said at all is taken only as a misheard one."""
    kept = without_echo(heard, said, short=short).split()
    rest = iter(heard.split())
    assert all(word in rest for word in kept)
    if not set(keys(heard)) & set(keys(said)):
        assert kept == heard.split()
