"""What a service is made of, and how the services of this installation are found.

Each service says so in `services/X/__main__.py`: `build(bus, settings) -> Service`, and `main()`, which calls
`shared.start.run_service("X")`. They are found by entry points (`baton.services`, `baton.settings` in pyproject.toml),
because `shared` imports no service.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from shared.bus import Bus
from shared.nearest import did_you_mean
from shared.settings import Settings

if TYPE_CHECKING:  # the command line finds services without their libraries
    from fastapi import APIRouter

    from shared.checks import Check
    from shared.db import Database

API = "api"
SERVICES = "baton.services"
SETTINGS = "baton.settings"
CHECKS = "baton.checks"
ROLES = {
    "handoff": (API, "clock", "consume", "relay"),
    "notifier": (API, "consume", "deliver", "relay"),
    "scoring": (API, "consume", "refold", "relay"),
}  # so that a wrong word is known before a service is built; a test holds it to the services

Role = Callable[[asyncio.Event], Awaitable[None]]  # runs until the event is set, then drains and returns
Build = Callable[[Bus, Settings], "Service"]


class UnknownName(ValueError):
    """A service or role that does not exist; lists those that do."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service in one process. The role `api` is its routers, and what stands under that name in `roles`.

    `migrations`: its Alembic directory; `load_services` finds it beside `build`. `body_limits`: bytes of a request's
    body, by how its path begins, where that is less than `max_body_bytes`.
    """

    name: str
    database: Database
    roles: Mapping[str, Role]
    routers: Sequence[APIRouter]
    migrations: Path | None = None
    body_limits: Mapping[str, int] = field(default_factory=dict)


def service_names() -> tuple[str, ...]:
    """The services of this installation."""
    return tuple(_found(SERVICES))


def settings_classes() -> list[type[Settings]]:
    """The settings of every service of this installation, and the common ones."""
    return [Settings, *(point.load() for point in _found(SETTINGS).values())]


def refuse_unknown_names(names: Sequence[str], roles: Sequence[str] | None) -> None:
    """Raise `UnknownName` for a service that is not installed, or a role that none of these has."""
    for name in names:
        _entry(name)
    _refuse_unknown_roles(roles, {role for name in names for role in ROLES[name]})


def load_services(names: Iterable[str], bus: Bus, settings: Settings) -> list[Service]:
    """Build these services. Raises `UnknownName`, `SettingsInvalid`."""
    return [_with_migrations(_entry(name).load(), bus, settings) for name in names]


def migrations_of(name: str) -> Path:
    """The Alembic directory of a service."""
    return _beside(_entry(name).load())


def choose_roles(services: Iterable[Service], wanted: Sequence[str] | None) -> frozenset[str]:
    """The roles to run, all without a choice. Raises `UnknownName` for one that none of the services has."""
    known = {API}.union(*(service.roles for service in services))
    _refuse_unknown_roles(wanted, known)
    return frozenset(wanted or known)


def checks_of(name: str) -> Check:
    """What `baton check` asks a service's database. Raises `UnknownName`."""
    found = _found(CHECKS)
    if name not in found:
        raise UnknownName(f"service {name!r} has no checks (entry point {CHECKS})")
    check: Check = found[name].load()
    return check


def open_bus(settings: Settings, *, read_only: bool = False) -> Bus:
    """The event log of the profile, connected when first used. `read_only`: beside a running embedded server."""
    if settings.profile == "embedded":
        from shared.embedded import EmbeddedBus

        return EmbeddedBus(settings.event_log_path, read_only=read_only)
    from shared.kafka import KafkaBus

    return KafkaBus(settings.kafka_bootstrap, prefix=settings.topic_prefix)


def _refuse_unknown_roles(wanted: Sequence[str] | None, known: Collection[str]) -> None:
    for role in wanted or ():
        if role not in known:
            raise UnknownName(f"unknown role {role!r}{did_you_mean(role, known)}; known: {', '.join(sorted(known))}")


def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def _entry(name: str) -> EntryPoint:
    found = _found(SERVICES)
    if name not in found:
        raise UnknownName(f"unknown service {name!r}{did_you_mean(name, found)}; known: {', '.join(found)}")
    return found[name]


def _with_migrations(build: Build, bus: Bus, settings: Settings) -> Service:
    service = build(bus, settings)
    return replace(service, migrations=service.migrations or _beside(build))


def _beside(build: Build) -> Path:
    return Path(inspect.getfile(build)).parent / "migrations"
