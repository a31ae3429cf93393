"""Logs: one JSON line an event, with its trace, without personal data."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry import new_traceparent, set_up_logging, trace_id, traceparent, tracing, without_e_mails

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
    assert lines.count("[e-mail]") == 6


@given(st.emails(domains=st.just("acme.example")))
def test_every_local_part_is_hidden(address: str) -> None:
    assert "@acme.example" not in without_e_mails(f"mail to <{address}> failed")


def test_a_trace_ends_with_its_block() -> None:
    assert trace_id() is None
    with tracing(TRACE):
        assert traceparent() == TRACE
    assert traceparent() != TRACE
    assert len(new_traceparent()) == len(TRACE)
