"""The same commands over Apache Kafka and PostgreSQL: addresses come from the environment, nothing else changes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.topics import TOPICS
from tests.cli.conftest import BATON, Ran, Server, baton, environment, send, started, until_lines
from tests.support import ROOT, delete_topics, fresh_postgresql_database
from tests.system import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def addresses(postgresql_server: str, kafka_server: str) -> Iterator[dict[str, str]]:
    prefix = f"t{secrets.token_hex(4)}."
    with fresh_postgresql_database(postgresql_server) as database:
        yield {
            "BATON_PROFILE": "cluster",
            "BATON_DATABASE_URL": database,
            "BATON_KAFKA_BOOTSTRAP": kafka_server,
            "BATON_TOPIC_PREFIX": prefix,
        }
    asyncio.run(delete_topics(kafka_server, prefix))


@pytest.fixture(scope="module")
def cluster(addresses: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("baton") / "data", **addresses) as server:
        yield server


def command(cluster: Server, addresses: dict[str, str], *arguments: str) -> Ran:
    return baton(*arguments, "--data", cluster.data, "-o", "json", **addresses)


def test_an_activity_goes_through_postgresql_to_kafka_and_is_sound(cluster: Server, addresses: dict[str, str]) -> None:
    result = send(cluster, {"kind": "page_viewed", "identities": {"email": "ana@acme.example"}})
    assert result["status"] == "accepted"
    events = until_lines("tail", "baton.activities.v1", "--data", cluster.data, **addresses)
    assert result["lead_id"] in [event["key"] for event in events]
    checked = command(cluster, addresses, "check")
    assert checked.json == {"findings": []}
    assert command(cluster, addresses, "dlq", "ls").out == ""


def test_topics_and_tables_are_there_after_the_first_start(cluster: Server, addresses: dict[str, str]) -> None:
    ensured = command(cluster, addresses, "topics", "ensure")
    assert (ensured.code, ensured.json["present"]) == (0, [topic.name for topic in TOPICS])
    migrated = command(cluster, addresses, "migrate")
    assert all(one["before"] == one["after"] is not None for one in migrated.json["services"])


def test_two_processes_share_one_cluster(cluster: Server, addresses: dict[str, str], tmp_path: Path) -> None:
    with started(tmp_path / "data", "--roles", "consume,relay", **addresses) as second:
        assert second.url != cluster.url
        assert (
            send(cluster, {"kind": "page_viewed", "identities": {"email": "bo@acme.example"}})["status"] == "accepted"
        )


def test_a_kafka_that_is_away_is_said_without_a_traceback(cluster: Server, addresses: dict[str, str]) -> None:
    ran = command(cluster, addresses | {"BATON_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "tail", "baton.leads.v1")
    assert ran.code == 1
    assert "no broker answers" in json.loads(ran.err)["error"]
    assert "Traceback" not in ran.err


def test_a_database_that_nobody_migrated_is_said(
    postgresql_server: str, addresses: dict[str, str], tmp_path: Path
) -> None:
    with fresh_postgresql_database(postgresql_server) as empty:
        ran = baton("check", "--data", tmp_path, **addresses | {"BATON_DATABASE_URL": empty})
    assert ran.code == 1
    assert "run `baton migrate`" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_key_made_for_one_process_opens_another(addresses: dict[str, str], tmp_path: Path) -> None:
    made = baton("keys", "new", "ops", "--scope", "admin", "-o", "json").json
    with started(tmp_path / "data", BATON_API_KEYS=made["entry"], **addresses) as own:
        shared = Server(own.process, own.data, own.url, made["key"])
        for server in (own, shared):
            sent = send(server, {"kind": "page_viewed", "identities": {"email": "chi@acme.example"}})
            assert sent["status"] == "accepted"


@pytest.fixture
def own_servers(kafka_server: str, postgresql_server: str) -> Iterator[dict[str, str]]:
    """An empty cache with Kafka's jars, where `deploy/dev/* start` puts servers, ended with the test."""
    cache = Path(tempfile.mkdtemp(prefix="baton-readme-"))
    cache.chmod(0o755)  # PostgreSQL runs as another user when root starts it
    jars = next(Path(os.environ.get("BATON_CACHE") or ROOT / ".cache").absolute().glob("kafka-*"))
    (cache / jars.name).symlink_to(jars)
    given = environment(BATON_CACHE=str(cache))
    try:
        yield {"BATON_CACHE": str(cache)}
    finally:
        for name in ("kafka", "postgres"):
            subprocess.run([ROOT / "deploy/dev" / name, "stop"], env=given, check=False, timeout=60)
        shutil.rmtree(cache, ignore_errors=True)


def test_the_readmes_blocks_run_as_they_stand(own_servers: dict[str, str], tmp_path: Path) -> None:
    """As they stand, but for the data directory and the ports, which are somebody's on this machine."""
    section = (ROOT / "README.md").read_text().split("## On Kafka and PostgreSQL")[1]
    _, together, split = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    given = environment(BATON_DATA_DIRECTORY=str(tmp_path), BATON_HTTP_PORT=str(free_port()), **own_servers)
    with run(together, given) as process:
        said = until(process, "Send a first activity:")
        assert "data in PostgreSQL, events in Kafka" in said
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60)[0].endswith("stopped\n")

    entry = baton("keys", "new", "ops", "--scope", "admin", "-o", "json").json["entry"]
    setting_up = together.partition("baton migrate")[0] + split.replace("...", entry).partition("python")[0]
    lines = [line for line in split.splitlines() if line.startswith("python -m")]
    assert len(lines) == 4
    for line in lines:
        with run(setting_up + re.sub(r"--port \d+", "--port 0", line), given) as process:
            until(process, "process.ready")
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)


def run(block: str, given: dict[str, str]) -> subprocess.Popen[str]:
    """A block of a document, as a person types it in the repository, with this tree's `python`."""
    return subprocess.Popen(
        ["bash", "-euc", block],
        cwd=ROOT,
        env=given | {"PATH": f"{BATON.parent}:{given['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(process: subprocess.Popen[str], words: str) -> str:
    """What it says until it says these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it ended without {words!r}: {said[-3000:]}")
