import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.fsm.languages import LANGUAGES
from voice_fsm.fsm.unfinished import is_unfinished


@pytest.mark.parametrize(
    ("language_code", "text", "expected"),
    [
        ("en", "I would like to book a flight to, um", True),
        ("en", "I want a table and", True),
        ("en", "Book a flight to the", True),
        ("en", "Let me think...", True),
        ("en", "Well,", True),
        ("en", "My number is five five", True),
        ("en", "It is 0 1 7.", True),
        ("en", "My name is j o h", True),
        ("en", "Write to anna@example", True),
        ("en", "Write to anna dot", True),
        ("en", "Write to anna@example.org", False),
        ("en", "Book a flight to Paris.", False),
        ("en", "What is it like?", False),
        ("en", "I have two", False),
        ("en", "Room 12", False),
        ("en", "Stop.", False),
        ("en", "Yes und", False),
        ("de", "Ich möchte einen Tisch und", True),
        ("de-CH", "Meine Nummer ist null sieben", True),
        ("de", "Ich möchte einen Tisch.", False),
        ("fr", "Je voudrais une table pour", True),
        ("es", "Quiero una mesa para", True),
        ("it", "Vorrei un tavolo per", True),
        ("pt", "Queria uma mesa para", True),
        ("nl", "Ik wil een tafel voor", True),
        (None, "Ich möchte einen Tisch und", True),
        (None, "", False),
        (None, "—", True),
    ],
)
def test_what_breaks_off(language_code: str | None, text: str, *, expected: bool) -> None:
    """Fillers, open clauses, rows of digits and letters, addresses without an end."""
    assert is_unfinished(text, language_code) == expected


@settings(deadline=None)  # machines differ
@given(st.text(max_size=40), st.sampled_from([None, *LANGUAGES]))
def test_a_question_is_complete(text: str, language_code: str | None) -> None:
    """Whatever words it ends with; and no text raises."""
    is_unfinished(text, language_code)
    assert not is_unfinished(f"{text}?", language_code)
