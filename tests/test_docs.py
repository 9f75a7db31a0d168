"""The pages say what the code does: generated ones are fresh, the front-end guide is tried field by field."""

import ast
import importlib.util
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import attrs
import pytest

from voice_fsm import diagram, error_docs
from voice_fsm.audio import AudioFormat
from voice_fsm.cli import COMMANDS
from voice_fsm.config.settings import fields as settings_fields
from voice_fsm.config.variables import as_text, variable_of
from voice_fsm.errors import SESSION_FAULTS, ClientError, SessionFault
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import CloseSession, ErrorTold
from voice_fsm.fsm.events import Abort, Configure, TextPrompt, Tick
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.fsm.session import Session
from voice_fsm.wire import voice as wire
from voice_fsm.wire.converter import CONVERTER, wire_name

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
GUIDE: Final = (ROOT / "docs/frontend.md").read_text(encoding="utf-8")

GENERATED: Final[dict[str, Callable[[], str]]] = {
    "docs/state-machine.md": diagram.page,
    error_docs.PAGE: error_docs.page,
}
CLIENT_MESSAGES: Final = {message.type: message for message in get_args(wire.ClientMessage)}
SERVER_MESSAGES: Final = {message.type: message for message in get_args(wire.ServerMessage)}
SETTINGS: Final = {variable_of(field).name: field for _, field in settings_fields()}
NOT_OURS: Final = {"TCP_USER_TIMEOUT"}
"""Names in the docs that look like settings of ours and are others'."""
AUDIO_FORMATS: Final = re.findall(r"`((?:pcm|ulaw|alaw|mp3|opus)_[0-9_]+)`", GUIDE)

Json = dict[str, Any]


