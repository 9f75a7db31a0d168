import io
from pathlib import Path

import pytest
from dotenv import dotenv_values

from voice_fsm.config import Settings, load_settings
from voice_fsm.config import docs as config_docs
from voice_fsm.config.settings import fields
from voice_fsm.config.variables import variable_of

ROOT = Path(__file__).parents[1]
VARIABLES = [variable_of(field) for _, field in fields()]


@pytest.mark.parametrize("name", config_docs.FILES)
def test_document_says_what_the_settings_are(name: str) -> None:
    """The file in the repository is the one that the declarations make."""
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == config_docs.FILES[name](), f"{name} is out of date: run python -m voice_fsm.config.docs"


def test_both_files_are_written(tmp_path: Path) -> None:
    """The command writes what the test above compares."""
    (tmp_path / "docs").mkdir()
    config_docs.main(tmp_path)
    for name, text in config_docs.FILES.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text()


def test_names_are_used_once() -> None:
    """No two settings share a variable."""
    names = [variable.name for variable in VARIABLES]
    assert len(set(names)) == len(names)


def test_table_has_a_row_for_each_variable() -> None:
    """Every setting is documented, with what it means, in one line of four columns."""
    rows = [line for line in config_docs.configuration_md().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [variable.name for variable in VARIABLES]
    for row, variable in zip(rows, VARIABLES, strict=True):
        assert row.count("|") == 5
        assert variable.help in row
        assert row.endswith("Secret. |" if variable.secret else ". |")


def test_example_changes_nothing_as_it_stands() -> None:
    """Copied to .env unedited, the example sets nothing."""
    assert dotenv_values(stream=io.StringIO(config_docs.env_example())) == {}


def test_example_uncommented_gives_the_defaults() -> None:
    """The values in the example are the defaults, in a form that the server reads."""
    lines = config_docs.env_example().splitlines()
    uncommented = [line[1:] for line in lines if line.startswith("#") and not line.startswith("# ")]
    values = dotenv_values(stream=io.StringIO("\n".join(uncommented)))
    assert list(values) == [variable.name for variable in VARIABLES]
    assert load_settings({name: value for name, value in values.items() if value}) == Settings()


def test_example_lines_fit_a_screen() -> None:
    """Comments are wrapped."""
    assert max(map(len, config_docs.env_example().splitlines())) <= 100
