"""The installed `baton` as a person runs it: in its own process, on a data directory and a port of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BATON = Path(sys.executable).with_name("baton")
START_SECONDS = 60
STOP_SECONDS = 30
WAIT_SECONDS = 30


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Server:
    """A running `baton up`."""

    process: subprocess.Popen[str]
    data: Path
    url: str
    key: str


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BATON_")} | more


def baton(*arguments: str | Path, **more: str) -> Ran:
    """Run a command to its end."""
    done = subprocess.run(
        [BATON, *arguments], capture_output=True, text=True, timeout=60, env=environment(**more), check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def until_lines(*arguments: str | Path, **more: str) -> list[Any]:
    """The JSON lines of a command, once there are any."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        ran = baton(*arguments, "-o", "json", **more)
        assert ran.code == 0, ran.err
        if ran.lines:
            return ran.lines
        time.sleep(0.2)
    raise AssertionError(f"baton {arguments} showed nothing within {WAIT_SECONDS} s")


def send(server: Server, activity: dict[str, Any]) -> dict[str, str]:
    """The server's verdict on an activity."""
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(server.url + "/v1/activities", json.dumps(activity).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        (result,) = json.loads(answer.read())["results"]
    verdict: dict[str, str] = result
    return verdict


@contextmanager
def started(data: Path, *arguments: str, **more: str) -> Iterator[Server]:
    """`baton up` until the end of the block; it must stop cleanly."""
    data.parent.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    with log.open("a") as err:
        process = subprocess.Popen(
            [BATON, "up", "--data", data, "--port", "0", "-o", "json", *arguments],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=environment(**more),
        )
    with process:
        try:
            assert process.stdout is not None
            is_ready = select.select([process.stdout], [], [], START_SECONDS)[0]
            line = process.stdout.readline() if is_ready else ""
            assert line, f"baton up did not start: {log.read_text()}"
            said = json.loads(line)
            yield Server(process, data, said["url"], said["api_key"])
        finally:
            process.terminate()
            code = process.wait(STOP_SECONDS)
    assert code == 0, log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("baton") / "data") as server:
        yield server
