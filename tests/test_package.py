"""What is installed is what pyproject.toml says."""

import tomllib
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_package_is_typed() -> None:
    """Type checkers of those who import it read its annotations (PEP 561)."""
    assert files("voice_fsm").joinpath("py.typed").is_file()


def test_every_command_leads_to_a_function() -> None:
    """No script of the installed package ends in an ImportError."""
    assert PROJECT["scripts"]
    for target in PROJECT["scripts"].values():
        assert callable(resolve_name(target))
