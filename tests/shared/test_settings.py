"""A misspelt or malformed setting is said before anything runs, and a secret is never shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shared.settings import Settings, SettingsInvalid, load, refuse_unknown_variables


class RobotSettings(Settings):
    oil_secret: SecretStr
    oil_per_day: int = 3


class SourceSettings(Settings):
    wells: Mapping[str, SecretStr] = {}


CLUSTER: dict[str, Any] = {"database_url": "postgresql://baton:black-gold@db/baton", "kafka_bootstrap": "kafka:9092"}


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(SettingsInvalid, match=r"BATON_HTTP_PROT: no such setting; did you mean 'BATON_HTTP_PORT'\?"):
        refuse_unknown_variables(["PATH", "BATON_HTTP_PROT"], [Settings])


def test_variables_of_every_class_and_of_the_tests_are_known() -> None:
    given = ["BATON_OIL_PER_DAY", "BATON_HTTP_PORT", "BATON_FAILPOINT", "BATON_TEST_REQUIRE", "HOME"]
    refuse_unknown_variables(given, [Settings, RobotSettings])
    with pytest.raises(SettingsInvalid, match="BATON_OIL_PER_DAY"):
        refuse_unknown_variables(given, [Settings])


def test_an_unknown_argument_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(SettingsInvalid, match="http_prot: no such setting; did you mean 'http_port'"):
        load(Settings, {"http_prot": 1})


def test_a_wrong_value_is_shown_with_what_was_expected() -> None:
    with pytest.raises(SettingsInvalid, match=r"BATON_HTTP_PORT='abc': .*valid integer"):
        load(Settings, {"http_port": "abc"})


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(SettingsInvalid, match="BATON_OIL_SECRET: ") as failure:
        load(RobotSettings, {"oil_secret": ["black gold"]})
    assert "black gold" not in str(failure.value)
    with pytest.raises(SettingsInvalid) as failure:
        load(Settings, {"database_url": ["postgresql://baton:black-gold@db"]})
    assert "black-gold" not in str(failure.value)


def test_secrets_are_masked_in_the_repr() -> None:
    assert "black gold" not in repr(load(RobotSettings, {"oil_secret": "black gold"}))


def test_the_cluster_profile_names_every_address_it_lacks() -> None:
    with pytest.raises(SettingsInvalid, match="needs BATON_DATABASE_URL and BATON_KAFKA_BOOTSTRAP"):
        load(Settings, {"profile": "cluster"})


def test_who_gives_addresses_means_them() -> None:
    assert load(Settings, CLUSTER).profile == "cluster"
    assert load(Settings).profile == "embedded"
    for name, other in (("database_url", "KAFKA_BOOTSTRAP"), ("kafka_bootstrap", "DATABASE_URL")):
        with pytest.raises(SettingsInvalid, match=f"profile cluster needs BATON_{other}"):
            load(Settings, {name: CLUSTER[name]})


def test_addresses_that_the_profile_would_ignore_are_an_error() -> None:
    with pytest.raises(SettingsInvalid, match="would ignore BATON_DATABASE_URL and BATON_KAFKA_BOOTSTRAP"):
        load(Settings, {**CLUSTER, "profile": "embedded"})


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///black-gold",
        "mysql://baton:black-gold@db/baton",
        "postgresql//baton:black-gold@db/baton",
        "postgresql://baton:black-gold@db:many/baton",
        "black-gold",
    ],
)
def test_a_database_that_is_no_postgresql_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(
        SettingsInvalid, match="BATON_DATABASE_URL: expected postgresql://USER:PASSWORD@HOST"
    ) as failure:
        load(Settings, {**CLUSTER, "database_url": url})
    assert "black-gold" not in str(failure.value)


@pytest.mark.parametrize("value", ["black-gold", '"black-gold"', '["black-gold"]'])
def test_what_is_no_json_is_answered_with_what_to_send(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BATON_WELLS", value)
    with pytest.raises(SettingsInvalid, match="BATON_WELLS: expected JSON on one line") as failure:
        load(SourceSettings)
    assert "black-gold" not in str(failure.value)


def test_generated_secrets_that_are_no_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(SettingsInvalid, match=r"secrets\.json is no JSON"):
        load(Settings, {"data_directory": tmp_path})


def test_a_name_is_suggested_only_when_it_is_near() -> None:
    with pytest.raises(SettingsInvalid) as failure:
        refuse_unknown_variables(["BATON_NONSENSE"], [Settings])
    assert str(failure.value) == "BATON_NONSENSE: no such setting"


def test_the_embedded_profile_keeps_a_file_a_service(tmp_path: Path) -> None:
    settings = load(Settings, {"data_directory": tmp_path})
    assert settings.database_url_for("scoring") == f"sqlite:///{tmp_path}/scoring.sqlite"
    assert settings.event_log_path.parent == tmp_path


def test_the_cluster_profile_keeps_one_postgresql_for_all() -> None:
    url = "postgresql://baton@db/baton"
    settings = load(Settings, {"profile": "cluster", "database_url": url, "kafka_bootstrap": "kafka:9092"})
    assert settings.database_url_for("scoring") == settings.database_url_for("handoff") == url


def test_the_public_url_is_the_address_unless_it_is_given() -> None:
    assert load(Settings, {"http_port": 8123}).public_url == "http://127.0.0.1:8123"
    assert load(Settings, {"public_url": "https://baton.acme.example/"}).public_url == "https://baton.acme.example"


def test_a_service_takes_its_own_names_from_the_generated_secrets(tmp_path: Path) -> None:
    kept = {"oil_secret": "black gold", "somebody_elses": "x", "api_keys": ["one:two:three"]}
    (tmp_path / "secrets.json").write_text(json.dumps(kept))
    settings = load(Settings, {"data_directory": tmp_path, "http_port": 8123})
    robot = settings.extended(RobotSettings)
    assert robot.oil_secret.get_secret_value() == "black gold"
    assert robot.api_keys == ("one:two:three",)
    assert robot.http_port == 8123


def test_api_keys_are_separated_by_white_space() -> None:
    assert load(Settings, {"api_keys": "a:1:admin  b:2:admin\n"}).api_keys == ("a:1:admin", "b:2:admin")
