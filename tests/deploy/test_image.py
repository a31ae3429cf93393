"""deploy/Dockerfile: what it copies exists, what it installs is pinned, what it runs is nobody special."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from tests.support import ROOT

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def pins(path: Path) -> set[str]:
    """name==version of a lock file, with what it says of platforms."""
    return set(re.findall(r"^([a-z0-9._-]+==[^ \\;]+)", path.read_text(), re.MULTILINE))


def test_only_the_first_stage_builds_and_the_second_runs_as_nobody_special() -> None:
    build, run = DOCKERFILE.split("FROM python:${PYTHON}")[1:]
    assert build.startswith(" AS build")
    assert "pip" not in run
    assert re.findall(r"^USER (.*)$", run, re.MULTILINE) == ["10001:10001"]


def test_what_it_copies_exists_and_is_sent_to_the_builder() -> None:
    kept = [line.removeprefix("!") for line in IGNORED if line.startswith("!")]
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(sources) >= 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in kept), f"{source} is ignored"


def test_every_installation_is_from_a_lock_or_of_our_own_wheel() -> None:
    installs = re.findall(r"pip install (.*)$", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-index /wheels/" in install


def test_its_locks_are_parts_of_the_one_that_is_tested() -> None:
    tested = pins(ROOT / "requirements.lock")
    run, build = pins(ROOT / "deploy/requirements.lock"), pins(ROOT / "deploy/build.lock")
    assert run < tested
    assert build < tested
    assert len(run) > 30
    names = {pin.partition("==")[0] for pin in run}
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "check-jsonschema"}


def test_every_pin_of_a_lock_has_a_hash() -> None:
    for name in ("deploy/requirements.lock", "deploy/build.lock"):
        blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / name).read_text())
        assert [block.split(" ")[0] for block in blocks if "--hash=sha256:" not in block] == []
