"""`baton topics | tail | dlq`: the event log for people and programs, while the server runs and without it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus import Message
from shared.embedded import EmbeddedBus
from shared.topics import TOPICS
from tests.cli.conftest import Server, baton, send, started, until_lines

pytestmark = pytest.mark.slow

POISON = b"no event of ours"


async def publish_poison(path: Path) -> None:
    bus = EmbeddedBus(path)
    await bus.ensure_topics(TOPICS)
    producer = await bus.producer()
    await producer.publish([Message("baton.activities.v1", b"lead_1", POISON, ())])
    await producer.close()
    await bus.close()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that found a poison record, and took one activity."""
    data = tmp_path_factory.mktemp("baton") / "data"
    data.mkdir()
    asyncio.run(publish_poison(data / "log.sqlite"))
    with started(data) as server:
        send(server, {"kind": "page_viewed", "identities": {"email": "ana@acme.example"}})
        yield server


def test_the_first_ensure_creates_every_topic_and_the_second_finds_them(tmp_path: Path) -> None:
    names = [topic.name for topic in TOPICS]
    first = baton("topics", "ensure", "--data", tmp_path, "-o", "json")
    assert first.code == 0
    assert first.json == {"created": names, "present": [], "differences": []}
    assert baton("topics", "ensure", "--data", tmp_path, "-o", "json").json["present"] == names


def test_beside_a_running_server_ensure_compares(used: Server) -> None:
    ran = baton("topics", "ensure", "--data", used.data)
    assert ran.code == 0
    assert ran.out.count("present") == len(TOPICS)


def test_tail_shows_events_as_a_program_reads_them(used: Server) -> None:
    (event,) = until_lines("tail", "baton.activities.v1", "--where", "ce_type=activity.recorded", "--data", used.data)
    assert event["topic"] == "baton.activities.v1"
    assert event["headers"]["ce_specversion"] == "1.0"
    assert event["value"]["kind"] == "page_viewed"
    assert event["key"] == event["value"]["lead_id"]


def test_tail_shows_events_as_a_person_reads_them(used: Server) -> None:
    until_lines("tail", "baton.activities.v1", "--where", "ce_type=activity.recorded", "--data", used.data)
    assert "activity.recorded" in baton("tail", "baton.activities.v1", "--data", used.data).out


def test_tail_takes_the_last_ones_and_none_older_than_asked(used: Server) -> None:
    assert len(until_lines("tail", "baton.activities.v1", "-n", "1", "--data", used.data)) == 1
    assert baton("tail", "baton.activities.v1", "--data", used.data, "--since", "2999-01-01T00:00Z").out == ""


def test_tail_of_an_unknown_topic_names_the_nearest(used: Server) -> None:
    ran = baton("tail", "baton.lead.v1", "--data", used.data)
    assert ran.code == 2
    assert "did you mean 'baton.leads.v1'" in ran.err


def test_a_topic_that_the_log_does_not_have_is_exit_code_1(tmp_path: Path) -> None:
    EmbeddedBus(tmp_path / "log.sqlite")  # made, and empty
    for arguments, topic in (
        (["tail", "baton.leads.v1"], "baton.leads.v1"),
        (["dlq", "ls"], "baton.handoff.dlq.v1"),
        (["dlq", "show", "scoring/0/0"], "baton.scoring.dlq.v1"),
    ):
        ran = baton(*arguments, "--data", tmp_path)
        assert (ran.code, ran.err) == (1, f"baton: {topic} does not exist: run `baton topics ensure`\n")


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--where", "ce_type"]])
def test_tail_with_words_it_does_not_know_is_a_wrong_call(used: Server, arguments: list[str]) -> None:
    ran = baton("tail", "baton.leads.v1", "--data", used.data, *arguments)
    assert ran.code == 2
    assert "expected" in ran.err


def test_a_dead_letter_is_listed_with_its_origin_and_shown_whole(used: Server) -> None:
    (dead,) = until_lines("dlq", "ls", "--data", used.data)
    assert str(dead["place"]).startswith("scoring/")
    assert str(dead["origin"]).startswith("baton.activities.v1/")
    assert dead["key"] == "lead_1"
    assert "ce_" in str(dead["cause"])
    assert str(dead["place"]) in baton("dlq", "ls", "--service", "scoring", "--data", used.data).out
    shown = baton("dlq", "show", str(dead["place"]), "--data", used.data, "-o", "json")
    assert shown.json["value"] == POISON.decode()
    assert POISON.decode() in baton("dlq", "show", str(dead["place"]), "--data", used.data).out


def test_a_dead_letter_that_is_not_there_is_exit_code_1(used: Server) -> None:
    assert baton("dlq", "show", "scoring/0/999", "--data", used.data).code == 1
    assert baton("dlq", "show", "scoring", "--data", used.data).code == 2
    assert baton("dlq", "ls", "--service", "skoring", "--data", used.data).code == 2


def test_a_service_without_dead_letters_says_so(used: Server) -> None:
    assert baton("dlq", "ls", "--service", "handoff", "--data", used.data).out == "no dead letters\n"
    assert baton("dlq", "ls", "--service", "handoff", "--data", used.data, "-o", "json").lines == []
