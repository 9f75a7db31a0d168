import pytest

from voice_fsm.fsm import backchannels, unfinished
from voice_fsm.fsm.languages import LANGUAGES, language_of


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("pt_BR", "pt"),
        ("DEU", "de"),
        ("dut", "nl"),
        ("xx", None),
        (None, None),
    ],
)
def test_codes_of_all_kinds_name_a_language(code: str | None, language: str | None) -> None:
    """Two letters, three letters, with a region or without."""
    assert language_of(code) == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_is_known_to_all_tables(language: str) -> None:
    """A language is added everywhere or nowhere."""
    tables = (
        backchannels._LISTENING,  # the tables' completeness is what is tested
        backchannels._COMMANDS,
        unfinished._DANGLING,
        unfinished._DIGITS,
    )
    assert all(language in table for table in tables)
