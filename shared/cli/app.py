"""The commands by name. Each function here is its command's signature and help; the work is in the module it calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shared.cli.options import DataOption, KeyOption, LinesOption, Output, OutputOption, ProfileOption, UrlOption

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics = typer.Typer(no_args_is_help=True, help="The topics of the event log.")
dlq = typer.Typer(no_args_is_help=True, help="Records that a service could not use.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
agreement = typer.Typer(no_args_is_help=True, help="The agreement between marketing and sales.")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        print(f"baton {version('baton')}")
        raise typer.Exit


@app.callback()
def baton(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which Baton this is.")
    ] = False,
) -> None:
    """Lead scoring and handoff between marketing and sales, under an agreement both signed."""


app.add_typer(topics, name="topics")
app.add_typer(dlq, name="dlq")
app.add_typer(keys, name="keys")
app.add_typer(agreement, name="agreement")

ServiceOption = Annotated[str | None, typer.Option("--service", help="One service; all without it.")]
FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The agreement's YAML file.")]


@app.command()
def up(
    profile: ProfileOption = None,
    data: DataOption = None,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port to listen on; 0 takes a free one.")] = None,
    roles: Annotated[str | None, typer.Option("--roles", help="Comma-separated; all without it.")] = None,
    services: Annotated[str | None, typer.Option("--services", help="Comma-separated; all without it.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run all services in this process until Ctrl-C."""
    from shared.cli.options import settings_of
    from shared.cli.up import run_up

    settings = settings_of(profile, data, http_host=host, http_port=port)
    raise typer.Exit(run_up(settings, services=services, roles=roles, output=output))


@app.command()
def demo(output: OutputOption = Output.TEXT) -> None:
    """Watch four leads walk the whole way, in one process, through the public API."""
    from shared.cli.demo import run_demo
    from shared.cli.options import refuse_misspelt

    refuse_misspelt()
    raise typer.Exit(run_demo(output))


