"""Options that mean the same in every command, and how answers are printed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shared.settings import Settings


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


class ProfileName(StrEnum):
    EMBEDDED = "embedded"
    CLUSTER = "cluster"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs: one JSON object.")]
LinesOption = Annotated[
    Output, typer.Option("--output", "-o", help="For people, or for programs: a JSON object a line, none for nothing.")
]
ProfileOption = Annotated[
    ProfileName | None,
    typer.Option(
        "--profile", help="Where data lives: files here, or PostgreSQL and Kafka (the default with their addresses)."
    ),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="The data directory.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="The server; without it, the one that runs on --data.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="The API key; without it, DATA/api-key.")]


def refuse_misspelt() -> None:
    """Raise `SettingsInvalid` for every variable with our prefix that nobody knows."""
    from shared.service import settings_classes
    from shared.settings import refuse_unknown_variables

    refuse_unknown_variables(os.environ, settings_classes())


def settings_of(profile: ProfileName | None, data: Path | None, **given: object) -> Settings:
    """The settings under these options; what is not given comes from the environment."""
    from shared.settings import Settings, load
    from shared.telemetry import set_up_logging

    refuse_misspelt()
    set_up_logging(level="error", style="console")  # standard output is the answer's alone
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say comes as our error
    values = {"profile": profile and profile.value, "data_directory": data, **given}
    return load(Settings, {name: value for name, value in values.items() if value is not None})


def show_json(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=False, default=_plain), flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    for line in (columns, ["-" * width for width in widths], *cells):
        padded = (
            cell.rjust(width) if _is_number(cell) else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def _cell(value: object) -> str:
    """Printable on one line: what a lead wrote must not move the cursor of a terminal."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "�" for character in text)


def _is_number(cell: str) -> bool:
    return cell.lstrip("+-").replace(".", "", 1).isdigit()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
