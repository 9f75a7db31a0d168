"""Write ``docs/configuration.md`` and ``.env.example`` anew: ``python -m voice_fsm.config.docs``."""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from voice_fsm.config.settings import groups
from voice_fsm.config.variables import Variable, allowed, as_text, variable_of

_COMMENT_CHARS: Final = 100
_MARKDOWN_INTRO: Final = """\
# Configuration

<!-- Made by `python -m voice_fsm.config.docs` from the declarations in voice_fsm/config/settings.py. -->

The server reads these variables once, when it starts: from its environment, and for what is unset there from
the file `.env` in the directory it is started in. An empty value is the same as none. A value that is not
allowed stops the start with a message that names the variable. Truth is `true`, `1`, `yes` or `on`, and
`false`, `0`, `no` or `off`. Secrets are never logged.
"""
_ENV_INTRO: Final = """\
# Copy this file to .env and uncomment what you change; what stands here are the defaults.
# docs/configuration.md tells what is allowed. The process's own environment goes before this file.
"""


def configuration_md() -> str:
    """The text of ``docs/configuration.md``: a table for each group of settings."""
    return "\n".join([_MARKDOWN_INTRO, *map(_markdown_group, groups().values())])


def env_example() -> str:
    """The text of ``.env.example``: each variable with its default, commented out."""
    return "\n".join([_ENV_INTRO, *map(_env_group, groups().values())])


FILES: Final[dict[str, Callable[[], str]]] = {
    "docs/configuration.md": configuration_md,
    ".env.example": env_example,
}
"""What this module writes, by its path in the repository."""


def main(root: Path) -> None:
    """Write both files below ``root``, the repository."""
    for name, text in FILES.items():
        (root / name).write_text(text(), encoding="utf-8")


def _markdown_group(group: Any) -> str:  # noqa: ANN401  # a group's class
    rows = [
        f"| `{variable.name}` | {_default(field)} | {allowed(field)} | {_meaning(variable)} |"
        for field, variable in ((field, variable_of(field)) for field in attrs.fields(group))
    ]
    head = ["| variable | default | allowed | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {group.__name__}", "", inspect.cleandoc(group.__doc__), "", *head, *rows, ""])


def _default(field: "attrs.Attribute[Any]") -> str:
    derived = variable_of(field).derived
    if derived:
        return derived
    text = as_text(field.default)
    return f"`{text}`" if text else "unset"


def _meaning(variable: Variable) -> str:
    also = f" The name {variable.also} works too." if variable.also else ""
    return f"{variable.help}{also}{' Secret.' if variable.secret else ''}"


def _env_group(group: Any) -> str:  # noqa: ANN401  # a group's class
    lines = [f"# --- {group.__name__} ---", *_comment(inspect.cleandoc(group.__doc__)), ""]
    for field in attrs.fields(group):
        lines += _env_variable(field)
    return "\n".join([*lines, ""])


def _env_variable(field: "attrs.Attribute[Any]") -> Iterator[str]:
    variable = variable_of(field)
    yield from _comment(_meaning(variable))
    if variable.derived:
        yield from _comment(f"Unset: {variable.derived}.")
    text = as_text(field.default)
    yield f'#{variable.name}="{text}"' if " " in text else f"#{variable.name}={text}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        _COMMENT_CHARS,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
    )


if __name__ == "__main__":  # pragma: no cover  # the command; what it does is main
    main(Path(__file__).parents[2])
