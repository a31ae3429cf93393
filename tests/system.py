"""The whole system as processes of its own, on either profile, for tests that watch it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from shared.bus import Bus
from shared.cli.demo import AGREEMENTS
from shared.embedded import EmbeddedBus
from shared.kafka import KafkaBus
from tests.support import KAFKA_LIMITS, delete_topics, fresh_postgresql_database

Profile = Literal["embedded", "cluster"]
PROFILES = ["embedded", pytest.param("cluster", marks=[pytest.mark.kafka, pytest.mark.postgres])]
START_SECONDS = 60.0


@dataclass
class System:
    """`baton up` on one set of data, to be started, killed and started again."""

    profile: Profile
    directory: Path
    settings: Mapping[str, str]
    process: subprocess.Popen[str] | None = None
    announced: dict[str, Any] = field(default_factory=dict)
    deaths: int = 0

    @property
    def environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}
        return plain | {"BATON_DATA_DIRECTORY": str(self.directory), **self.settings}

    def start(self, *, roles: str | None = None, **more: str) -> None:
        """Start, and wait until it is ready. `more`: settings of this start alone."""
        command = [sys.executable, "-m", "shared.cli", "up", "--port", "0", "-o", "json"]
        command += ["--roles", roles] if roles else []
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment | more, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        is_heard = select.select([self.process.stdout], [], [], START_SECONDS)[0]
        line = self.process.stdout.readline() if is_heard else ""
        assert line, f"it did not start: {self.log()[-3000:]}"
        self.announced = json.loads(line)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def is_dead(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def revive(self) -> bool:
        """Start it again if it was killed; whether it was."""
        if not self.is_dead():
            return False
        assert self.process is not None
        assert self.process.returncode == -signal.SIGKILL, self.log()[-3000:]
        self.deaths += 1
        self.stop()
        self.start()
        return True

    def log(self) -> str:
        return (self.directory / "server.log").read_text()

    def client(self) -> httpx.Client:
        bearer = {"Authorization": f"Bearer {self.announced['api_key']}"}
        return httpx.Client(base_url=self.announced["url"], headers=bearer, timeout=10.0, trust_env=False)

    def publish_agreement(self, name: str = "acme.yaml") -> None:
        """Draft, sign by both heads, publish."""
        with self.client() as client:
            content = (AGREEMENTS / name).read_bytes()
            draft = client.post("/v1/agreements", content=content, headers={"Content-Type": "application/yaml"}).json()
            for party, head in (("marketing", "mia@acme.example"), ("sales", "sam@acme.example")):
                signature = {"party": party, "signed_by": head, "sha256": draft["sha256"]}
                client.post(f"/v1/agreements/{draft['id']}/signatures", json=signature).raise_for_status()
            client.post(f"/v1/agreements/{draft['id']}/publication").raise_for_status()

    def secrets(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "secrets.json").read_text())
        return found

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `baton ...` on the same data."""
        return subprocess.run(
            [sys.executable, "-m", "shared.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def findings(self) -> list[dict[str, str]]:
        """What `baton check` finds, with no grace: everything is said to be settled."""
        answer = self.command("check", "--grace", "0", "-o", "json")
        found: list[dict[str, str]] = json.loads(answer.stdout)["findings"]
        return found

    def bus(self) -> Bus:
        """The event log, read beside the system."""
        if self.profile == "embedded":
            return EmbeddedBus(self.directory / "log.sqlite", read_only=True)
        return KafkaBus(
            self.settings["BATON_KAFKA_BOOTSTRAP"], prefix=self.settings["BATON_TOPIC_PREFIX"], limits=KAFKA_LIMITS
        )


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def system_of(profile: Profile, request: pytest.FixtureRequest, directory: Path) -> Iterator[System]:
    """A system on fresh data, not started; whatever runs at the end is killed."""
    if profile == "embedded":
        with _ended(System(profile, directory, {})) as system:
            yield system
        return
    kafka, prefix = request.getfixturevalue("kafka_server"), f"s{secrets.token_hex(4)}."
    with fresh_postgresql_database(request.getfixturevalue("postgresql_server")) as url:
        settings = {
            "BATON_PROFILE": "cluster",
            "BATON_DATABASE_URL": url,
            "BATON_KAFKA_BOOTSTRAP": kafka,
            "BATON_TOPIC_PREFIX": prefix,
        }
        try:
            with _ended(System(profile, directory, settings)) as system:
                yield system
        finally:
            asyncio.run(delete_topics(kafka, prefix))


@contextmanager
def _ended(system: System) -> Iterator[System]:
    try:
        yield system
    finally:
        if system.process is not None:
            system.stop(signal.SIGKILL)


def until(what: str, is_so: Any, seconds: float = 60.0) -> None:
    """Ask until it is so; fails saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.1)
