"""The real parts under the tests, one of each a session, started when the first test asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import Databases, dev_server, fresh_postgresql_database


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The address of a PostgreSQL without fsync: a test that pulls the plug starts one of its own."""
    with dev_server("postgres", "--no-fsync") as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Databases]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            place = str(tmp_path)
        else:
            place = stack.enter_context(fresh_postgresql_database(request.getfixturevalue("postgresql_server")))
        databases = Databases(request.param, place)
        try:
            yield databases
        finally:
            await databases.close()