@app.command()
def migrate(
    service: ServiceOption = None,
    to: Annotated[str, typer.Option("--to", help="head, base, or a revision.")] = "head",
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring the databases to a revision."""
    from shared.cli.migrate import run_migrate
    from shared.cli.options import settings_of

    run_migrate(settings_of(profile, data), service=service, to=to, output=output)


@topics.command()
def ensure(profile: ProfileOption = None, data: DataOption = None, output: OutputOption = Output.TEXT) -> None:
    """Create the topics that are missing; report those that differ (exit 1)."""
    from shared.cli.log import ensure_topics
    from shared.cli.options import settings_of

    raise typer.Exit(ensure_topics(settings_of(profile, data), output))


@app.command()
def check(
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="What is younger, in seconds, is still under way.")
    ] = 60.0,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check the invariants of what is stored; exit 1 with findings."""
    from shared.cli.check import run_check
    from shared.cli.options import settings_of

    raise typer.Exit(run_check(settings_of(profile, data), grace_seconds=grace, output=output))


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="E.g. baton.leads.v1.")],
    n: Annotated[int, typer.Option("-n", min=0, help="How many of the last records.")] = 10,
    since: Annotated[
        str | None, typer.Option("--since", help="A time (ISO 8601), or an age: 90s, 15m, 2h, 3d.")
    ] = None,
    where: Annotated[list[str] | None, typer.Option("--where", help="header=value; all of them must hold.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: LinesOption = Output.TEXT,
) -> None:
    """Show the records of a topic, without a consumer group."""
    from shared.cli.log import Wanted, tail_topic
    from shared.cli.options import settings_of

    wanted = Wanted.of(count=n, since=since, where=where or [])
    tail_topic(settings_of(profile, data), topic, wanted, follow=follow, output=output)


@app.command()
def lag(
    service: ServiceOption = None,
    fail_over: Annotated[
        float | None, typer.Option("--fail-over", min=0, help="Exit 2 if a partition is more seconds behind.")
    ] = None,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say how far each service is behind, in messages and in seconds, and who reads what."""
    from shared.cli.lag import run_lag
    from shared.cli.options import settings_of

    raise typer.Exit(run_lag(settings_of(profile, data), service=service, fail_over_seconds=fail_over, output=output))


@dlq.command("ls")
def dlq_ls(
    service: ServiceOption = None,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: LinesOption = Output.TEXT,
) -> None:
    """List dead letters with their cause and origin."""
    from shared.cli.dlq import list_dead
    from shared.cli.options import settings_of

    list_dead(settings_of(profile, data), service, output)


@dlq.command("show")
def dlq_show(
    place: Annotated[str, typer.Argument(help="As `dlq ls` names it: service/partition/offset.")],
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show one dead letter whole."""
    from shared.cli.dlq import show_dead
    from shared.cli.options import settings_of

    raise typer.Exit(show_dead(settings_of(profile, data), place, output))


@dlq.command("redrive")
def dlq_redrive(
    service: Annotated[str, typer.Argument(help="Whose dead letters.")],
    since: Annotated[str | None, typer.Option("--since", help="Not older: a time (ISO 8601), or an age: 2h.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="However old.")] = False,
    go: Annotated[bool, typer.Option("--go", help="Do it; without this it is only said what would happen.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="With this reason, as `dlq ls` names it.")] = None,
    only_key: Annotated[str | None, typer.Option("--key", help="With this key, as a rule a lead's id.")] = None,
    count: Annotated[int | None, typer.Option("--max", min=1, help="At most so many.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", min=0.01, help="So many a second.")] = None,
    cap: Annotated[int, typer.Option("--cap", min=1, help="Leave what went back so often already.")] = 2,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Send dead letters back to their topic, untouched: once the cause is mended. Each goes once."""
    from dataclasses import replace

    from shared.cli.options import settings_of
    from shared.cli.redrive import Wanted, run_redrive

    wanted = Wanted.of(service, since=since, everything=everything, only=(reason, only_key), cap=cap)
    wanted = replace(wanted, count=count, per_second=rate)
    raise typer.Exit(run_redrive(settings_of(profile, data), wanted, go=go, output=output))


@keys.command("new")
def keys_new(
    name: Annotated[str, typer.Argument(help="Who calls, as the logs name it: letters and digits.")],
    scope: Annotated[list[str], typer.Option("--scope", help="What it may do; repeat it. `admin` may do everything.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Make an API key. It is shown once; what is stored of it is a hash."""
    from shared.cli.keys import make_key
    from shared.cli.options import refuse_misspelt

    refuse_misspelt()
    make_key(name, scope, output)


@app.command()
def explain(
    lead: Annotated[str, typer.Argument(help="The lead's id.")],
    url: UrlOption = None,
    key: KeyOption = None,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say line by line where a lead's score comes from."""
    from shared.cli.client import client_of
    from shared.cli.explain import explain_lead
    from shared.cli.options import settings_of

    explain_lead(client_of(settings_of(profile, data), url, key), lead, output)


@agreement.command("check")
def agreement_check(file: FileArgument, output: OutputOption = Output.TEXT) -> None:
    """Read an agreement, run its examples; errors by line and column (exit 1). Needs no server."""
    from shared.cli.agreement import check_file
    from shared.cli.options import refuse_misspelt

    refuse_misspelt()
    raise typer.Exit(check_file(file, output))


@agreement.command("sign")
def agreement_sign(
    file: FileArgument,
    party: Annotated[str, typer.Option("--party", help="marketing or sales.")],
    signed_by: Annotated[str, typer.Option("--by", help="The head's e-mail address, as the agreement names it.")],
    url: UrlOption = None,
    key: KeyOption = None,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Sign exactly the content of this file for one party."""
    from shared.cli.agreement import sign_file
    from shared.cli.client import client_of
    from shared.cli.options import settings_of

    sign_file(client_of(settings_of(profile, data), url, key), file, (party, signed_by), output)


@agreement.command("publish")
def agreement_publish(
    file: FileArgument,
    url: UrlOption = None,
    key: KeyOption = None,
    profile: ProfileOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put the content of this file, signed by both parties, in force."""
    from shared.cli.agreement import publish_file
    from shared.cli.client import client_of
    from shared.cli.options import settings_of

    publish_file(client_of(settings_of(profile, data), url, key), file, output)
