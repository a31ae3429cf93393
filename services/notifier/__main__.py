"""The notifier, composed: what it reads, what it sends through, what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import structlog

from services.notifier.api import routes
from services.notifier.channels import Send
from services.notifier.channels.automation import automation
from services.notifier.channels.email import email, mailbox
from services.notifier.channels.slack import slack
from services.notifier.compose import Channel, Desk
from services.notifier.deliver import DeliverSettings, deliver
from services.notifier.handlers import handlers
from services.notifier.settings import NotifierSettings
from shared.bus import Bus
from shared.clock import system_clock
from shared.consume import Consumer
from shared.db import Database
from shared.http import Outbound
from shared.redrive_api import redrive_routes
from shared.relay import Relay, relay_settings
from shared.security import Keyring
from shared.service import Service
from shared.settings import Settings
from shared.start import run_service

NAME = "notifier"

log = structlog.get_logger()


def build(bus: Bus, settings: Settings) -> Service:
    """The service; nothing is connected yet."""
    given = settings.extended(NotifierSettings)
    database = Database(given.database_url_for(NAME), service=NAME)
    keyring = Keyring(given.api_keys)
    desk = Desk(given.channels, given.console_url)
    if missing := sorted(set(Channel) - given.channels):
        log.warning("notifier.channels_not_configured", channels=[channel.value for channel in missing])
    sending = DeliverSettings(back_off_seconds=given.delivery_back_off_seconds)
    return Service(
        name=NAME,
        database=database,
        roles={
            "consume": Consumer(database, bus, handlers(desk)).run,
            "relay": Relay(
                database, bus, relay_settings(given.outbox_prune_after_hours)
            ).run,  # of its dead letters: it says nothing else
            "deliver": partial(deliver, database=database, senders=senders(given), settings=sending),
        },
        routers=[routes(database, keyring, given.channels), redrive_routes(database, bus, keyring)],
    )


def senders(settings: NotifierSettings) -> Mapping[Channel, Send]:
    """The channels that are configured, ready to send."""
    outbound = Outbound(settings.outbound_allow_private)
    made: dict[Channel, Send] = {}
    if settings.smtp_url is not None:
        made[Channel.EMAIL] = email(mailbox(settings.smtp_url.get_secret_value(), settings.mail_from))
    if settings.slack_webhook_url is not None:
        made[Channel.SLACK] = slack(outbound, settings.slack_webhook_url.get_secret_value())
    if settings.automation_webhook_url is not None and settings.automation_webhook_secret is not None:
        url, secret = settings.automation_webhook_url, settings.automation_webhook_secret
        made[Channel.AUTOMATION] = automation(outbound, url.get_secret_value(), secret.get_secret_value(), system_clock)
    return made


def main() -> None:
    run_service(NAME)


if __name__ == "__main__":
    main()
