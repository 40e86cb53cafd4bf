"""The house: which room may use which, read from the files themselves."""

import ast
import io
import sys
import threading
import tokenize
from importlib import import_module
from pathlib import Path
from types import FrameType

import pytest

import thanx_async
from tests.helpers import TARGET
from thanx_async import AsyncBatcher, SQLiteLedger, ThanxClient
from thanx_async.emulator import Emulator

PACKAGE = Path(thanx_async.__file__).parent
FLOORS = (
    {"_core", "instrumentation", "_version", "emulator"},
    {"limiter", "models", "retry"},
    {"identifiers", "_decoding", "_batches", "otel"},
    {"http", "ledger", "webhooks"},
    {"jobs"},
    {"client", "batching"},
    {"batcher", "errors", "pytest_plugin"},
    {"outbox"},
    {"postgres", "redis"},
    {"cli", "__init__"},
    {"__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, 1) for room in rooms}
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(name: str) -> set[str]:
    """The files of the package that a file imports: at run time, within functions, and for typing."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            module = (node.module or "").partition("thanx_async")[2].removeprefix(".")
            if (node.module or "").split(".")[0] == "thanx_async":
                inner = {f"{module}.{alias.name}".removeprefix(".") for alias in node.names}
                found |= {part if part in FILES else module or "__init__" for part in inner}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("thanx_async") for alias in node.names), name
    return found


IMPORTS = {name: imports(name) for name in FILES}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_imports_run_downwards() -> None:
    """A room uses only rooms of lower floors; of the emulator only those know that run it."""
    for name, used in IMPORTS.items():
        for other in used:
            if room(other) != room(name):
                assert FLOOR[room(other)] < FLOOR[room(name)], f"{name} imports {other}"
            if room(other) == "emulator":
                assert room(name) in {"emulator", "cli", "pytest_plugin"}, f"{name} imports {other}"


def test_a_room_is_entered_by_its_door() -> None:
    """A file with an underscore is imported within its room only, and no file imports its own door."""
    for name, used in IMPORTS.items():
        for other in used:
            inside = room(name) == room(other)
            private = "." in other and other.rpartition(".")[2].startswith("_")
            assert inside or not private, f"{name} imports {other}"
            assert not inside or other != room(name), f"{name} imports its own door"


def test_no_circles() -> None:
    """No file reaches itself over its imports, of whatever kind they are."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in IMPORTS.get(name, ()):
                visit(other, (*way, name))
            done.add(name)

    for name in FILES:
        visit(name, ())


@pytest.mark.realtime
async def test_the_way_of_one_guest(tmp_path: Path) -> None:
    """Issuing and waiting with a ledger enters few rooms, over few doorsteps, and never calls upwards."""
    steps: set[tuple[str, str]] = set()

    def see(frame: FrameType, event: str, _: object) -> None:
        to, back = room_of(frame), room_of(frame.f_back)
        if event == "call" and to and back and to != back and "emulator" not in {to, back}:
            steps.add((back, to))

    async with (
        Emulator() as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
        SQLiteLedger(tmp_path / "ledger.sqlite") as ledger,
    ):
        batcher = AsyncBatcher(client, **TARGET, ledger=ledger)
        threading.setprofile(see)
        sys.setprofile(see)
        try:
            run = await batcher.issue(["guest@example.com"])
            assert (await run.wait()).issued == 1
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert [step for step in steps if FLOOR[step[1]] >= FLOOR[step[0]]] == []
    assert len({entered for step in steps for entered in step}) <= 12
    assert len(steps) <= 20


def room_of(frame: FrameType | None) -> str | None:
    """The room of the function that is called."""
    path = Path(frame.f_code.co_filename) if frame else Path()
    return path.relative_to(PACKAGE).with_suffix("").parts[0] if PACKAGE in path.parents else None


def test_the_public_names_are_complete() -> None:
    """Whatever the package declares for its users is in the one sorted list, and is there when asked for."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("thanx_async.")
        for alias in node.names
    }
    declared = {name: home for name, home in declared.items() if "._core" not in home}
    assert set(declared) == set(thanx_async.__all__) == set(dir(thanx_async))
    assert thanx_async.__all__ == sorted(thanx_async.__all__, key=_rank)
    for name, home in declared.items():
        assert getattr(thanx_async, name) is getattr(import_module(home), name), name
    assert thanx_async.errors.ThanxError is thanx_async.ThanxError
    assert not hasattr(thanx_async, "Typo")


def _rank(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_files_stay_small() -> None:
    """No file of the package has more than 250 lines of code, and few stand at its top."""
    assert {name for name, path in FILES.items() if lines_of_code(path.read_text()) > 250} == set()
    assert len(list(PACKAGE.glob("*.py"))) <= 16


def lines_of_code(text: str) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    silent = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.end_lineno
        for line in range(node.lineno, node.end_lineno + 1)
    }
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - silent)
