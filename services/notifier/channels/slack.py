"""Slack, through an incoming webhook: one channel of the workspace, which the webhook's URL names."""

from __future__ import annotations

from functools import partial

from services.notifier.channels import Item, Send, posted
from shared.http import Outbound


def slack(outbound: Outbound, webhook_url: str) -> Send:
    """The channel, ready to send. The URL is a secret: no error names its path."""
    return partial(_send, outbound, webhook_url)


async def _send(outbound: Outbound, webhook_url: str, item: Item) -> None:
    await posted(outbound, webhook_url, item, item.message["payload"], {})
