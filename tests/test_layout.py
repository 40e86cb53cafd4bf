import ast
from importlib import import_module
from pathlib import Path

import thanx_async

PACKAGE = Path(thanx_async.__file__).parent
FLOORS = [
    ["_version", "_waits", "_core"],
    ["_checks"],
    ["models"],
    [
        "_structure",
        "identifiers",
        "_batches",
        "instrumentation",
        "_limiter_state",
        "_rate_limit",
        "_report",
        "_shield",
        "_speed",
    ],
    ["_refusal", "_limiter_store", "_limiter_types"],
    ["_pacing", "_limiter_sqlite"],
    ["_limiter_queue"],
    ["_chunking", "_polling", "wire", "retry", "limiter", "_guard"],
    ["_ledger_records", "_ledger_owner", "_ledger_schema", "_ledger_bodies"],
    ["_ledger_runs"],
    ["_ledger_store"],
    ["_delivery", "_exchange", "_settings"],
    ["_transport", "_catalogue", "_webhook_events", "otel", "ledger"],
    ["_turns"],
    ["_watching", "_webhook_endpoints"],
    ["jobs", "webhooks"],
    ["client", "_source", "_entry"],
    ["_revoke", "_watch", "_past"],
    ["_accounts"],
    ["_journal", "_stream", "_outcomes", "_waiting", "_plan"],
    ["_batching_rules"],
    ["_collector"],
    ["_service"],
    ["batcher", "errors"],
    ["pytest_plugin"],
    ["_cli_status", "_cli_options"],
    ["_cli_input", "_cli_limiter", "_cli_output"],
    ["_cli_recorded"],
    ["_cli_run"],
    ["_cli_catalogue", "_cli_job", "_cli_emulator", "_cli_ledger"],
    ["_cli_resume", "_cli_issue"],
    ["cli"],
    ["__main__"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports at run time."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            parts = (node.module or "").split(".")
            if parts[0] == "thanx_async":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_imports_run_downwards() -> None:
    """A module imports only from floors below its own, and the emulator nothing but itself."""
    for path in PACKAGE.glob("*.py"):
        if path.stem == "__init__":
            continue
        allowed = {name for name, floor in FLOOR.items() if floor < FLOOR[path.stem]}
        if "cli" in path.stem or path.stem == "pytest_plugin":
            allowed |= {"emulator"}
        assert imported(path) <= allowed, path.name
    for path in (PACKAGE / "emulator").glob("*.py"):
        assert imported(path) <= {"emulator"}, path.name


def test_the_public_names_are_complete() -> None:
    """Whatever the package declares for its users is in the one sorted list, and is there when asked for."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("thanx_async.")
        for alias in node.names
    }
    assert set(declared) == set(thanx_async.__all__) == set(dir(thanx_async))
    assert thanx_async.__all__ == sorted(thanx_async.__all__, key=_rank)
    for name, home in declared.items():
        assert getattr(thanx_async, name) is getattr(import_module(home), name), name
    assert thanx_async.errors.ThanxError is thanx_async.ThanxError
    assert not hasattr(thanx_async, "Typo")


def _rank(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_files_stay_small() -> None:
    """No file of the package is longer than about 250 lines."""
    assert {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 280} == set()
