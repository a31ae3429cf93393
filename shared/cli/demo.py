"""`baton demo`: the whole stack in one process, a story played through its public HTTP interface, and what came of it.

Exits 0 only if what was observed through the API is what the story must give.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from shared.cli.mailbox import Mailbox, mailbox
from shared.cli.options import Output, show_json
from shared.cli.secrets import HUBSPOT_SOURCE, WEB_SOURCE, new_webhook_secret
from shared.cli.stage import Json, Stage, StoryFailed
from shared.cli.story import Story, check
from shared.cli.timeline import timeline
from shared.settings import SECRETS_FILE

AGREEMENTS = Path(__file__).resolve().parents[2] / "deploy/agreements"
LOG = "server.log"
START_SECONDS = 30.0
STOP_SECONDS = 25.0
TABLE_WIDTH = 110


def run_demo(output: Output) -> int:
    """Play it; the exit code."""
    started = time.monotonic()
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="baton-demo-") as directory:
        secret = new_webhook_secret()
        with mailbox(secret) as received, server(Path(directory), received, secret) as stage:
            progress.print(f"All three services run in one process at {stage.url}, their data in {directory}.")
            agreements = [(AGREEMENTS / name).read_text() for name in ("acme.yaml", "demo.yaml")]
            story = Story(stage, agreements, lambda who, text: progress.print(f"[dim]{who:>9}[/] {text}"))
            try:
                story.play()
                facts = story.facts()
                check(facts)
            except (StoryFailed, httpx.TransportError) as failure:
                progress.print("[bold red]The story did not end as it must.[/]")
                progress.print(_told(failure, Path(directory) / LOG), markup=False)
                return 1
            events = stage.events()
            seconds = round(time.monotonic() - started, 1)
            if output is Output.JSON:
                show_json({"leads": facts, "events": events, "seconds": seconds})
            else:
                _show(story, facts, events, seconds)
    return 0


@contextmanager
def server(directory: Path, received: Mailbox, secret: str, given: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """`baton up` on this directory and a free port, ended with the block. `given`: more of its settings."""
    told = {
        "BATON_SMTP_URL": received.smtp_url,
        "BATON_SLACK_WEBHOOK_URL": received.slack_url,
        "BATON_AUTOMATION_WEBHOOK_URL": received.automation_url,
        "BATON_AUTOMATION_WEBHOOK_SECRET": secret,
        "BATON_OUTBOUND_ALLOW_PRIVATE": received.http_place,
        "BATON_LOG_LEVEL": "warning",
        **(given or {}),
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}
    command = [sys.executable, "-m", "shared.cli", "up", "--data", str(directory), "--port", "0", "-o", "json"]
    log_path = directory / LOG
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=plain | told, stdout=subprocess.PIPE, stderr=log, text=True)
        with process:
            try:
                with closing(_stage(process, directory, log_path)) as stage:
                    yield stage
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _stage(process: subprocess.Popen[str], directory: Path, log_path: Path) -> Stage:
    """What the server announced, once it is ready."""
    assert process.stdout is not None
    is_heard = select.select([process.stdout], [], [], START_SECONDS)[0]
    line = process.stdout.readline() if is_heard else ""
    if not line:
        raise SystemExit(f"the server did not start:\n{log_path.read_text()[-4000:]}")
    announced = json.loads(line)
    secrets = json.loads((directory / SECRETS_FILE).read_text())
    return Stage(
        url=announced["url"],
        public_url=announced["public_url"],
        api_key=announced["api_key"],
        segment_write_key=secrets["segment_write_keys"][WEB_SOURCE],
        hubspot_source=HUBSPOT_SOURCE,
        hubspot_secret=secrets["hubspot_secrets"][HUBSPOT_SOURCE],
    )


def _told(failure: Exception, log_path: Path) -> str:
    """What went wrong; of a server that died, its last words, as its directory is deleted."""
    if isinstance(failure, StoryFailed):
        return str(failure)
    return f"The server no longer answers ({type(failure).__name__}). Its last words:\n{log_path.read_text()[-2000:]}"


def _show(story: Story, facts: list[Json], events: int, seconds: float) -> None:
    """The timeline, and where each lead is now."""
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)
    console.print("\n[bold]What happened, when, and why[/] (UTC)")
    for entry in timeline(story):
        at = f"{entry.at:%H:%M:%S}.{entry.at.microsecond // 100_000}"
        console.print(f"{at}  {entry.who:<6} {entry.what}", markup=False)
        if entry.why:
            console.print(f"{'':19}{entry.why}", style="dim", markup=False)
    table = Table("lead", "score", "state", "owner", "reason", "nurture", "breached", title="Where each lead is now")
    for fact in facts:
        nurture = fact["nurture"] or {}
        wakes = f", wakes {nurture['wake_at'][:10]}" if nurture.get("wake_at") else ""
        cells = (fact["name"], f"{fact['score']:g}", fact["state"] or "with marketing", fact["owner"] or "",
                 fact["reason"] or "", f"{nurture.get('track', '')}{wakes}", ", ".join(fact["breaches"]))  # fmt: skip
        table.add_row(*cells)
    console.print(table, soft_wrap=False)
    console.print(f"{events} events, {seconds} s. Everything above was observed through the public API.")
