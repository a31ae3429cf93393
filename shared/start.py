"""The start of a process: settings checked, port and data directory taken, signals heard.

Everything that a person can have done wrong is said before anything runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from shared.bus import Bus, BusError
from shared.lock import sole_server
from shared.process import Process, serve
from shared.service import Role, UnknownName, choose_roles, load_services, open_bus, settings_classes
from shared.settings import Settings, SettingsInvalid, load, refuse_unknown_variables
from shared.telemetry import log_unheeded, set_up_logging

if TYPE_CHECKING:
    from shared.embedded import EmbeddedBus

RETENTION_SECONDS = 3600.0

log = structlog.get_logger(__name__)


def run(
    settings: Settings,
    *,
    names: Sequence[str],
    roles: Sequence[str] | None = None,
    announce: Callable[[Settings], None] | None = None,
) -> int:
    """Run these services until SIGTERM or Ctrl-C; the exit code. `announce` is called once everything is ready.

    Raises, before anything runs: `SettingsInvalid`, `UnknownName`, `DataInUse`, `OSError` (the port).
    """
    refuse_unknown_variables(os.environ, settings_classes())
    set_up_logging(level=settings.log_level, style=settings.log_format)
    with _listening(settings) as (listener, bound), _alone(bound):
        return asyncio.run(_run(bound, listener, names, roles, announce))


def run_service(name: str, arguments: Sequence[str] | None = None) -> None:
    """`python -m services.X [--roles api,consume] [--host ...] [--port ...]`: run until SIGTERM, then exit."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}", description=f"Run the service {name}.")
    parser.add_argument("--roles", help="comma-separated; all without it")
    parser.add_argument("--host", dest="http_host", help="address to listen on")
    parser.add_argument("--port", dest="http_port", help="port to listen on")
    given = vars(parser.parse_args(arguments))
    roles = given.pop("roles")
    try:
        settings = load(Settings, {key: value for key, value in given.items() if value is not None})
        code = run(settings, names=[name], roles=roles.split(",") if roles else None)
    except (SettingsInvalid, UnknownName) as error:
        parser.error(str(error))
    sys.exit(code)


@contextmanager
def _listening(settings: Settings) -> Iterator[tuple[socket.socket, Settings]]:
    """A listening socket, and the settings with its port (port 0 takes a free one)."""
    with socket.create_server((settings.http_host, settings.http_port), backlog=2048) as listener:
        port = listener.getsockname()[1]
        update: dict[str, object] = {"http_port": port}
        if "public_url" not in settings.model_fields_set:
            update["public_url"] = f"http://{settings.http_host}:{port}"
        yield listener, settings.model_copy(update=update)


def _alone(settings: Settings) -> AbstractContextManager[None]:
    """On the embedded profile, the data directory's only server."""
    if settings.profile == "embedded":
        return sole_server(settings.data_directory, settings.public_url)
    return nullcontext()


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
