"""`baton up`: all services in one process, and what a newcomer needs to talk to it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

from shared.cli.options import Output, show_json
from shared.cli.secrets import HUBSPOT_SOURCE, WEB_SOURCE, generated_key, generated_write_key
from shared.security import Scope, entry_of
from shared.service import service_names
from shared.settings import Settings
from shared.start import run

ACTIVITY = '{"kind": "page_viewed", "identities": {"email": "ana@example.com"}, "properties": {"path": "/pricing"}}'
SAMPLE = Path(__file__).resolve().parents[2] / "deploy/agreements/acme.yaml"
HEADS = {"marketing": "mia@acme.example", "sales": "sam@acme.example"}  # as the sample names them


def run_up(settings: Settings, *, services: str | None, roles: str | None, output: Output) -> int:
    """Run until told to stop; the exit code."""
    is_whole = services is None and roles is None
    code = run(
        settings.model_copy(update=_for_a_terminal(settings)),
        names=services.split(",") if services else service_names(),
        roles=roles.split(",") if roles else None,
        furnish=_with_generated_key,
        announce=_announce_json if output is Output.JSON else partial(_announce, is_whole=is_whole),
    )
    if code == 0 and output is Output.TEXT:
        print("stopped")
    return code


def _with_generated_key(settings: Settings) -> Settings:
    entry = entry_of(generated_key(settings.data_directory), [Scope.ADMIN])
    return settings.model_copy(update={"api_keys": tuple(dict.fromkeys((*settings.api_keys, entry)))})


def _for_a_terminal(settings: Settings) -> dict[str, str]:
    """Where a person looks on, only what he should look at; what was set stays."""
    calm = {"log_format": "console", "log_level": "warning"} if sys.stderr.isatty() else {}
    return {name: value for name, value in calm.items() if name not in settings.model_fields_set}


def _announce_json(settings: Settings) -> None:
    show_json(
        {
            "url": _url(settings),
            "public_url": settings.public_url,
            "api_key": generated_key(settings.data_directory),
            "data": str(settings.data_directory.absolute()),
            "profile": settings.profile,
        }
    )


def _announce(settings: Settings, *, is_whole: bool) -> None:
    url, key, data = _url(settings), generated_key(settings.data_directory), settings.data_directory.absolute()
    where = f"data in {data}" if settings.profile == "embedded" else "data in PostgreSQL, events in Kafka"
    print(f"Baton runs at {url} ({where}). Ctrl-C stops it.")
    print(f"  API key   {key}")
    if settings.profile == "cluster":
        print(f"            other processes know it by BATON_API_KEYS={entry_of(key, [Scope.ADMIN])}")
    print(f"  Segment   {url}/v1, write key {_write_key(settings)}")
    print(f"  HubSpot   {settings.public_url}/webhooks/{HUBSPOT_SOURCE}, its client secret from BATON_HUBSPOT_SECRETS")
    print(f"  health    {url}/livez  {url}/readyz  {url}/metrics")
    print(f"  API       {url}/openapi.json")
    if is_whole:
        _say_how_to_begin(settings, url, key)
    sys.stdout.flush()


def _say_how_to_begin(settings: Settings, url: str, key: str) -> None:
    print("Send a first activity:")
    print(f"  curl -sS {url}/v1/activities -H 'Authorization: Bearer {key}' \\")
    print(f"    -H 'Content-Type: application/json' -d '{ACTIVITY}'")
    if SAMPLE.exists():
        print("It is kept, and scored once both teams' agreement is in force. Sign and publish the sample:")
        for arguments in (
            *(f"sign {_shown(SAMPLE)} --party {party} --by {head}" for party, head in HEADS.items()),
            f"publish {_shown(SAMPLE)}",
        ):
            print(f"  {_program()} agreement {arguments}{_server_options(settings, url)}")


def _write_key(settings: Settings) -> str:
    """What was set is shown by its name, what we made up by its value."""
    variable = "BATON_SEGMENT_WRITE_KEYS"
    return f"from {variable}" if variable in os.environ else generated_write_key(settings.data_directory, WEB_SOURCE)


def _server_options(settings: Settings, url: str) -> str:
    """What a command needs to find this server and its key from here."""
    data = settings.data_directory
    at_data = "" if data == Settings.model_fields["data_directory"].default else f" --data {shlex.quote(str(data))}"
    return f"{at_data} --url {url}" if settings.profile == "cluster" else at_data


def _program() -> str:
    return "baton" if shutil.which("baton") else _shown(Path(sys.executable).with_name("baton"))


def _shown(path: Path) -> str:
    """As one types it here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _url(settings: Settings) -> str:
    return f"http://{settings.http_host}:{settings.http_port}"
