"""The README's claims, run."""

from __future__ import annotations

import re
from pathlib import Path

from shared.topics import markdown_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_topics_is_the_one_in_the_code() -> None:
    block = re.search(r"<!-- topics:[^>]*-->\n(.*)<!-- /topics -->", README, re.DOTALL)
    assert block is not None
    assert block[1].strip() == markdown_table()


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_folder_it_names_exists() -> None:
    folders = re.findall(r"^\| `([a-z/]+)` \|", README, re.MULTILINE)
    assert len(folders) >= 7
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
