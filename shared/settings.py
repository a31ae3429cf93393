"""What an operator may set, for all services; each service extends it in `services/X/settings.py`.

    class ScoringSettings(Settings):
        segment_write_key: SecretStr

    scoring = settings.extended(ScoringSettings)     # in build(bus, settings): same base, the rest from the environment

Values come, first hit wins, from the command line, from variables `BATON_<NAME>`, and from `secrets.json`
in the data directory, where `baton up` keeps what it generated at its first start. What is not known is
an error, also in the environment: a misspelt variable must not run a deployment on defaults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.nearest import did_you_mean

PREFIX = "BATON_"
SECRETS_FILE = "secrets.json"
DATABASE_URL_SHAPE = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
SECRETS_SHAPE = """expected JSON on one line, a secret by the name of its source: {"web": "..."}"""
NOT_SETTINGS = frozenset({"BATON_TEST_REQUIRE", "BATON_OUTSIDE_DATA", "BATON_FAILPOINT", "BATON_CACHE"})

Profile = Literal["embedded", "cluster"]
S = TypeVar("S", bound="Settings")


class SettingsInvalid(ValueError):
    """A setting is missing, unknown or malformed; one line for each, without any secret."""


def _profile_of(given: Mapping[str, Any]) -> Profile:
    """Who gives addresses means them: data must not go into files here while a database waits for it."""
    return "cluster" if given.get("database_url") or given.get("kafka_bootstrap") else "embedded"


class Settings(BaseSettings):
    """The settings every process knows. Immutable; secrets are masked wherever it is shown."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    database_url: SecretStr | None = None
    kafka_bootstrap: str = ""
    profile: Profile = Field(default_factory=_profile_of)
    data_directory: Path = Path("data")
    topic_prefix: str = ""
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    public_url: str = Field(default_factory=lambda data: f"http://{data.get('http_host')}:{data.get('http_port')}")
    api_keys: Annotated[tuple[str, ...], NoDecode] = ()  # "id:sha256:scope,scope", separated by white space
    max_body_bytes: int = Field(default=4 * 1024 * 1024, gt=0)  # a thousand activities of 4 KiB
    shutdown_seconds: float = Field(default=20.0, gt=0)  # below the 30 s after which orchestrators kill
    outbox_prune_after_hours: float = Field(default=24.0, ge=0)  # published rows, to look back at; 0 never prunes
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @field_validator("public_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return value
        try:
            kind = make_url(value.get_secret_value()).get_backend_name()
        except (ArgumentError, ValueError):  # neither is shown: both may quote the password
            raise ValueError(f"expected {DATABASE_URL_SHAPE}") from None
        if kind not in ("postgresql", "postgres"):
            raise ValueError(f"expected {DATABASE_URL_SHAPE}; {kind} is not supported")
        return value

    @model_validator(mode="after")
    def _profile_and_addresses_agree(self) -> Settings:
        addresses = {"database_url": self.database_url, "kafka_bootstrap": self.kafka_bootstrap}
        missing = [_variable(name) for name, value in addresses.items() if not value]
        given = [_variable(name) for name, value in addresses.items() if value]
        if self.profile == "cluster" and missing:
            raise ValueError(f"profile cluster needs {' and '.join(missing)}")
        if self.profile == "embedded" and given:
            raise ValueError(
                f"profile embedded keeps everything in files and would ignore {' and '.join(given)}: "
                "unset that, or run with --profile cluster"
            )
        return self

    def database_url_for(self, service: str) -> str:
        """Where a service keeps its data: a SQLite file of its own, or the one PostgreSQL (a schema per service)."""
        if self.profile == "cluster" and self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_directory.absolute() / service}.sqlite"

    @property
    def event_log_path(self) -> Path:
        """The embedded event log."""
        return self.data_directory.absolute() / "log.sqlite"

    def extended(self, kind: type[S]) -> S:
        """The settings of a service over this base. Raises `SettingsInvalid`."""
        return load(kind, {name: getattr(self, name) for name in Settings.model_fields})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _GeneratedSecrets(settings_cls)


class _GeneratedSecrets(PydanticBaseSettingsSource):
    """`secrets.json` of the data directory; each class takes the names it knows."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Path(self.current_state.get("data_directory", "data")) / SECRETS_FILE
        if not path.exists():
            return {}
        try:
            kept = json.loads(path.read_text())
        except ValueError as error:
            raise SettingsInvalid(f"{path} is no JSON ({error}); mend it, or remove it to have new secrets") from None
        return {name: value for name, value in kept.items() if name in self.settings_cls.model_fields}


def load(kind: type[S], given: Mapping[str, Any] | None = None) -> S:
    """The settings of this process; `given` (from a command line) comes first. Raises `SettingsInvalid`."""
    try:
        return kind(**(given or {}))
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_lines(kind, error))) from None
    except SettingsError as error:
        raise SettingsInvalid(_not_json(kind, error)) from None


def refuse_unknown_variables(environment: Iterable[str], kinds: Iterable[type[Settings]]) -> None:
    """Raise `SettingsInvalid` for every variable with our prefix that no class knows."""
    known = {_variable(name) for kind in kinds for name in kind.model_fields} | NOT_SETTINGS
    unknown = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsInvalid("\n".join(f"{name}: no such setting{did_you_mean(name, known)}" for name in unknown))


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _not_json(kind: type[Settings], error: SettingsError) -> str:
    """The only variables that are read as JSON are those of secrets by source; what stands there is not shown."""
    named = re.search(r'field "(\w+)"', str(error))
    name = named[1] if named else ""
    assert name in kind.model_fields, error
    return f"{_variable(name)}: {SECRETS_SHAPE}"


def _lines(kind: type[Settings], error: ValidationError) -> Iterable[str]:
    for flaw in error.errors(include_url=False, include_context=False):
        name = str(flaw["loc"][0]) if flaw["loc"] else ""
        message = flaw["msg"].removeprefix("Value error, ")
        if flaw["type"] == "default_factory_not_called":
            continue  # follows from another flaw of the list
        if flaw["type"] == "extra_forbidden":
            yield f"{name}: no such setting{did_you_mean(name, kind.model_fields)}"
        elif flaw["type"] in ("dict_type", "mapping_type"):
            yield f"{_variable(name)}: {SECRETS_SHAPE}"
        elif not name or flaw["type"] == "missing" or _is_secret(kind, name):
            yield f"{_variable(name)}: {message}" if name else message
        else:
            yield f"{_variable(name)}={flaw['input']!r}: {message}"


def _is_secret(kind: type[Settings], name: str) -> bool:
    field = kind.model_fields.get(name)
    return field is None or "Secret" in repr(field.annotation) or name == "api_keys"
