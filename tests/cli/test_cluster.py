"""The same commands over Apache Kafka and PostgreSQL: addresses come from the environment, nothing else changes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.topics import TOPICS
from tests.cli.conftest import Ran, Server, baton, send, started, until_lines
from tests.support import delete_topics, fresh_postgresql_database

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
    assert ran.err.startswith("baton: ")
    assert "Traceback" not in ran.err
