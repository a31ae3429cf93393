"""A process that delivers until it is killed: `python -m tests.notifier.sending DATABASE_URL PLACE`."""

from __future__ import annotations

import asyncio
import sys

from services.notifier.channels.slack import slack
from services.notifier.compose import Channel
from services.notifier.deliver import DeliverSettings, deliver
from shared.db import Database
from shared.http import Outbound


async def main(url: str, place: str) -> None:
    database = Database(url, service="notifier")
    senders = {Channel.SLACK: slack(Outbound(frozenset({place})), f"http://{place}/")}
    settings = DeliverSettings(lease_seconds=1.0, poll_seconds=0.05)
    await deliver(asyncio.Event(), database=database, senders=senders, settings=settings)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
