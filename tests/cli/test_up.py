"""`baton up`: a newcomer's first minute, and what a second start finds."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import BATON, Ran, Server, baton, environment, send, started

pytestmark = pytest.mark.slow

ENTRY = f"ops:{'0' * 64}:admin"


def get(server: Server, path: str) -> Any:
    request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {server.key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_help_is_there_at_once_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, shared.cli; print([name for name in ('sqlalchemy', 'fastapi', 'aiokafka') if name in sys.modules])"
    )
    done = subprocess.run(
        [BATON.with_name("python"), "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
    helped = baton("--help")
    assert helped.code == 0
    for command in ("up", "migrate", "topics", "check", "tail", "dlq", "explain", "agreement"):
        assert command in helped.out


def test_the_server_is_ready_alive_and_counted(server: Server) -> None:
    assert get(server, "/readyz")["status"] == "ready"
    assert get(server, "/livez")["status"] == "alive"


def test_the_key_and_the_secrets_are_for_the_owner_alone(server: Server) -> None:
    assert (server.data / "api-key").read_text().strip() == server.key
    for name in ("api-key", "secrets.json"):
        assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600


def test_the_curl_line_that_it_prints_sends_a_first_activity(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BATON, "up", "--data", tmp_path / "data", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Content-Type" in line:
                break
        command = "".join(said[-2:])
        sent = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    (result,) = json.loads(sent.stdout)["results"]
    assert result["status"] == "accepted"


def test_a_second_start_finds_everything_as_it_was(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data) as first:
        sent = send(first, {"id": "a1", "kind": "page_viewed", "identities": {"email": "ana@acme.example"}})
    secrets = (data / "secrets.json").read_text()
    with started(data) as second:
        assert second.key == first.key
        assert (data / "secrets.json").read_text() == secrets
        assert get(second, f"/v1/leads/{sent['lead_id']}")["id"] == sent["lead_id"]


def test_a_second_server_on_the_same_data_refuses_and_says_by_whom(server: Server) -> None:
    for port in ("0", server.url.rpartition(":")[2]):  # the data before the port: a second `make run` has both
        refused = baton("up", "--data", server.data, "--port", port)
        assert refused.code == 1
        assert f"in use by another Baton server (process {server.process.pid}, {server.url})" in refused.err


def test_a_port_that_is_taken_is_said_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = baton("up", "--data", tmp_path / "data", "--port", port)
        alone = service("--port", port, BATON_DATA_DIRECTORY=str(tmp_path / "alone"), BATON_API_KEYS=ENTRY)
    said = f"port {port} of 127.0.0.1 is in use by another program; give another: --port or BATON_HTTP_PORT"
    assert (refused.code, alone.code) == (1, 1)
    for err in (refused.err, alone.err):
        assert said in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--roles", "api,cosnume"], "unknown role 'cosnume'; did you mean 'consume'?; known: api, clock, consume"),
        (["--services", "skoring"], "unknown service 'skoring'; did you mean 'scoring'?"),
        (["--port", "99999"], "BATON_HTTP_PORT=99999: "),
        (["--roles", "foo"], "unknown role 'foo'; known: api, clock"),
        (["--profile", "cluster"], "profile cluster needs BATON_DATABASE_URL and BATON_KAFKA_BOOTSTRAP"),
        (["--prot", "1"], "No such option"),
    ],
)
def test_a_wrong_call_is_exit_code_2_and_says_what_is_right(tmp_path: Path, arguments: list[str], message: str) -> None:
    refused = baton(
        "up", "--data", tmp_path / "data", *(["--port", "0"] if "--port" not in arguments else []), *arguments
    )
    assert refused.code == 2
    assert message in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "data").exists()


def test_a_misspelt_variable_is_refused(tmp_path: Path) -> None:
    refused = baton("up", "--data", tmp_path / "data", BATON_TOPIC_PREFX="x")
    assert refused.code == 2
    assert "BATON_TOPIC_PREFX: no such setting; did you mean 'BATON_TOPIC_PREFIX'?" in refused.err


def service(*arguments: str, **more: str) -> Ran:
    """`python -m services.scoring` to its end."""
    command = [str(BATON.with_name("python")), "-m", "services.scoring", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment(**more))
    return Ran(done.returncode, done.stdout, done.stderr)


def test_one_service_runs_alone_with_the_roles_it_is_told(tmp_path: Path) -> None:
    done = service("--roles", "api,cosnume", "--port", "0", BATON_DATA_DIRECTORY=str(tmp_path))
    assert done.code == 2
    assert "known: api, consume, refold, relay" in done.err


def test_a_service_with_addresses_does_not_fall_back_to_files(tmp_path: Path) -> None:
    given = {"BATON_DATA_DIRECTORY": str(tmp_path / "data"), "BATON_API_KEYS": ENTRY}
    one = service("--roles", "api", BATON_DATABASE_URL="postgresql://baton@127.0.0.1:1/baton", **given)
    assert (one.code, "profile cluster needs BATON_KAFKA_BOOTSTRAP" in one.err) == (2, True)
    other = service("--roles", "api", "--profile", "embedded", BATON_KAFKA_BOOTSTRAP="127.0.0.1:1", **given)
    assert (other.code, "would ignore BATON_KAFKA_BOOTSTRAP" in other.err) == (2, True)
    assert not (tmp_path / "data").exists()


def test_a_door_that_nobody_has_a_key_for_does_not_start(tmp_path: Path) -> None:
    refused = service("--roles", "api,relay", "--port", "0", "--data", str(tmp_path / "data"))
    assert refused.code == 2
    assert "no API key" in refused.err
    assert "baton keys new" in refused.err
    assert not (tmp_path / "data").exists()


def test_a_service_of_its_own_makes_a_data_directory_for_its_owner_alone(tmp_path: Path) -> None:
    python, data = str(BATON.with_name("python")), tmp_path / "data"
    command = [python, "-m", "services.scoring", "--roles", "relay", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stderr is not None
        assert any("process.ready" in line for line in process.stderr)
        process.terminate()
        process.stderr.read()
    assert process.returncode == 0
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_what_it_prints_leads_a_newcomer_to_a_score(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BATON, "up", "--data", tmp_path / "data", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "agreement publish" in line:
                break
        for line in said[-3:]:
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 0, done.stderr
        assert "version 1" in done.stdout
        segment = next(line for line in said if line.lstrip().startswith("Segment")).split()
        url, write_key = segment[1].rstrip(","), segment[-1]
        track = {"event": "Demo Requested", "anonymousId": "a1", "userId": "u1", "messageId": "m1"}
        sent = httpx.post(f"{url}/track", json=track, auth=(write_key, ""), trust_env=False)
        assert sent.json() == {"success": True, "rejected": []}
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
    assert process.returncode == 0
