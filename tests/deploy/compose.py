"""docker-compose.yml as Docker Compose reads it: merged, variables replaced, variables without a value passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.support import ROOT

FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^{}]*))?\}")
SECONDS = {"s": 1, "m": 60}


class VariableMissing(Exception):
    """A required variable has no value."""


@dataclass(frozen=True, slots=True)
class Container:
    """One service of the file."""

    name: str
    image: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    passed_through: frozenset[str] = frozenset()
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    after: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)


def containers(given: Mapping[str, str]) -> dict[str, Container]:
    """The services under these variables. Raises `VariableMissing`."""
    return {name: _container(name, _replaced(raw, given), given) for name, raw in document()["services"].items()}


def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def seconds(text: str) -> float:
    return float(text[:-1]) * SECONDS[text[-1]]


def _container(name: str, raw: Mapping[str, Any], given: Mapping[str, str]) -> Container:
    environment: Mapping[str, str | None] = raw.get("environment", {})
    passed = {key for key, value in environment.items() if value is None}
    return Container(
        name=name,
        image=raw["image"],
        command=tuple(raw.get("command", ())),
        environment={key: str(value) for key, value in environment.items() if value is not None}
        | {key: given[key] for key in passed if key in given},
        passed_through=frozenset(passed),
        ports=tuple(raw.get("ports", ())),
        volumes=tuple(raw.get("volumes", ())),
        health=tuple(raw.get("healthcheck", {}).get("test", ())),
        after={other: how["condition"] for other, how in raw.get("depends_on", {}).items()},
        raw=raw,
    )


def _replaced(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, given) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, given) for inner in value]
    return VARIABLE.sub(lambda found: _value(found, given), value) if isinstance(value, str) else value


def _value(found: re.Match[str], given: Mapping[str, str]) -> str:
    name, kind, text = found.groups()
    if given.get(name):
        return given[name]
    if kind == "?":
        raise VariableMissing(f"{name}: {text}")
    return text or ""
