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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.nearest import did_you_mean

PREFIX = "BATON_"
SECRETS_FILE = "secrets.json"
NOT_SETTINGS = frozenset({"BATON_TEST_REQUIRE", "BATON_OUTSIDE_DATA", "BATON_FAILPOINT", "BATON_CACHE"})

Profile = Literal["embedded", "cluster"]
S = TypeVar("S", bound="Settings")


class SettingsInvalid(ValueError):
    """A setting is missing, unknown or malformed; one line for each, without any secret."""


class Settings(BaseSettings):
    """The settings every process knows. Immutable; secrets are masked wherever it is shown."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    profile: Profile = "embedded"
    data_directory: Path = Path("data")
    database_url: SecretStr | None = None
    kafka_bootstrap: str = ""
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

    @model_validator(mode="after")
    def _cluster_is_addressed(self) -> Settings:
        addresses = {"database_url": self.database_url, "kafka_bootstrap": self.kafka_bootstrap}
        missing = [f"{PREFIX}{name.upper()}" for name, value in addresses.items() if not value]
        if self.profile == "cluster" and missing:
            raise ValueError(f"profile cluster needs {' and '.join(missing)}")
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
        kept = json.loads(path.read_text())
        return {name: value for name, value in kept.items() if name in self.settings_cls.model_fields}


def load(kind: type[S], given: Mapping[str, Any] | None = None) -> S:
    """The settings of this process; `given` (from a command line) comes first. Raises `SettingsInvalid`."""
    try:
        return kind(**(given or {}))
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_lines(kind, error))) from None


def refuse_unknown_variables(environment: Iterable[str], kinds: Iterable[type[Settings]]) -> None:
    """Raise `SettingsInvalid` for every variable with our prefix that no class knows."""
    known = {f"{PREFIX}{name}".upper() for kind in kinds for name in kind.model_fields} | NOT_SETTINGS
    unknown = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsInvalid("\n".join(f"{name}: no such setting{did_you_mean(name, known)}" for name in unknown))


def _lines(kind: type[Settings], error: ValidationError) -> Iterable[str]:
    for flaw in error.errors(include_url=False, include_context=False):
        name = str(flaw["loc"][0]) if flaw["loc"] else ""
        message = flaw["msg"].removeprefix("Value error, ")
        if flaw["type"] == "default_factory_not_called":
            continue  # follows from another flaw of the list
        if flaw["type"] == "extra_forbidden":
            yield f"{name}: no such setting{did_you_mean(name, kind.model_fields)}"
        elif not name or flaw["type"] == "missing" or _is_secret(kind, name):
            yield f"{PREFIX}{name.upper()}: {message}" if name else message
        else:
            yield f"{PREFIX}{name.upper()}={flaw['input']!r}: {message}"


def _is_secret(kind: type[Settings], name: str) -> bool:
    field = kind.model_fields.get(name)
    return field is None or "Secret" in repr(field.annotation) or name == "api_keys"
