"""docker-compose.yml and .env.example, held against the Compose schema and against the code they start."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
from fastapi.routing import APIRoute

from shared.cli.app import app
from shared.embedded import EmbeddedBus
from shared.health import Health, routes
from shared.process import LAST_SECONDS
from shared.service import load_services, service_names, settings_classes
from shared.settings import Settings, SettingsInvalid, load, refuse_unknown_variables
from tests.deploy.compose import FILE, VARIABLE, Container, VariableMissing, containers, document, seconds
from tests.support import ROOT

EXAMPLE = (ROOT / ".env.example").read_text()
GIVEN = {"POSTGRES_PASSWORD": "letters1and2digits", "BATON_API_KEYS": f"ops:{'0' * 64}:admin"}
SERVICES = containers(GIVEN)
OURS = {name: SERVICES[name] for name in (*service_names(), "migrate", "topics")}
RUNNING = {name: SERVICES[name] for name in service_names()}


def own_settings(service: str) -> set[str]:
    """Variables of a service's settings class, beyond what every process knows."""
    (kind,) = [kind for kind in settings_classes() if kind.__module__ == f"services.{service}.settings"]
    return {f"BATON_{name.upper()}" for name in kind.model_fields.keys() - Settings.model_fields.keys()}


def test_it_is_a_compose_file_by_the_specifications_own_schema() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_container_for_each_service_and_one_job_each_for_tables_and_topics() -> None:
    assert set(SERVICES) == {"kafka", "postgres", *OURS}


@pytest.mark.parametrize("name", service_names())
def test_a_service_is_started_by_its_own_module(name: str) -> None:
    python, flag, module = SERVICES[name].command
    assert (python, flag, module) == ("python", "-m", f"services.{name}")
    assert find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", ["migrate", "topics"])
def test_a_job_is_a_command_that_exists_and_runs_once(name: str) -> None:
    program, *words = SERVICES[name].command
    assert program == "baton"
    command = typer.main.get_command(app)
    context = command.make_context("baton", list(words))
    while isinstance(command, typer.core.TyperGroup):
        word, *words = words
        found = command.get_command(context, word)
        assert found is not None, f"no such command: {word}"
        command = found
    command.make_context(name, list(words))  # raises for an option it does not know
    assert SERVICES[name].raw["restart"] == "no"


