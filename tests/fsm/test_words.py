import pytest

from voice_fsm.fsm.words import key, keys, same_words


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Hello,", "hello"),
        ("Mm-hmm.", "mmhmm"),
        ("mmmmm", "mm"),
        ("SÍ", "si"),
        ("d'accord", "daccord"),
        ("—", ""),
    ],
)
def test_a_key_is_what_spellings_share(word: str, expected: str) -> None:
    """Case, accents, punctuation and drawn-out letters do not count."""
    assert key(word) == expected


def test_a_dash_is_no_word() -> None:
    """Only what can be said is compared."""
    assert keys("Well — yes!") == ["well", "yes"]


def test_texts_are_the_same_if_their_words_are() -> None:
    """A recogniser adds capitals and punctuation when it commits."""
    assert same_words("what is twelve times seven", "What is twelve times seven?")
    assert not same_words("what is twelve times", "What is twelve times seven?")
