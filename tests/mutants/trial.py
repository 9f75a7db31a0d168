"""Puts a mutant in the place of the core, and looks whether a test notices."""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Final

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import voice_fsm.fsm
from tests.fsm import test_model, test_playback, test_session
from tests.mutants.table import Mutant

PACKAGE: Final = voice_fsm.fsm.__name__
REBUILT: Final = (
    *("playback", "backchannels", "barge_in", "echo", "turn", "facts"),
    *("deadlines", "actions", "chart", "machine", "session"),
)
"""What of the core holds behaviour, each after those that it imports; data and tables of words stay."""
SAME_EVENTS: Final = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
"""Each time; and a failure is not made smaller, since it is only asked whether there is one."""
MODEL: Final = "the model"


def mutated_source(mutant: Mutant) -> str:
    """The module with the fault.

    Raises:
        LookupError: the place or the text is not there, or not once.
    """
    source = _path(mutant.module).read_text("utf-8")
    places = [node for node in ast.walk(ast.parse(source)) if mutant.place in _names(node)]
    if len(places) != 1:
        raise LookupError(f"{mutant}: {len(places)} places of this name")
    segment = ast.get_source_segment(source, places[0], padded=True) or ""
    if segment.count(mutant.old) != 1:
        raise LookupError(f"{mutant}: the text stands there {segment.count(mutant.old)} times")
    return source.replace(segment, segment.replace(mutant.old, mutant.new))


def is_noticed(mutant: Mutant, by: str) -> bool:
    """Whether that test fails, in one of its cases.

    Raises:
        LookupError: there is no such test, or the mutant cannot be made.
    """
    with in_place(mutant):
        checks = [check for name, check in _checks() if name == by]
        if not checks:
            raise LookupError(f"{mutant}: no test {by}")
        return any(_fails(check) for check in checks)


def _fails(check: Callable[[], object]) -> bool:
    try:
        with redirect_stdout(StringIO()):  # what Hypothesis found
            check()
    except Exception:  # noqa: BLE001  # whatever a test fails with
        return True
    return False


@contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """Within it the tests' modules use the mutant."""
    source = mutated_source(mutant)
    before = {_name(module): sys.modules[_name(module)] for module in REBUILT}
    tests = {module: dict(vars(module)) for module in (test_model, test_playback, test_session)}
    try:
        for module in REBUILT:
            _rebuild(module, source if module == mutant.module else None)
        for importer in tests:
            _use_rebuilt(importer)
        yield
    finally:
        sys.modules |= before
        for importer, names in tests.items():
            vars(importer).update(names)


def _rebuild(module: str, source: str | None) -> None:
    built = ModuleType(_name(module))
    sys.modules[built.__name__] = built
    path = _path(module)
    exec(compile(source or path.read_text("utf-8"), path, "exec"), vars(built))  # noqa: S102  # our own source


def _use_rebuilt(tests: ModuleType) -> None:
    for name, value in list(vars(tests).items()):
        home = getattr(value, "__module__", None)
        if home in {_name(module) for module in REBUILT}:
            setattr(tests, name, getattr(sys.modules[home], name))


def _checks() -> Iterator[tuple[str, Callable[[], object]]]:
    """The model, then one example after the other."""
    yield MODEL, lambda: run_state_machine_as_test(test_model.AgainstTheModel, settings=SAME_EVENTS)
    for tests in (test_session, test_playback):
        for name, test in vars(tests).items():
            if name.startswith("test_"):
                yield from ((name, partial(test, **case)) for case in _cases(test))


def _cases(test: Callable[..., object]) -> Iterator[dict[str, object]]:
    """What pytest would call a test with."""
    columns = []
    for mark in getattr(test, "pytestmark", []):
        names, values = mark.args
        names = names.split(", ") if isinstance(names, str) else names
        columns.append([dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in values])
    for rows in product(*columns):
        yield {name: value for row in rows for name, value in row.items()}


def _names(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef():
            return {node.name}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def _name(module: str) -> str:
    return f"{PACKAGE}.{module}"


def _path(module: str) -> Path:
    return Path(voice_fsm.fsm.__path__[0], f"{module}.py")
