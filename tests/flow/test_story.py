"""The story of the demo, on both profiles, with the same result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.cli.demo import AGREEMENTS, server
from shared.cli.mailbox import mailbox
from shared.cli.secrets import new_webhook_secret
from shared.cli.stage import Json
from shared.cli.story import Story, check
from shared.cli.timeline import timeline
from tests.system import Profile, System, system_of


def outcome(facts: list[Json]) -> list[tuple[Any, ...]]:
    """What is the same in every telling: ids, owners and times differ."""
    return [(fact["name"], fact["score"], fact["state"], fact["reason"], fact["breaches"]) for fact in facts]


WHAT_COMES_OF_THEM = [
    ("Noah", 0.0, None, None, []),
    ("Priya", 180.0, "recycled", "no_budget", []),
    ("Tomas", 80.0, "rejected", "not_a_fit", []),
    ("Wen", 130.0, "assigned", None, ["first_touch"]),
]


@pytest.mark.slow
def test_the_demo_prints_its_facts_and_succeeds() -> None:
    command = [sys.executable, "-m", "shared.cli", "demo", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert outcome(told["leads"]) == WHAT_COMES_OF_THEM
    assert told["events"] > 40
    assert told["seconds"] < 60


@pytest.fixture(params=[pytest.param("cluster", marks=[pytest.mark.kafka, pytest.mark.postgres])])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    profile: Profile = request.param
    with system_of(profile, request, tmp_path) as system:
        yield system


def test_the_story_is_the_same_on_kafka_and_postgresql(system: System) -> None:
    secret = new_webhook_secret()
    told: list[str] = []
    with mailbox(secret) as received, server(system.directory, received, secret, system.settings) as stage:
        agreements = [(AGREEMENTS / name).read_text() for name in ("acme.yaml", "demo.yaml")]
        story = Story(stage, agreements, lambda who, text: told.append(f"{who}: {text}"))
        story.play()
        facts = story.facts()
        happened = [entry.what for entry in timeline(story)]
    check(facts)
    assert outcome(facts) == WHAT_COMES_OF_THEM
    assert any("BREACHES" in what for what in happened)
    assert any("nurture.requested" in what for what in happened)
