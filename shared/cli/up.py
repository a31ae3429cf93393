"""`baton up`: all services in one process, and what a newcomer needs to talk to it."""

from __future__ import annotations

import sys
from functools import partial

from shared.cli.options import Output, show_json
from shared.cli.secrets import generated_key
from shared.security import Scope, entry_of
from shared.service import service_names
from shared.settings import Settings
from shared.start import run

ACTIVITY = '{"kind": "page_viewed", "identities": {"email": "ana@example.com"}, "properties": {"path": "/pricing"}}'


def run_up(settings: Settings, *, services: str | None, roles: str | None, output: Output) -> int:
    """Run until told to stop; the exit code."""
    key = generated_key(settings.data_directory)
    keys = dict.fromkeys((*settings.api_keys, entry_of(key, [Scope.ADMIN])))
    return run(
        settings.model_copy(update={"api_keys": tuple(keys), **_for_a_terminal(settings)}),
        names=services.split(",") if services else service_names(),
        roles=roles.split(",") if roles else None,
        announce=partial(_announce, key=key, output=output),
    )


def _for_a_terminal(settings: Settings) -> dict[str, str]:
    """Where a person looks on, only what he should look at; what was set stays."""
    calm = {"log_format": "console", "log_level": "warning"} if sys.stderr.isatty() else {}
    return {name: value for name, value in calm.items() if name not in settings.model_fields_set}


def _announce(settings: Settings, *, key: str, output: Output) -> None:
    url = f"http://{settings.http_host}:{settings.http_port}"
    data = str(settings.data_directory.absolute())
    if output is Output.JSON:
        show_json(
            {"url": url, "public_url": settings.public_url, "api_key": key, "data": data, "profile": settings.profile}
        )
        return
    where = f"data in {data}" if settings.profile == "embedded" else "data in PostgreSQL, events in Kafka"
    print(f"Baton runs at {url} ({where}). Ctrl-C stops it.")
    print(f"  API key   {key}")
    print(f"  health    {url}/livez  {url}/readyz  {url}/metrics")
    print(f"  API       {url}/openapi.json")
    print("Send a first activity:")
    print(f"  curl -sS {url}/v1/activities -H 'Authorization: Bearer {key}' \\")
    print(f"    -H 'Content-Type: application/json' -d '{ACTIVITY}'", flush=True)
