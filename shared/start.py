"""The start of a process: settings checked, port and data directory taken, signals heard.

Everything that a person can have done wrong is said before anything runs.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from shared.bus import Bus, BusError
from shared.lock import sole_server
from shared.process import Process, serve
from shared.service import (
    API,
    Role,
    choose_roles,
    load_services,
    open_bus,
    refuse_unknown_names,
    settings_classes,
)
from shared.settings import Settings, SettingsInvalid, load, refuse_unknown_variables
from shared.telemetry import log_unheeded, set_up_logging

if TYPE_CHECKING:
    from shared.embedded import EmbeddedBus

RETENTION_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class CannotListen(OSError):
    """The address to listen on is taken or not ours; says which, and how to give another."""


def run(
    settings: Settings,
    *,
    names: Sequence[str],
    roles: Sequence[str] | None = None,
    furnish: Callable[[Settings], Settings] | None = None,
    announce: Callable[[Settings], None] | None = None,
) -> int:
    """Run these services until SIGTERM or Ctrl-C; the exit code. `announce` is called once everything is ready.

    `furnish` adds what a first start makes up, once the data directory is this server's own.
    Raises, before anything runs: `SettingsInvalid`, `UnknownName`, `DataInUse`, `CannotListen`.
    """
    refuse_unknown_variables(os.environ, settings_classes())
    refuse_unknown_names(names, roles)
    if furnish is None:
        _require_a_key(settings, roles)
    set_up_logging(level=settings.log_level, style=settings.log_format)
    with _alone(settings) as tell, _listening(settings) as (listener, bound):
        tell(bound.public_url)
        return asyncio.run(_run(furnish(bound) if furnish else bound, listener, names, roles, announce))


def run_service(name: str, arguments: Sequence[str] | None = None) -> None:
    """`python -m services.X [--roles api,consume] [--profile ...] [--port ...]`: run until SIGTERM, then exit."""
    from shared.cli.errors import fail  # here: the command line starts processes too

    parser = argparse.ArgumentParser(prog=f"python -m services.{name}", description=f"Run the service {name}.")
    parser.add_argument("--roles", help="comma-separated; all without it")
    parser.add_argument("--profile", help="embedded, or cluster: the default where addresses are given")
    parser.add_argument("--data", dest="data_directory", help="the data directory")
    parser.add_argument("--host", dest="http_host", help="address to listen on")
    parser.add_argument("--port", dest="http_port", help="port to listen on")
    given = vars(parser.parse_args(arguments))
    roles = given.pop("roles")
    try:
        settings = load(Settings, {key: value for key, value in given.items() if value is not None})
        code = run(settings, names=[name], roles=roles.split(",") if roles else None)
    except Exception as error:
        fail(error, parser.prog)
    sys.exit(code)


def _require_a_key(settings: Settings, roles: Sequence[str] | None) -> None:
    """A door that nobody can open would answer 401 to everything, and look well."""
    if (roles is None or API in roles) and not settings.api_keys:
        raise SettingsInvalid(
            "no API key: the role api would refuse everybody. Make one (`baton keys new NAME --scope admin`) "
            "and set BATON_API_KEYS to its entry, or leave api out of --roles"
        )


@contextmanager
def _listening(settings: Settings) -> Iterator[tuple[socket.socket, Settings]]:
    """A listening socket, and the settings with its port (port 0 takes a free one). Raises `CannotListen`."""
    with _bound(settings.http_host, settings.http_port) as listener:
        port = listener.getsockname()[1]
        update: dict[str, object] = {"http_port": port}
        if "public_url" not in settings.model_fields_set:
            update["public_url"] = f"http://{settings.http_host}:{port}"
        yield listener, settings.model_copy(update=update)


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        what = (
            f"port {port} of {host} is in use by another program"
            if error.errno == errno.EADDRINUSE
            else f"cannot listen on {host}, port {port} ({error.strerror})"
        )
        raise CannotListen(f"{what}; give another: --port or BATON_HTTP_PORT (--host, BATON_HTTP_HOST)") from None


@contextmanager
def _alone(settings: Settings) -> Iterator[Callable[[str], None]]:
    """On the embedded profile, the data directory's only server. Yields what tells the others its address."""
    if settings.profile == "cluster":
        yield lambda url: None
        return
    with sole_server(settings.data_directory) as tell:
        yield tell


async def _run(
    settings: Settings,
    listener: socket.socket,
    names: Sequence[str],
    roles: Sequence[str] | None,
    announce: Callable[[Settings], None] | None,
) -> int:
    bus = open_bus(settings)
    services = load_services(names, bus, settings)
    process = Process(services, choose_roles(services, roles), bus, settings, listener, _tending(bus))
    stop, ready = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        log.info("process.stopping", signal=number.name)
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C ends it at once

    loop.set_exception_handler(log_unheeded)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    announcing = asyncio.create_task(_announced(ready, settings, announce))
    try:
        await serve(process, stop=stop, ready=ready)
    except Exception:
        log.exception("process.failed")
        return 1
    finally:
        announcing.cancel()
    return 0


def _tending(bus: Bus) -> dict[str, Role]:
    """A broker deletes what is past its retention itself; on the embedded profile the server does."""
    from shared.embedded import EmbeddedBus

    if not isinstance(bus, EmbeddedBus):
        return {}
    return {"retention": partial(_delete_expired, bus)}


async def _delete_expired(bus: EmbeddedBus, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            deleted = await bus.delete_expired()
        except BusError as error:
            log.warning("retention.waits", cause=type(error).__name__, detail=str(error))
        else:
            log.info("retention.done", deleted=deleted)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), RETENTION_SECONDS)


async def _announced(ready: asyncio.Event, settings: Settings, announce: Callable[[Settings], None] | None) -> None:
    await ready.wait()
    if announce is not None:
        announce(settings)
