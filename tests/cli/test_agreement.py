"""`baton agreement | explain`: from a file to a score that explains itself."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Server, baton, send
from tests.support import ROOT

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "deploy/agreements/acme.yaml"


def test_the_sample_agreement_is_one_and_its_examples_hold() -> None:
    ran = baton("agreement", "check", SAMPLE, "-o", "json")
    assert ran.json["flaws"] == []
    assert ran.code == 0
    assert ran.json["sha256"] == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    assert [example["holds"] for example in ran.json["examples"]] == [True, True, True]
    assert "holds: expected mql true; came out mql true, bucket warm" in baton("agreement", "check", SAMPLE).out


def test_an_example_that_does_not_hold_fails_the_check_at_its_line(tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text(SAMPLE.read_text().replace("expect: {mql: false, bucket: cold}", "expect: {mql: true}"))
    line = 1 + next(place for place, text in enumerate(file.read_text().splitlines()) if "company_size: 20" in text)
    ran = baton("agreement", "check", file, "-o", "json")
    assert ran.code == 1
    (flaw,) = ran.json["flaws"]
    assert (flaw["line"], flaw["path"]) == (line, "scorecards[0].examples[2]")
    assert flaw["message"] == "fails: expected mql true; came out mql false, bucket cold, score 45"
    assert [example["holds"] for example in ran.json["examples"]] == [True, True, False]
    text = baton("agreement", "check", file)
    assert text.code == 1
    assert f"{file}:{line}:" in text.out
    assert text.out.endswith("1 flaw\n")


@pytest.mark.parametrize("content", [b"agreement: [", b"agreement: acme\ncompnay: 1\n", b"\xff\xfe", b""])
def test_a_flaw_is_named_by_line_and_column(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    ran = baton("agreement", "check", file)
    assert ran.code == 1
    assert ran.out.startswith(f"{file}:")
    assert "Traceback" not in ran.err
    flaws = baton("agreement", "check", file, "-o", "json").json["flaws"]
    assert all(flaw["line"] >= 1 and flaw["column"] >= 1 for flaw in flaws)


def test_what_is_no_yaml_is_said_without_a_path_and_never_sent(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("agreement: [")
    checked = baton("agreement", "check", file).out
    assert re.match(rf"{re.escape(str(file))}:\d+:\d+: not YAML", checked)
    for command, *more in (["publish"], ["sign", "--party", "sales", "--by", "sam@acme.example"]):
        ran = baton("agreement", command, file, *more, "--data", server.data)
        assert ran.code == 1
        assert "not YAML" in ran.err
        assert "404" not in ran.err


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    assert baton("agreement", "check", tmp_path / "none.yaml").code == 2


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    ran = baton("agreement", "publish", SAMPLE, "--data", tmp_path, "--url", "http://127.0.0.1:1")
    assert ran.code == 1
    assert "no server answers at http://127.0.0.1:1" in ran.err
    assert "baton up" in ran.err


def test_signed_by_both_published_and_every_score_explains_itself(server: Server) -> None:
    unsigned = baton("agreement", "publish", SAMPLE, "--data", server.data)
    assert unsigned.code == 1
    for party, head in (("marketing", "mia@acme.example"), ("sales", "sam@acme.example")):
        signed = baton("agreement", "sign", SAMPLE, "--party", party, "--by", head, "--data", server.data, "-o", "json")
        assert signed.code == 0, signed.err
        assert party in [signature["party"] for signature in signed.json["signatures"]]
    published = baton("agreement", "publish", SAMPLE, "--data", server.data, "-o", "json")
    assert published.code == 0, published.err
    assert published.json["version"] == 1

    activity = {"kind": "page_viewed", "identities": {"email": "ana@acme.example"}, "properties": {"path": "/pricing"}}
    lead = send(server, activity)["lead_id"]
    explained = explanation(server, lead)
    for score in explained["scores"]:
        for dimension, points in score["dimensions"].items():
            lines = [line["points"] for line in score["lines"] if line["dimension"] == dimension]
            assert round(sum(lines), 2) == points
    assert "points" in baton("explain", lead, "--data", server.data).out


def test_an_unknown_lead_is_exit_code_1_with_the_servers_words(server: Server) -> None:
    ran = baton("explain", "lead_none", "--data", server.data)
    assert (ran.code, ran.err) == (1, "baton: 404 Unknown lead: no lead has this id or had it\n")
    assert "ids begin with lead_" in baton("explain", "ana", "--data", server.data).err


def test_where_no_server_runs_nobody_else_is_asked(tmp_path: Path) -> None:
    ran = baton("explain", "lead_none", "--data", tmp_path / "nothere")
    assert ran.code == 1
    assert f"no server runs on {tmp_path / 'nothere'}" in ran.err


def test_a_wrong_key_is_exit_code_1(server: Server) -> None:
    ran = baton("explain", "lead_none", "--data", server.data, "--key", "bt_x_y")
    assert ran.code == 1
    assert "401" in ran.err


def explanation(server: Server, lead: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ran = baton("explain", lead, "--data", server.data, "-o", "json")
        if ran.code == 0 and ran.json["scores"]:
            found: dict[str, Any] = ran.json
            return found
        time.sleep(0.2)
    raise AssertionError("no score within 20 s")
