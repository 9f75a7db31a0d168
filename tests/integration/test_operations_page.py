"""docs/operations.md names what there is: settings, codes, events of the log."""

import re
from pathlib import Path
from typing import Final

from tests.integration.fault_table import PAGE
from voice_fsm.config.settings import fields
from voice_fsm.config.variables import variable_of
from voice_fsm.errors import CLIENT_FAULTS, PROVIDER_FAULTS, SESSION_FAULTS, Upstream

TEXT: Final = PAGE.read_text(encoding="utf-8")
ROOT: Final = PAGE.parents[1]


def marked(pattern: str) -> set[str]:
    """What stands in backticks and looks so."""
    return set(re.findall(rf"`({pattern})(?:=\w+)?`", TEXT))


def first_cells(heading: str) -> set[str]:
    """The marked names in the first column of a section's table."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def logged() -> set[str]:
    """The events that the code logs at info or above, outside of the serving shell."""
    calls = re.compile(r"\blog\.(?:info|warning|error|exception)\(\s*\"(\w+)\"")
    sources = (path.read_text(encoding="utf-8") for path in Path(ROOT / "voice_fsm").rglob("*.py"))
    return {event for source in sources for event in calls.findall(source)}


def test_every_setting_that_is_named_exists() -> None:
    """A variable that is renamed is renamed here too."""
    known = {variable_of(field).name for _, field in fields()}
    assert marked("[A-Z][A-Z_]{3,}") <= known | {"HTTPS_PROXY"}


def test_every_deadline_is_explained() -> None:
    """Each setting of the group has its place in the section on deadlines."""
    section = TEXT.split("\n## Deadlines and limits\n")[1].split("\n## ")[0]
    deadlines = {variable_of(field).name for group, field in fields() if group == "deadlines"}
    assert {name for name in deadlines if f"`{name}`" not in section} == set()


def test_every_code_that_is_named_exists() -> None:
    """The table of troubles lists codes of the registry, and all of those that end a session or turn."""
    known = {f"{upstream}_{fault}" for upstream in Upstream for fault in PROVIDER_FAULTS}
    troubles = first_cells("Troubleshooting by error code")
    assert troubles <= known | set(SESSION_FAULTS) | set(CLIENT_FAULTS)
    assert set(SESSION_FAULTS) <= troubles


def test_every_event_of_the_log_is_listed() -> None:
    """And no other."""
    assert first_cells("Logs") == logged()
