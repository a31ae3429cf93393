"""`docs/lifecycle.md` shows the table that the code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.handoff.diagram import markdown_table, mermaid
from services.handoff.lifecycle import OPEN, TABLE, State

PAGE = (Path(__file__).resolve().parents[2] / "docs/lifecycle.md").read_text()


@pytest.mark.parametrize(("name", "drawn"), [("diagram", f"```mermaid\n{mermaid()}\n```"), ("table", markdown_table())])
def test_the_page_shows_what_the_code_does(name: str, drawn: str) -> None:
    block = re.search(rf"<!-- {name} -->\n(.*)\n<!-- /{name} -->", PAGE, re.DOTALL)
    assert block is not None
    assert block[1] == drawn, f"docs/lifecycle.md is out of date; paste this between the marks:\n{drawn}"


def test_the_picture_has_an_arrow_for_every_move_of_the_table() -> None:
    arrows = {(source, target) for source, target in re.findall(r"(\S+) --> (\w+):", mermaid())}
    drawn = {(each, target) for source, target in arrows for each in (OPEN if source == "open" else [source])}
    moves = {
        (source or "[*]", row.target)
        for row in TABLE.values()
        for source in row.sources
        if row.target not in (None, source)
    }
    assert drawn == moves


def test_what_is_not_open_is_an_end() -> None:
    assert set(re.findall(r"(\w+) --> \[\*\]", mermaid())) == {state for state in State if not state.is_open}
