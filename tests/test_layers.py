"""The rooms of the package keep their places: who may import whom, and what nobody may do."""

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[1] / "voice_fsm"

RANKS: Final = (
    {"errors"},
    {"audio", "config"},
    {"observe"},
    {"fsm", "wire"},
    {"metrics", "recording", "upstream", "vad"},
    {"stt", "chat", "tts"},
    {"speech"},
    {"runtime"},
    {"web"},
    {"checkup", "client", "diagram", "error_docs"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up; a room imports only rooms of lower ranks, and itself."""
PURE: Final = {"errors", "audio", "fsm", "recording", "wire"}
IMPURE: Final = {"trio", "httpx", "os", "time", "random", "logging", "structlog"}
SHIELDED_BLOCKS: Final = {"move_on_after", "move_on_at", "fail_after", "fail_at"}

RANK_OF: Final = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
MODULES: Final = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules imported, at the top or inside a function, for types or in earnest."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def rank_faults(room: str, tree: ast.AST) -> list[str]:
    """Imports of the package that do not point downwards."""
    ours = (name.split(".")[1] for name in imports(tree) if name.startswith("voice_fsm."))
    return [name for name in ours if name != room and RANK_OF[name] >= RANK_OF[room]]


def purity_faults(room: str, tree: ast.AST) -> list[str]:
    """Imports by which the world would enter a pure room, and asyncio anywhere."""
    forbidden = {"asyncio"} | (IMPURE if room in PURE else set())
    return [name for name in imports(tree) if name.split(".")[0] in forbidden]


def swallowing_handlers(tree: ast.AST) -> list[int]:
    """Lines of handlers that catch `trio.Cancelled`, and do not name it or do not raise it again."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or "BaseException" in _names(node.type)
            or ("Cancelled" in _names(node.type) and not _reraises(node))
        )
    ]


def endless_shields(tree: ast.AST) -> list[int]:
    """Lines of shields, by argument or by assignment, without a deadline in the same call."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and _is_shielded(node) and not _has_deadline(node))
        or (
            isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Attribute) and target.attr == "shield" for target in node.targets)
        )
    ]


def _names(expression: ast.expr) -> Iterator[str]:
    for part in ast.walk(expression):
        if isinstance(part, ast.Name | ast.Attribute):
            yield part.id if isinstance(part, ast.Name) else part.attr


def _reraises(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _is_shielded(call: ast.Call) -> bool:
    return any(
        word.arg == "shield" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
        for word in call.keywords
    )


def _has_deadline(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in SHIELDED_BLOCKS or any(
        word.arg in {"deadline", "relative_deadline"} for word in call.keywords
    )


def faults(find: Callable[[str, ast.AST], Sequence[object]]) -> dict[str, Sequence[object]]:
    """What ``find`` says of each module that it finds fault with."""
    found = {
        str(path.relative_to(PACKAGE)): find(room_of(path), ast.parse(path.read_text(encoding="utf-8")))
        for path in MODULES
    }
    return {name: told for name, told in found.items() if told}


def test_every_room_has_a_rank() -> None:
    """A new room is given its place here."""
    assert {room_of(path) for path in MODULES} == RANK_OF.keys()


def test_imports_point_downwards() -> None:
    """A room knows only the rooms below it; those of one rank ignore each other."""
    assert faults(rank_faults) == {}


def test_pure_rooms_know_no_world() -> None:
    """The core and the wire import no clock, socket, log or chance; nobody imports asyncio."""
    assert faults(purity_faults) == {}


def test_nobody_swallows_cancellation() -> None:
    """No bare ``except`` nor ``except BaseException``; who catches ``Cancelled`` raises it again."""
    assert faults(lambda _, tree: swallowing_handlers(tree)) == {}


def test_shields_have_deadlines() -> None:
    """What cannot be cancelled ends by itself."""
    found = faults(lambda _, tree: endless_shields(tree))
    assert not found


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("fsm", "from voice_fsm.runtime.session import Services", ["runtime"]),
        ("fsm", "def f():\n    import voice_fsm.wire.voice", ["wire"]),
        ("stt", "from voice_fsm import tts, upstream", ["tts"]),
        ("web", "from voice_fsm.wire.frames import TEXT; from voice_fsm.errors import Upstream", []),
    ],
)
def test_rank_faults_are_found(room: str, source: str, found: list[str]) -> None:
    """The check above finds what it looks for."""
    assert rank_faults(room, ast.parse(source)) == found


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("fsm", "import trio", ["trio"]),
        ("wire", "from time import monotonic", ["time.monotonic"]),
        ("web", "import asyncio.events", ["asyncio.events"]),
        ("web", "import trio", []),
    ],
)
def test_purity_faults_are_found(room: str, source: str, found: list[str]) -> None:
    """The check above finds what it looks for."""
    assert purity_faults(room, ast.parse(source)) == found


@pytest.mark.parametrize(
    ("handler", "found"),
    [
        ("except: pass", True),
        ("except BaseException: pass", True),
        ("except BaseException:\n  clean_up()\n  raise", True),
        ("except (ValueError, trio.Cancelled): pass", True),
        ("except trio.Cancelled:\n  put_back()\n  raise", False),
        ("except* Exception: pass", False),
    ],
)
def test_swallowing_handlers_are_found(handler: str, found: bool) -> None:
    """The check above finds what it looks for."""
    assert bool(swallowing_handlers(ast.parse(f"try:\n  pass\n{handler}"))) is found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("trio.CancelScope(shield=True)", True),
        ("trio.CancelScope(shield=urgent)", True),
        ("scope.shield = True", True),
        ("trio.CancelScope(shield=True, deadline=3)", False),
        ("trio.move_on_after(2, shield=True)", False),
    ],
)
def test_endless_shields_are_found(source: str, found: bool) -> None:
    """The check above finds what it looks for."""
    assert bool(endless_shields(ast.parse(source))) is found
