"""The settings in force for a command."""

import os
from pathlib import Path
from typing import Final

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.config import Settings, load_settings, retirement_warnings, spelling_warnings

DOTENV: Final = Path(".env")


def read_settings(**flags: object) -> Settings:
    """Those of the environment and .env, with what flags say in the place of their variables.

    Raises:
        click.ClickException: one of them is wrong.
    """
    given = {name: str(value) for name, value in flags.items() if value is not None}
    with in_sentences():
        return load_settings({**os.environ, **given}, _dotenv())


def warnings(settings: Settings) -> tuple[str, ...]:
    """What is allowed but hardly meant, a sentence each."""
    return spelling_warnings(os.environ, _dotenv()) + retirement_warnings(settings)


def _dotenv() -> Path | None:
    return DOTENV if DOTENV.is_file() else None
