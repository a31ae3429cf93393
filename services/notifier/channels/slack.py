"""Slack, through an incoming webhook: one channel of the workspace, which the webhook's URL names."""

from __future__ import annotations

from functools import partial

from services.notifier.channels import HTTP_SECONDS, Item, Send, SendFailed, SendRefused, expect_success
from shared.http import Outbound, OutboundFailed, OutboundRefused


def slack(outbound: Outbound, webhook_url: str) -> Send:
    """The channel, ready to send. The URL is a secret: no error names its path."""
    return partial(_send, outbound, webhook_url)


async def _send(outbound: Outbound, webhook_url: str, item: Item) -> None:
    try:
        answer = await outbound.post(
            webhook_url,
            content=item.message["payload"].encode(),
            headers={"Content-Type": "application/json", "traceparent": item.traceparent},
            deadline_seconds=HTTP_SECONDS,
        )
    except OutboundRefused as error:
        raise SendRefused(str(error)) from error
    except OutboundFailed as error:
        raise SendFailed(str(error)) from error
    expect_success(answer)
