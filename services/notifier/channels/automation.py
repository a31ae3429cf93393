"""Marketing's automation: a webhook signed as Standard Webhooks says (https://www.standardwebhooks.com).

`webhook-id` is the delivery's id, the same at each attempt: receivers drop repeats by it. The timestamp is the
attempt's, so each attempt is signed anew.
"""

from __future__ import annotations

import base64
import binascii
from functools import partial

from standardwebhooks import Webhook

from services.notifier.channels import Item, Send, posted
from shared.clock import Clock
from shared.http import Outbound

SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)


def require_secret(secret: str) -> str:
    """The secret, if the standard allows it. Raises `ValueError`, without quoting it."""
    try:
        length = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if not secret.startswith(SECRET_PREFIX) or length not in SECRET_BYTES:
        raise ValueError(f"expected {SECRET_PREFIX} and 24 to 64 random bytes in base64")
    return secret


def automation(outbound: Outbound, url: str, secret: str, clock: Clock) -> Send:
    """The channel, ready to send."""
    return partial(_send, outbound, url, Webhook(secret), clock)


async def _send(outbound: Outbound, url: str, webhook: Webhook, clock: Clock, item: Item) -> None:
    attempted_at = clock()
    body = item.message["body"]
    signed = {
        "webhook-id": item.delivery_id,
        "webhook-timestamp": str(int(attempted_at.timestamp())),
        "webhook-signature": webhook.sign(item.delivery_id, attempted_at, body),
    }
    await posted(outbound, url, item, body, signed)
