"""Reading the settings: the only module that looks at the environment."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from voice_fsm.config.settings import Settings, fields, groups
from voice_fsm.config.variables import parse, variable_of
from voice_fsm.errors import ConfigError

_TYPO_LIKENESS: Final = 0.8
"""From this ratio of `difflib` on, an unknown variable is taken for a known one misspelt."""


def load_settings(environ: Mapping[str, str] = os.environ, dotenv_path: Path | None = None) -> Settings:
    """Read the settings from ``environ``, and from the file for what is unset there; empty is unset.

    Raises:
        ConfigError: a value is not allowed, or one that is needed is missing; it names the variable.
    """
    given = _with_derived(_with_other_names(_read(environ, dotenv_path)))
    values: dict[str, dict[str, Any]] = {name: {} for name in groups()}
    for group, field in fields():
        text = given.get(variable_of(field).name)
        if text is not None:
            values[group][field.name] = parse(field, text)
    return Settings(**{name: group(**values[name]) for name, group in groups().items()})


def spelling_warnings(
    environ: Mapping[str, str] = os.environ, dotenv_path: Path | None = None
) -> tuple[str, ...]:
    """A sentence for each variable that begins like one of ours and looks like one misspelt."""
    variables = [variable_of(field) for _, field in fields()]
    known = [name for variable in variables for name in (variable.name, variable.also) if name]
    prefixes = tuple({name.partition("_")[0] + "_" for name in known if "_" in name})
    warnings = []
    for name in sorted(_read(environ, dotenv_path).keys() - set(known)):
        meant = difflib.get_close_matches(name, known, n=1, cutoff=_TYPO_LIKENESS)
        if meant and name.startswith(prefixes):
            warnings.append(f"{name} is not a setting; {meant[0]} is.")
    return tuple(warnings)


def _read(environ: Mapping[str, str], dotenv_path: Path | None) -> dict[str, str]:
    return _read_file(dotenv_path) | _filled(environ) if dotenv_path else _filled(environ)


def _read_file(path: Path) -> dict[str, str]:
    try:
        # With interpolation, python-dotenv would look into the process's environment by itself.
        return _filled(dotenv_values(path, interpolate=False))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "cannot be read as UTF-8 text") from error


def _filled(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text.strip() for name, text in variables.items() if text and text.strip()}


def _with_other_names(given: dict[str, str]) -> dict[str, str]:
    variables = (variable_of(field) for _, field in fields())
    return {variable.name: given[variable.also] for variable in variables if variable.also in given} | given


def _with_derived(given: dict[str, str]) -> dict[str, str]:
    derived = {}
    if "ELEVENLABS_API_KEY" in given:
        derived = {
            "STT_PROVIDER": "elevenlabs",
            "TTS_PROVIDER": "elevenlabs",
            "SPEECH_ENGINE_API_KEY": given["ELEVENLABS_API_KEY"],
        }
    if "BACKEND_BASE_URL" in given:
        derived["CHAT_PROVIDER"] = "backend"
    elif "LLM_BASE_URL" in given:
        derived["CHAT_PROVIDER"] = "openai"
    elif "SPEECH_ENGINE_URL" in given:
        derived["CHAT_PROVIDER"] = "speech_engine"
    return derived | given
