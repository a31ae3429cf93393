"""The rules of the house that a linter has no word for."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))


def lines_with(pattern: str, files: list[Path]) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if found.search(line)
    ]


def test_there_is_source_to_look_at() -> None:
    assert len(SOURCE) > 30
    assert len(TESTS) > 10


def test_only_the_database_module_commits() -> None:
    """aiokafka's own word for telling the group an offset, a hint, is the one other `commit`."""
    committing = {place.split(":")[0] for place in lines_with(r"\.commit\(", SOURCE)}
    assert committing == {"shared/db.py", "shared/kafka/consumer.py"}
    assert len(lines_with(r"\.commit\(", [ROOT / "shared/kafka/consumer.py"])) == 1


def test_the_source_silences_no_type_error() -> None:
    assert lines_with(r"type:\s*ignore", SOURCE) == []


def test_tests_do_not_patch_our_own_code() -> None:
    words = ("monkeypatch" + r"\.setattr", "mock" + r"\.patch", "unittest" + r"\.mock")
    assert [place for word in words for place in lines_with(word, TESTS)] == []


def test_no_committed_file_names_a_package_registry() -> None:
    hosts = "|".join(("pypi" + r"\.org", "python" + "hosted", r"registry\." + "npmjs", r"repo1?\." + "maven"))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [ROOT / name for name in listed if (ROOT / name).suffix not in {".png", ".svg"} and (ROOT / name).is_file()]
    assert lines_with(hosts, files) == []


def statements_outside_store_modules() -> Iterator[str]:
    """Calls of `sql()` in a service, where they do not belong."""
    for path in ROOT.glob("services/**/*.py"):
        if "migrations" in path.parts or "store" in path.as_posix().removeprefix(ROOT.as_posix()):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"sql", "Statement"}:
                yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_the_statements_of_a_service_stand_in_its_store() -> None:
    allowed = ("checks.py",)
    assert [place for place in statements_outside_store_modules() if not place.split(":")[0].endswith(allowed)] == []


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_built_at_import(path: Path) -> None:
    """A module may define and register; it may not open, connect, or start anything."""
    forbidden = {"Database", "KafkaBus", "EmbeddedBus", "FastAPI", "create_engine", "create_async_engine", "open"}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Expr)) and node.value is not None:
            calls = [call for call in ast.walk(node.value) if isinstance(call, ast.Call)]
            names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
            assert not names & forbidden
