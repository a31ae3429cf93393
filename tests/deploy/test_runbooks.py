"""What the runbooks and the README tell an operator to type and to look for exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from shared.cli.app import app
from shared.embedded import EmbeddedBus
from shared.service import choose_roles, load_services
from shared.settings import Settings
from tests.deploy.compose import document
from tests.support import ROOT

RUNBOOKS = {page.name: page.read_text() for page in sorted((ROOT / "docs/runbooks").glob("*.md"))}
PAGES = RUNBOOKS | {"README.md": (ROOT / "README.md").read_text()}
SOURCE = "\n".join(path.read_text() for folder in ("shared", "services") for path in (ROOT / folder).rglob("*.py"))


def typed(program: str) -> list[list[str]]:
    """The words after this program, wherever a shell block of a page runs it."""
    blocks = [block for text in PAGES.values() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [found for block in blocks for found in re.findall(rf"(?:^|(?<= )){program} (.*)$", block, re.MULTILINE)]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("words", typed("baton"), ids=" ".join)
def test_a_command_exists_with_these_options(words: list[str]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("baton", list(words))
    while isinstance(command, typer.core.TyperGroup):
        word, *words = words
        found = command.get_command(context, word)
        assert found is not None, f"no such command: {word}"
        command = found
    command.make_context("baton", list(words))  # raises for an option it does not know


def test_the_containers_it_names_are_in_the_compose_file() -> None:
    known = document()["services"]
    named = {word for words in typed("docker compose") for word in words[1:] if word in known}
    assert {"scoring", "handoff", "notifier", "topics"} <= named
    for words in typed("docker compose"):
        if words[0] in {"exec", "logs"}:
            assert words[1] in known


def test_the_roles_it_names_are_the_services_own(tmp_path: Path) -> None:
    splits = [words for words in typed("python -m") if words[0].startswith("services.")]
    assert len(splits) >= 3
    for module, *options in splits:
        given = dict(zip(options[::2], options[1::2], strict=True))
        assert given.keys() <= {"--roles", "--port"}
        roles = given.get("--roles", "api")
        settings = Settings(data_directory=tmp_path)
        services = load_services([module.removeprefix("services.")], EmbeddedBus(tmp_path / "log.sqlite"), settings)
        assert choose_roles(services, roles.split(",")) == set(roles.split(","))


def test_the_log_lines_it_names_are_written() -> None:
    named = set(re.findall(r"`((?:consume|relay|role|topics|migrate)\.[a-z_]+)`", RUNBOOKS["lag.md"]))
    assert len(named) >= 4
    assert [name for name in named if f'"{name}"' not in SOURCE] == []


def test_the_reasons_of_a_dead_letter_are_all_explained() -> None:
    given = set(re.findall(r'\bDeath\(\s*"([a-z-]+)"', SOURCE))
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", RUNBOOKS["dead-letters.md"], re.MULTILINE))
    assert given == explained


def test_every_page_it_refers_to_is_there() -> None:
    for name, text in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs/runbooks"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), f"{name}: {link}"
