"""Scoring, composed: what it reads, what it shows, what it does in the background."""

from __future__ import annotations

from functools import partial

from services.scoring.api import routes
from services.scoring.door import Door
from services.scoring.handlers import HANDLERS
from services.scoring.intake import BODY_LIMITS, Senders, intake_routes
from services.scoring.quarantine import quarantine_routes
from services.scoring.refold import refold
from services.scoring.settings import ScoringSettings
from shared.bus import Bus
from shared.consume import Consumer
from shared.db import Database
from shared.redrive_api import redrive_routes
from shared.relay import Relay, relay_settings
from shared.security import Keyring
from shared.service import Service
from shared.settings import Settings
from shared.start import run_service

NAME = "scoring"


def build(bus: Bus, settings: Settings) -> Service:
    """The service; nothing is connected yet."""
    given = settings.extended(ScoringSettings)
    database = Database(given.database_url_for(NAME), service=NAME)
    keyring = Keyring(given.api_keys)
    door = Door(database)
    senders = Senders(given.public_url, given.segment_write_keys, given.hubspot_secrets)
    return Service(
        name=NAME,
        database=database,
        roles={
            "api": door.run,
            "consume": Consumer(database, bus, HANDLERS).run,
            "relay": Relay(database, bus, relay_settings(given.outbox_prune_after_hours)).run,
            "refold": partial(refold, database),
        },
        routers=[
            intake_routes(door, keyring, senders),
            routes(database, keyring),
            quarantine_routes(database, keyring),
            redrive_routes(database, bus, keyring),
        ],
        body_limits=BODY_LIMITS,
    )


def main() -> None:
    run_service(NAME)


if __name__ == "__main__":
    main()
