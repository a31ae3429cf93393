"""Handoff, composed: what it reads, what it watches, what it answers."""

from __future__ import annotations

from functools import partial

from services.handoff.api import routes
from services.handoff.handlers import HANDLERS
from services.handoff.settings import HandoffSettings
from services.handoff.watch import watch
from shared.bus import Bus
from shared.consume import Consumer
from shared.db import Database
from shared.redrive_api import redrive_routes
from shared.relay import Relay, relay_settings
from shared.security import Keyring
from shared.service import Service
from shared.settings import Settings
from shared.start import run_service

NAME = "handoff"


def build(bus: Bus, settings: Settings) -> Service:
    """The service; nothing is connected yet."""
    given = settings.extended(HandoffSettings)
    database = Database(given.database_url_for(NAME), service=NAME)
    keyring = Keyring(given.api_keys)
    return Service(
        name=NAME,
        database=database,
        roles={
            "consume": Consumer(database, bus, HANDLERS).run,
            "relay": Relay(database, bus, relay_settings(given.outbox_prune_after_hours)).run,
            "clock": partial(watch, database, poll_seconds=given.clocks_poll_ms / 1000, batch=given.clocks_batch),
        },
        routers=[routes(database, keyring), redrive_routes(database, bus, keyring)],
    )


def main() -> None:
    """`python -m services.handoff`."""
    run_service(NAME)


if __name__ == "__main__":
    main()