def without_code(text: str) -> str:
    """A page without its code blocks, in which a line may look like a heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# --- generated pages --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATED)
def test_generated_page_is_fresh(name: str) -> None:
    """The page in the repository is the one that the code makes."""
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name]()


def test_error_page_is_written(tmp_path: Path) -> None:
    """The command writes what the test above compares."""
    (tmp_path / "docs").mkdir()
    error_docs.main(tmp_path)
    assert (tmp_path / error_docs.PAGE).read_text(encoding="utf-8") == error_docs.page()


# --- error codes ------------------------------------------------------------------------------------


def test_every_code_comes_from_the_registry() -> None:
    """Nobody makes up a code where it is sent: errors.md would not list it."""
    literal = [
        f"{path.name}:{node.value.lineno}"
        for path in (ROOT / "voice_fsm").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword)
        and node.arg == "code"
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    assert literal == []


AT_THE_DOOR: Final = {SessionFault.OVERLOADED, SessionFault.UNAUTHORIZED}


@pytest.mark.parametrize("fault", [fault for fault in SessionFault if fault not in AT_THE_DOOR])
def test_session_faults_end_what_the_page_says(fault: SessionFault) -> None:
    """The core tells each code as retryable and fatal as its row, and closes with its close code.

    Those told at the door come before there is a core: see ``tests/web/test_voice.py``.
    """
    session = Session(Limits(configure_within_s=1, thinking_s=1), at_s=0.0)
    if fault == SessionFault.TURN_TIMEOUT:
        session.receive(Configure(at_s=0.0, session_id="s", options=SessionOptions()))
        session.receive(TextPrompt(at_s=0.0, text="hello"))
    if fault == SessionFault.INTERNAL_ERROR:
        effects = session.receive(Abort(at_s=0.0, reason="error", close_code=1011, code=fault, message=""))
    else:
        effects = session.receive(Tick(at_s=session.deadline_s))
    (told,) = [effect for effect in effects if isinstance(effect, ErrorTold)]
    close_codes = [effect.close_code for effect in effects if isinstance(effect, CloseSession)]
    retryable, close_code, _ = SESSION_FAULTS[fault]
    assert (told.code, told.retryable, told.fatal) == (fault, retryable, close_code is not None)
    assert close_codes == ([] if close_code is None else [close_code])


# --- the front-end guide: messages ------------------------------------------------------------------


def section(name: str) -> str:
    """The guide's section of one message, without its heading."""
    _, heading, rest = GUIDE.partition(f"\n### `{name}`\n")
    assert heading, f"docs/frontend.md has no section of {name}"
    return re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(name: str) -> list[list[str]]:
    """The cells of the table in a message's section; the first is the field's path."""
    lines = [line for line in section(name).splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [[path.strip("`"), *rest] for path, *rest in cells]


def examples(kind: str) -> list[Json]:
    """All examples in the guide of one kind: ``client`` or ``server``."""
    blocks = re.findall(rf"^```json {kind}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [json.loads(block) for block in blocks]


def paths(message: Any, whole: set[str]) -> Iterator[str]:
    """The paths of a message's fields; those in ``whole`` stand for all below them."""
    for field in attrs.fields(message):
        parts = [part for part in get_args(field.type) if attrs.has(part) and part is not AudioFormat]
        name = wire_name(field.name)
        if parts and name not in whole:
            yield from (f"{name}.{path}" for path in paths(parts[0], set()))
        else:
            yield name


def test_guide_has_a_section_for_each_message_and_no_other() -> None:
    """Both lists are complete."""
    found = re.findall(r"^### `(.+)`$", without_code(GUIDE), re.MULTILINE)
    assert sorted(found) == sorted([*CLIENT_MESSAGES, *SERVER_MESSAGES])


@pytest.mark.parametrize("name", CLIENT_MESSAGES)
def test_client_table_has_each_field(name: str) -> None:
    """No field of a client message is missing, none is made up."""
    told = rows(name)
    whole = {path for path, kind, *_ in told if kind.startswith("as in")}
    assert sorted(path for path, *_ in told) == sorted(paths(CLIENT_MESSAGES[name], whole))


def test_every_client_message_has_an_example_that_decodes() -> None:
    """What the guide shows is what the server takes."""
    decoded = [wire.decode(json.dumps(example)) for example in examples("client")]
    assert {message.type for message in decoded} == CLIENT_MESSAGES.keys()


def names(listed: str) -> list[str]:
    return re.findall(r"`([^`]+)`", listed)


TRIALS: Final[dict[str, Callable[..., tuple[Sequence[object], Sequence[object]]]]] = {
    "true or false": lambda: ([True, False], ["true", 1]),
    "base64": lambda: (["", "AAA="], ["%", "AAA", 5]),
    "audio format": lambda: (AUDIO_FORMATS, ["pcm_12345", "flac_44100", 5]),
    "string or whole number": lambda: (["x", 5], [0.5, True]),
    "string": lambda: (["x"], [5]),
    r"string, at most (\d+) characters": lambda most: (["x" * int(most)], ["x" * (int(most) + 1), 5]),
    r"string, 1 to (\d+) characters": lambda most: (["x", "x" * int(most)], [" ", "x" * (int(most) + 1), 5]),
    r"URL, at most (\d+) characters": lambda most: (
        ["http://host", "https://host/".ljust(int(most), "x")],
        ["https://host/".ljust(int(most) + 1, "x"), "ftp://host", "host"],
    ),
    r"one of (`.+`)": lambda listed: (names(listed), ["no-such-thing", 5]),
    r"list of (`.+`)": lambda listed: ([[], names(listed)], [["no-such-thing"], names(listed)[0]]),
    r"one of ([\d, ]+)": lambda listed: ([int(number) for number in listed.split(",")], [12345, "8000"]),
    r"whole number, at least (\d+)": lambda low: ([int(low)], [int(low) - 1, int(low) + 0.5]),
    r"whole number, (\d+) to (\d+)": lambda low, high: (
        [int(low), int(high)],
        [int(low) - 1, int(high) + 1, int(low) + 0.5],
    ),
    r"number, at least ([\d.]+)": lambda low: ([float(low), float(low) + 0.5], [float(low) - 0.01, "1"]),
    r"number, above ([\d.]+)": lambda low: ([float(low) + 0.01], [float(low), "1"]),
    r"number, ([\d.]+) to ([\d.]+)": lambda low, high: (
        [float(low), float(high)],
        [float(low) - 0.01, float(high) + 0.01, "1"],
    ),
}
"""What a cell of the type column may say, and the values at its borders: those inside, those outside."""


def trial(kind: str) -> tuple[Sequence[object], Sequence[object]]:
    for pattern, make in TRIALS.items():
        if match := re.fullmatch(pattern, kind):
            return make(*match.groups())
    raise AssertionError(f"the type column says {kind!r}, which this test cannot try")


def with_value(message: Json, path: str, value: object) -> str:
    """A message as text, with the field at ``path`` set."""
    changed: Json = json.loads(json.dumps(message))
    *groups, name = path.split(".")
    inner = changed
    for group in groups:
        inner = inner.setdefault(group, {})
    inner[name] = value
    return json.dumps(changed)


@pytest.mark.parametrize(
    ("name", "path", "kind", "default"),
    [
        pytest.param(name, path, kind, default, id=f"{name}-{path}")
        for name in CLIENT_MESSAGES
        for path, kind, default, _ in rows(name)
        if not kind.startswith("as in")
    ],
)
def test_server_takes_what_the_type_column_says_and_no_more(
    name: str, path: str, kind: str, default: str
) -> None:
    """Values at the borders are taken; values beyond, and leaving out what has no default, are refused."""
    (example, *_) = [example for example in examples("client") if example["type"] == name]
    needed = {field for field, _, given, _ in rows(name) if not given}
    least = {field: value for field, value in example.items() if field in {"type", *needed}}
    taken, refused = trial(kind)
    for value in taken:
        wire.decode(with_value(least, path, value))
    for value in refused:
        with pytest.raises(ClientError) as caught:
            wire.decode(with_value(least, path, value))
        assert (caught.value.field or "").startswith(path), value
    if not default:
        del least[path]
        with pytest.raises(ClientError, match="is required"):
            wire.decode(json.dumps(least))


@pytest.mark.parametrize("name", SERVER_MESSAGES)
def test_server_table_has_each_field(name: str) -> None:
    """No field of an event is missing or made up, and those that may be left out are marked."""
    fields = {
        wire_name(field.name): field.default is None
        for field in attrs.fields(SERVER_MESSAGES[name])
        if field.name != "turn_id" or field.default is None
    }
    assert {path: "*Optional*" in meaning for path, meaning in rows(name)} == fields


def test_every_event_has_an_example_that_the_server_would_send() -> None:
    """Read back into its class and encoded again, each example is itself, field for field."""
    shown = examples("server")
    assert {example["type"] for example in shown} == SERVER_MESSAGES.keys()
    for example in shown:
        message = CONVERTER.structure(example, SERVER_MESSAGES[example["type"]])
        assert json.loads(wire.encode(message, example["seq"])) == example


def test_guide_has_examples_with_all_optional_fields() -> None:
    """What may be left out is shown at least once, but for what this server never sends."""
    shown = {(example["type"], name) for example in examples("server") for name in example}
    optional = {
        (name, wire_name(field.name))
        for name, message in SERVER_MESSAGES.items()
        for field in attrs.fields(message)
        if field.default is None
    }
    assert optional - shown == {("session.closing", "resume")}


# --- settings, limits, commands ---------------------------------------------------------------------


def test_limits_are_the_settings_defaults() -> None:
    """The guide's table of limits has the numbers that the server has."""
    limits = re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", GUIDE, re.MULTILINE)
    assert len(limits) > 5
    for name, default in limits:
        assert as_text(SETTINGS[name].default) == default, name


def test_close_codes_of_the_errors_are_in_the_guide() -> None:
    """Whoever looks up a code with which the server closes finds what to do."""
    listed = {int(code) for code in re.findall(r"^\| (1\d{3}) \|", GUIDE, re.MULTILINE)}
    assert {code for _, code, _ in SESSION_FAULTS.values() if code} | {1000, 1012} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_commands_and_settings_that_exist(page: Path) -> None:
    """No page sends its reader to a command, a module or a setting that is not there."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:^|[/`])voice-fsm ([a-z][a-z-]+)", text, re.MULTILINE):
        assert name in COMMANDS, name
    for name in re.findall(r"python3? -m (voice_fsm[\w.]*)", text):
        assert importlib.util.find_spec(name), name
    prefixes = tuple({f"{name.partition('_')[0]}_" for name in SETTINGS if "_" in name})
    for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", text):
        assert name in {*SETTINGS, *NOT_OURS} or not name.startswith(prefixes), name


def test_readme_leads_to_what_is_there() -> None:
    """The commands for a fresh machine install extras that exist and run scripts that can be run."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"\.\[([\w,]+)\]", text)
    assert extras
    for extra in ",".join(extras).split(","):
        assert extra in project["optional-dependencies"]
    assert "voice-fsm" in project["scripts"]
    page = (ROOT / "voice_fsm/web/console/index.html").read_text(encoding="utf-8")
    for label in re.findall(r"(?:press|then) \*([^*]+)\*", text):
        assert f">{label}</button>" in page, label
    assert ".ci/test" in text
    assert os.access(ROOT / ".ci/test", os.X_OK)


def test_docstrings_name_pages_that_exist() -> None:
    """The code sends its reader to no page that is not there."""
    for path in (ROOT / "voice_fsm").rglob("*.py"):
        for name in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), (path.name, name)


# --- links ------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link inside the repository names a file, and a heading in it, that is there."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target
