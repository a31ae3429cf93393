"""docs/checks.md explains every invariant that `baton check` can name, and no other."""

from __future__ import annotations

import re

from tests.support import ROOT

FINDING = re.compile(r'Finding\(\s*"(I\d+)"')
ROW = re.compile(r"^\| (I\d+) \|", re.MULTILINE)


def test_the_page_on_checks_explains_each_number_that_a_finding_can_have() -> None:
    sources = [*ROOT.glob("services/*/*.py"), *ROOT.glob("shared/*.py")]
    found = {number for source in sources for number in FINDING.findall(source.read_text())}
    explained = ROW.findall((ROOT / "docs/checks.md").read_text())
    assert explained == sorted(found, key=lambda number: int(number[1:]))