@pytest.mark.parametrize("container", OURS.values(), ids=lambda container: container.name)
def test_every_variable_is_a_setting_and_the_settings_load(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unknown_variables({*container.environment, *container.passed_through}, settings_classes())
    for name, value in container.environment.items():
        monkeypatch.setenv(name, value)
    assert load(Settings).profile == "cluster"


@pytest.mark.parametrize("name", service_names())
def test_a_service_can_be_given_every_setting_of_its_own_and_nobody_elses(name: str) -> None:
    others = set[str]().union(*(own_settings(other) for other in service_names() if other != name))
    assert own_settings(name) <= SERVICES[name].passed_through
    assert not SERVICES[name].passed_through & others


def test_each_service_is_built_from_its_environment_with_all_its_roles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, container in RUNNING.items():
        with monkeypatch.context() as environment:
            for variable, value in container.environment.items():
                environment.setenv(variable, value)
            (service,) = load_services([name], EmbeddedBus(tmp_path / "log.sqlite"), load(Settings))
        assert {"consume", "relay"} <= set(service.roles)
        assert "--roles" not in container.command


def test_addresses_name_containers_of_the_file_and_the_ports_they_listen_on() -> None:
    listeners = SERVICES["kafka"].environment["KAFKA_LISTENERS"]
    advertised = SERVICES["kafka"].environment["KAFKA_ADVERTISED_LISTENERS"]
    for container in OURS.values():
        kafka, port = container.environment["BATON_KAFKA_BOOTSTRAP"].split(":")
        assert kafka in SERVICES
        assert f"PLAINTEXT://:{port}" in listeners
        assert advertised == f"PLAINTEXT://{kafka}:{port}"
        url = urlsplit(container.environment["BATON_DATABASE_URL"])
        postgres = SERVICES[str(url.hostname)].environment
        assert (url.username, url.password, url.path.lstrip("/"), url.port) == (
            postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"], postgres["POSTGRES_DB"], 5432,
        )  # fmt: skip


def test_only_the_services_are_published_each_on_a_port_of_its_own_of_the_loopback() -> None:
    for name, container in SERVICES.items():
        assert bool(container.ports) == (name in RUNNING)
    published = [port.split(":") for container in RUNNING.values() for port in container.ports]
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    assert len({port for _, port, _ in published}) == len(RUNNING)
    (inside,) = {port for _, _, port in published}
    assert {container.environment["BATON_HTTP_PORT"] for container in RUNNING.values()} == {inside}
    assert f"EXPOSE {inside}" in (ROOT / "deploy/Dockerfile").read_text()


def test_the_health_of_a_service_is_asked_where_it_answers(tmp_path: Path) -> None:
    health = Health(databases=[], heads={}, bus=EmbeddedBus(tmp_path / "log.sqlite"))
    paths = {route.path for route in routes(health).routes if isinstance(route, APIRoute)}
    for container in RUNNING.values():
        assert container.health == ("CMD", "python", "-m", "shared.probe", "/readyz")
        assert container.health[-1] in paths
    assert find_spec("shared.probe") is not None
    image = re.search(r'HEALTHCHECK .*CMD \["python", "-m", "shared.probe", "(.*)"\]', dockerfile())
    assert image is not None
    assert image[1] in paths


def test_what_waits_waits_for_something_that_can_become_so() -> None:
    for container in SERVICES.values():
        for other, condition in container.after.items():
            if condition == "service_healthy":
                assert SERVICES[other].health
            else:
                assert condition == "service_completed_successfully"
                assert SERVICES[other].raw["restart"] == "no"


def test_the_door_of_no_service_waits_for_kafka() -> None:
    for container in RUNNING.values():
        assert container.after == {"migrate": "service_completed_successfully"}


def test_nobody_is_killed_while_it_stops_in_good_order() -> None:
    worst = 2 * (Settings.model_fields["shutdown_seconds"].default + LAST_SECONDS)
    for container in RUNNING.values():
        assert seconds(container.raw["stop_grace_period"]) > worst


def test_what_must_outlive_a_container_stands_on_a_named_volume() -> None:
    places = {"kafka": SERVICES["kafka"].environment["KAFKA_LOG_DIRS"], "postgres": "/var/lib/postgresql/data"}
    assert set(document()["volumes"]) == set(places)
    for name, place in places.items():
        assert SERVICES[name].volumes == (f"{name}:{place}",)


def test_the_kafka_is_the_one_the_tests_run_on_and_speaks_kraft() -> None:
    version = re.search(r'^VERSION = "(.*)"', (ROOT / "deploy/dev/kafka").read_text(), re.MULTILINE)
    assert version is not None
    assert SERVICES["kafka"].image == f"apache/kafka:{version[1]}"
    assert SERVICES["kafka"].environment["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert SERVICES["kafka"].environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_without_a_required_variable_nothing_starts(missing: str) -> None:
    with pytest.raises(VariableMissing, match=missing):
        containers({name: value for name, value in GIVEN.items() if name != missing})


def test_no_secret_stands_in_the_file_or_the_example() -> None:
    text = FILE.read_text()
    for line in text.splitlines():
        if re.search(r"PASSWORD|SECRET|API_KEYS|WRITE_KEYS", line) and not line.lstrip().startswith("#"):
            assert re.search(r"\$\{(POSTGRES_PASSWORD|BATON_API_KEYS):\?|^ +BATON_\w+:$", line), line
    for name in re.findall(r"^(?:# )?(\w*(?:PASSWORD|SECRET|KEYS|SLACK)\w*)=(.*)$", EXAMPLE, re.MULTILINE):
        assert re.fullmatch(r"|'\{\"\w+\": \"\"\}'", name[1]), name[0]


def test_the_example_names_exactly_the_variables_of_the_file() -> None:
    in_example = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", EXAMPLE, re.MULTILINE))
    in_file = {found[1] for found in VARIABLE.finditer(FILE.read_text())}
    assert in_example == in_file.union(*(container.passed_through for container in RUNNING.values()))
    required = {found[1] for found in VARIABLE.finditer(FILE.read_text()) if found[2] == "?"}
    assert set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE)) == required == set(GIVEN)


def test_a_variable_that_no_setting_knows_would_be_found() -> None:
    with pytest.raises(SettingsInvalid, match="BATON_SMTP_URI"):
        refuse_unknown_variables(["BATON_SMTP_URI"], settings_classes())


def dockerfile() -> str:
    return (ROOT / "deploy/Dockerfile").read_text()
