"""Logs: one JSON line an event, with its trace, without personal data."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from shared.sql import sql
from shared.telemetry import (
    log_unheeded,
    new_traceparent,
    reason_of,
    set_up_logging,
    trace_id,
    traceparent,
    tracing,
    without_e_mails,
)
from tests.support import Databases

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def logging_as_a_process_does() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers.clear()
    set_up_logging()
    try:
        yield
    finally:
        structlog.reset_defaults()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    line: dict[str, object] = json.loads(capsys.readouterr().err.splitlines()[-1])
    return line


def test_a_line_carries_the_trace_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as_a_process_does(), tracing(TRACE):
        structlog.get_logger("baton").info("lead.scored", lead_id="lead_1")
    line = last_line(capsys)
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (line["event"], line["lead_id"], line["level"], line["logger"]) == ("lead.scored", "lead_1", "info", "baton")
    assert str(line["timestamp"]).endswith("Z")


def test_the_standard_librarys_loggers_come_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_as_a_process_does():
        logging.getLogger("some.library").warning("value %s", 3)
    assert last_line(capsys)["event"] == "value 3"


def test_an_e_mail_address_reaches_no_line_whatever_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("baton")
    with logging_as_a_process_does():
        log.info("hello ana@acme.example", to="ana@acme.example", nested={"deep": ["ana@acme.example"]})
        logging.getLogger("driver").warning("Key (value)=(ana@acme.example) already exists")
        try:
            raise ValueError("duplicate ana@acme.example")
        except ValueError:
            log.exception("failed")
    lines = capsys.readouterr().err
    assert "failed" in lines
    assert "ana@acme" not in lines
    assert lines.count("[e-mail]") == 4


def fail(canary: str) -> None:
    try:
        raise KeyError(canary)
    except KeyError as error:
        raise ValueError(f"DETAIL: Key (kind, value)=(user_id, {canary}) already exists") from error


def test_of_an_error_a_line_says_kind_and_frames_and_nothing_it_says_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = structlog.get_logger("baton")
    with logging_as_a_process_does():
        try:
            fail("canary")
        except ValueError as error:
            group = ExceptionGroup("canary in a group", [error, OSError("canary of the system")])
            log.exception("failed")
            logging.getLogger("driver").exception("failed as well")
            log.error("failed in a group", exc_info=group)
    printed = capsys.readouterr().err
    assert "canary" not in printed
    first, second, third = (json.loads(line)["exception"].splitlines() for line in printed.splitlines())
    assert first == second
    kinds = [line for line in third if not line.startswith(" ")]
    assert [line for line in first if not line.startswith(" ")] == ["ValueError", "KeyError"]
    assert kinds == ["ExceptionGroup", "ValueError", "KeyError", "OSError"]
    assert first[-1].startswith("  shared/test_telemetry.py:")
    assert first[-1].endswith(" in fail")


async def test_an_error_of_a_task_that_nobody_waits_for_is_told_without_its_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def doomed() -> None:
        fail("canary")

    asyncio.get_running_loop().set_exception_handler(log_unheeded)
    with logging_as_a_process_does():
        task = asyncio.create_task(doomed())
        await asyncio.wait([task])
        del task
        gc.collect()
    printed = capsys.readouterr().err
    assert "canary" not in printed
    assert json.loads(printed)["exception"].startswith("ValueError\n")


def test_a_reason_is_the_kind_of_error_and_its_place() -> None:
    with pytest.raises(ValueError, match="canary") as caught:
        fail("canary")
    kind, _, place = reason_of(caught.value).partition(" at ")
    assert kind == "ValueError"
    assert place.startswith("shared/test_telemetry.py:")
    assert reason_of(OSError("canary")) == "OSError"
    assert reason_of(OSError(2, "canary")) == "FileNotFoundError"


@pytest.mark.postgres
@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
async def test_what_a_database_quotes_of_a_row_reaches_no_line(
    databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    database = databases.open("scoring")
    taken = sql("INSERT INTO identities (kind, value, lead_id, created_at) VALUES ('user_id', 'canary', 'l', :at)")
    with logging_as_a_process_does():
        await database.run(lambda session: session.execute(taken, at=datetime.now(UTC)))
        with pytest.raises(IntegrityError, match="canary") as caught:
            await database.run(lambda session: session.execute(taken, at=datetime.now(UTC)))
        structlog.get_logger("baton").error("failed", exc_info=caught.value)
    line = last_line(capsys)
    assert line["event"] == "failed"
    assert "IntegrityError" in str(line["exception"])
    assert "canary" not in json.dumps(line)


@given(st.emails(domains=st.just("acme.example")))
def test_every_local_part_is_hidden(address: str) -> None:
    assert "@acme.example" not in without_e_mails(f"mail to <{address}> failed")


def test_a_trace_ends_with_its_block() -> None:
    assert trace_id() is None
    with tracing(TRACE):
        assert traceparent() == TRACE
    assert traceparent() != TRACE
    assert len(new_traceparent()) == len(TRACE)
