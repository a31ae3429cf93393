"""`baton migrate`: a service's database to a revision, forward or back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict

from shared.cli.options import Output, show_json, show_table
from shared.lock import sole_server
from shared.migrations import migrate
from shared.service import UnknownName, migrations_of, service_names
from shared.settings import Settings


def run_migrate(settings: Settings, *, service: str | None, to: str, output: Output) -> None:
    """Migrate one service, or all. On the embedded profile no server may run meanwhile."""
    if service is None and to not in ("head", "base"):
        raise UnknownName(f"--to {to} is one service's revision; say which with --service")
    is_embedded = settings.profile == "embedded"
    with sole_server(settings.data_directory, "baton migrate") if is_embedded else nullcontext():
        done = [
            migrate(settings.database_url_for(name), service=name, directory=migrations_of(name), revision=to)
            for name in ([service] if service else service_names())
        ]
    if output is Output.JSON:
        show_json({"services": [asdict(one) for one in done]})
    else:
        show_table(["service", "before", "after"], [(one.service, one.before, one.after) for one in done])
