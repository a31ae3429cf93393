"""The story on a cluster as it is run: every role in processes of its own, two of each that may be two."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from shared.cli.demo import AGREEMENTS
from shared.cli.mailbox import Mailbox, mailbox
from shared.cli.secrets import new_webhook_secret
from shared.cli.stage import Json, Stage
from shared.cli.story import Story, check
from shared.security import Scope, new_key
from shared.service import service_names
from tests.deploy.compose import Container, containers
from tests.flow.test_story import WHAT_COMES_OF_THEM, outcome
from tests.roles import Running, gateway, plain, started
from tests.system import System, free_port, system_of, until

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]

# Which roles a process runs, and how many such processes there are.
LAYOUT = [
    ("scoring", "api", 2),
    ("scoring", "consume", 2),
    ("scoring", "relay,refold", 2),
    ("handoff", "api,consume,clock", 2),
    ("handoff", "relay", 1),
    ("notifier", "api,consume,deliver,relay", 2),
]


@pytest.fixture
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """Fresh data on Kafka and PostgreSQL; nothing runs."""
    with system_of("cluster", request, tmp_path) as system:
        yield system


def settings(system: System, received: Mailbox, key: str, port: int) -> dict[str, str]:
    """What every process is told, whatever its role."""
    entry = f"story:{hashlib.sha256(key.encode()).hexdigest()}:{Scope.ADMIN}"
    return {
        **system.settings,
        "BATON_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "BATON_API_KEYS": entry,
        "BATON_SEGMENT_WRITE_KEYS": json.dumps({"web": "segment-key"}),
        "BATON_HUBSPOT_SECRETS": json.dumps({"hubspot": "hubspot-secret"}),
        "BATON_SMTP_URL": received.smtp_url,
        "BATON_SLACK_WEBHOOK_URL": received.slack_url,
        "BATON_AUTOMATION_WEBHOOK_URL": received.automation_url,
        "BATON_OUTBOUND_ALLOW_PRIVATE": received.http_place,
        "BATON_LOG_LEVEL": "info",
    }


def processes(environment: Mapping[str, str], directory: Path) -> list[Running]:
    found = []
    for service, roles, number in LAYOUT:
        for each in range(number):
            name = f"{service}-{roles.replace(',', '-')}-{each}"
            command = ["-m", f"services.{service}", "--roles", roles]
            found.append(Running(name, command, environment, directory / f"{name}.log"))
    return found


def of(running: list[Running], service: str, role: str) -> list[Running]:
    """The processes of a service that have this role."""
    return [one for one in running if one.command[1] == f"services.{service}" and role in one.command[3].split(",")]


def play(port: int, key: str, told: list[str]) -> list[Json]:
    url = f"http://127.0.0.1:{port}"
    with closing(Stage(url, url, key, "segment-key", "hubspot", "hubspot-secret")) as stage:
        agreements = [(AGREEMENTS / name).read_text() for name in ("acme.yaml", "demo.yaml")]
        story = Story(stage, agreements, lambda who, text: told.append(f"{who}: {text}"))
        story.play()
        return story.facts()


def lag(system: System) -> Json:
    ran = system.command("lag", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    told: Json = json.loads(ran.stdout)
    return told


def test_the_story_is_the_same_with_every_role_in_processes_of_its_own(system: System, tmp_path: Path) -> None:
    secret, port = new_webhook_secret(), free_port()
    key, _ = new_key([Scope.ADMIN], name="story")
    for job in (["migrate"], ["topics", "ensure"]):
        assert system.command(*job).returncode == 0
    with mailbox(secret) as received:
        told = settings(system, received, key, port) | {"BATON_AUTOMATION_WEBHOOK_SECRET": secret}
        running = processes(told, tmp_path)
        doors = {service: of(running, service, "api") for service in service_names()}
        with started(running), gateway(doors, port) as given:
            steps: list[str] = []
            facts = play(port, key, steps)
            check(facts)
            assert outcome(facts) == WHAT_COMES_OF_THEM

            assert all(given[one.name] for door in doors.values() for one in door), f"a door was not used: {given}"
            for service in service_names():
                handled = sum(one.counted("baton_records_handled_total") for one in of(running, service, "consume"))
                assert handled > 0, service
            assert all(one.counted("baton_records_handled_total") == 0 for one in of(running, "scoring", "api"))
            until("all is read", lambda: lag(system)["messages"] == 0)
            owners = {one["owner"] for one in lag(system)["partitions"] if one["topic"] == "baton.activities.v1"}
            pids = {one.process.pid for one in of(running, "scoring", "consume") if one.process is not None}
            assert {int(owner.rpartition("-")[2]) for owner in owners} == pids, "both scorers read"

            victims = [
                of(running, service, role)[0] for service, role in (("scoring", "consume"), ("handoff", "clock"))
            ]
            for one in victims:
                one.stop(signal.SIGKILL)
            until("the others took over", lambda: is_owned_by_the_living(system, running))
            until("nothing is found", lambda: system.findings() == [])
            codes = {one.name: one.stop() for one in running if one.process is not None}
        assert set(codes.values()) == {0}, codes


def is_owned_by_the_living(system: System, running: list[Running]) -> bool:
    alive = {one.process.pid for one in running if one.process is not None}
    owners = [one["owner"] for one in lag(system)["partitions"]]
    return all(owner is not None and int(owner.rpartition("-")[2]) in alive for owner in owners)


def test_the_commands_of_the_compose_file_start_a_system_that_is_healthy(system: System, tmp_path: Path) -> None:
    _, entry = new_key([Scope.ADMIN], name="ops")
    file = containers({"POSTGRES_PASSWORD": "unused", "BATON_API_KEYS": entry})
    for job in ("migrate", "topics"):
        done = run(file[job], system)
        assert done.returncode == 0, done.stdout + done.stderr
    running = [
        Running(name, file[name].command[1:], {**file[name].environment, **system.settings}, tmp_path / f"{name}.log")
        for name in service_names()
    ]
    for one in running:
        assert run(file[one.name], system, file[one.name].health[1:], one.port).returncode == 1, "nobody answers yet"
    with started(running):
        for one in running:
            asked = run(file[one.name], system, file[one.name].health[1:], one.port)
            assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "ready")
        codes = {one.name: one.stop() for one in running}
    assert set(codes.values()) == {0}, codes


def run(
    container: Container, system: System, command: tuple[str, ...] = (), port: int = 0
) -> subprocess.CompletedProcess[str]:
    """A command in a container's environment, on this test's addresses; `python` and `baton` are this tree's."""
    program, *rest = command or container.command
    return subprocess.run(
        [Path(sys.executable).with_name(program), *rest],
        env={**plain(), **container.environment, **system.settings, "BATON_HTTP_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
