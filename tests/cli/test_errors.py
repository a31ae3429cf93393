"""What a person or the world did wrong is one line and an exit code: no traceback, no password."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from shared.cli.app import app
from shared.settings import SettingsInvalid
from tests.cli.conftest import baton
from tests.support import ROOT

SAMPLE = str(ROOT / "deploy/agreements/acme.yaml")
AWAY = {"BATON_DATABASE_URL": "postgresql://baton:black-gold@127.0.0.1:1/baton", "BATON_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
CALLS = {
    "up": [],
    "demo": [],
    "migrate": [],
    "topics ensure": [],
    "check": [],
    "tail": ["baton.leads.v1"],
    "lag": [],
    "dlq ls": [],
    "dlq show": ["scoring/0/0"],
    "dlq redrive": ["scoring", "--all"],
    "keys new": ["ops", "--scope", "admin"],
    "explain": ["lead_1"],
    "agreement check": [SAMPLE],
    "agreement sign": [SAMPLE, "--party", "sales", "--by", "sam@acme.example"],
    "agreement publish": [SAMPLE],
}


def commands(group: typer.Typer, before: str = "") -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield before + (command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{before}{inner.name} ")


@pytest.mark.parametrize("command", sorted(commands(app)))
def test_every_command_refuses_a_misspelt_variable(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("BATON_TOPIC_PREFX", "x")
    with pytest.raises(SettingsInvalid, match="BATON_TOPIC_PREFX: no such setting; did you mean 'BATON_TOPIC_PREFIX'"):
        app([*command.split(), *CALLS[command]], standalone_mode=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "migrate"])
def test_a_postgresql_that_is_away_is_said(command: str) -> None:
    ran = baton(command, **AWAY)
    assert ran.code == 1
    assert "127.0.0.1" in ran.err
    assert ran.err.startswith("baton: ")
    assert "Traceback" not in ran.err
    assert "black-gold" not in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "migrate", "up", "topics ensure", "explain lead_1"])
@pytest.mark.parametrize("url", ["postgresql//baton:black-gold@db/baton", "sqlite:///black-gold"])
def test_a_malformed_database_url_is_a_wrong_call_and_is_not_shown(tmp_path: Path, command: str, url: str) -> None:
    ran = baton(*command.split(), "--data", tmp_path / "data", **AWAY | {"BATON_DATABASE_URL": url})
    assert ran.code == 2
    assert ran.err.startswith("baton: BATON_DATABASE_URL: expected postgresql://")
    assert "black-gold" not in ran.err
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_write_keys_that_are_no_json_are_a_wrong_call(tmp_path: Path) -> None:
    ran = baton("up", "--data", tmp_path / "data", "--port", "0", BATON_SEGMENT_WRITE_KEYS="web=black-gold")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("baton: BATON_SEGMENT_WRITE_KEYS: expected JSON on one line")
    assert "black-gold" not in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:many", "http://a b"])
def test_a_url_that_is_none_is_a_wrong_call(url: str) -> None:
    ran = baton("explain", "lead_1", "--url", url)
    assert ran.code == 2
    assert ran.err.startswith(f"baton: --url {url}: expected the address of a server")


@pytest.mark.slow
def test_a_server_that_speaks_something_else_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(30)
        url = f"http://127.0.0.1:{other.getsockname()[1]}"

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"220 mail.acme.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        ran = baton("explain", "lead_1", "--url", url)
        thread.join()
    assert ran.code == 1
    assert f"no server answers at {url}" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["explain", "lead_1", "--url", "nonsense", "-o", "json"], 2, "--url nonsense"),
        (["explain", "lead_1", "--url", "http://127.0.0.1:1", "--output=json"], 1, "no server answers"),
        (["check", "--grace", "-1", "-ojson"], 2, "--grace"),
        (["check", "--garce", "1", "-o", "json"], 2, "--garce"),
        (["tail", "baton.lead.v1", "-o", "json"], 2, "baton.leads.v1"),
    ],
)
def test_for_a_program_an_error_is_json(arguments: list[str], code: int, said: str) -> None:
    ran = baton(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in json.loads(ran.err)["error"]


@pytest.mark.slow
def test_a_grace_is_not_negative() -> None:
    assert baton("check", "--grace", "-1").code == 2


@pytest.mark.slow
def test_it_says_which_version_it_is() -> None:
    assert baton("--version").out.startswith("baton 0.")
