"""The real parts under the tests, one of each a session, started when the first test asks for it."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest

from shared.bus import Bus
from shared.embedded import EmbeddedBus
from shared.kafka import KafkaBus
from shared.settings import NOT_SETTINGS, PREFIX
from tests.support import KAFKA_LIMITS, Databases, Stack, delete_topics, dev_server, fresh_postgresql_database


@pytest.fixture(scope="session", autouse=True)
def _settings_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees what the person who runs it has set or has in ./data."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(PREFIX) and name not in NOT_SETTINGS]:
            environment.delenv(name)
        environment.setenv("BATON_DATA_DIRECTORY", str(tmp_path_factory.mktemp("no-data")))
        yield


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The address of a PostgreSQL without fsync: a test that pulls the plug starts one of its own."""
    with dev_server("postgres", "--no-fsync") as address:
        yield address


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    """The address of an Apache Kafka."""
    with dev_server("kafka") as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Databases]:
    async with AsyncExitStack() as parts:
        yield await _databases(parts, request.param, request, tmp_path)


@pytest.fixture(params=["embedded", pytest.param("cluster", marks=pytest.mark.kafka)])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    """An event log of its own, without topics."""
    async with AsyncExitStack() as parts:
        yield await _bus(parts, request.param, request, tmp_path)


@pytest.fixture(params=["embedded", pytest.param("cluster", marks=[pytest.mark.kafka, pytest.mark.postgres])])
async def stack(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as parts:
        kind: Literal["sqlite", "postgresql"] = "sqlite" if request.param == "embedded" else "postgresql"
        databases = await _databases(parts, kind, request, tmp_path)
        yield Stack(request.param, await _bus(parts, request.param, request, tmp_path), databases)


async def _databases(
    parts: AsyncExitStack, kind: Literal["sqlite", "postgresql"], request: pytest.FixtureRequest, tmp_path: Path
) -> Databases:
    place = str(tmp_path)
    if kind == "postgresql":
        place = parts.enter_context(fresh_postgresql_database(request.getfixturevalue("postgresql_server")))
    databases = Databases(kind, place)
    parts.push_async_callback(databases.close)
    return databases


async def _bus(parts: AsyncExitStack, profile: str, request: pytest.FixtureRequest, tmp_path: Path) -> Bus:
    bus: EmbeddedBus | KafkaBus
    if profile == "embedded":
        bus = EmbeddedBus(tmp_path / "log.sqlite")
    else:
        kafka, prefix = request.getfixturevalue("kafka_server"), f"t{secrets.token_hex(4)}."
        bus = KafkaBus(kafka, prefix=prefix, limits=KAFKA_LIMITS)
        parts.push_async_callback(delete_topics, kafka, prefix)
    parts.push_async_callback(bus.close)
    return bus
