"""How a message leaves: one module a channel, each with `send(item)` that returns when the receiver has taken it.

Whatever else happens is one of two answers. At least once: a receiver may see a message again, under the same id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from shared.http import Outbound, OutboundFailed, OutboundRefused

HTTP_SECONDS = 15.0  # what senders of webhooks commonly grant
EXCERPT_CHARACTERS = 200
GONE = 410


class SendFailed(Exception):
    """Not taken, or not known to be taken; to be tried again, not before `retry_after_seconds`."""

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class SendRefused(Exception):
    """Never going to be taken as it is: a person must look."""


@dataclass(frozen=True, slots=True)
class Item:
    """One delivery as a channel gets it. `message`: what `compose` made for this channel, the same at each attempt."""

    delivery_id: str
    handoff_id: str
    message: Mapping[str, str]
    created_at: datetime
    traceparent: str


Send = Callable[[Item], Awaitable[None]]


async def posted(outbound: Outbound, url: str, item: Item, body: str, headers: Mapping[str, str]) -> None:
    """Return once the receiver has taken this JSON. 410 says never again; the rest, redirects too, is tried again."""
    common = {"Content-Type": "application/json", "traceparent": item.traceparent}
    try:
        answer = await outbound.post(
            url, content=body.encode(), headers={**common, **headers}, deadline_seconds=HTTP_SECONDS
        )
    except OutboundRefused as error:
        raise SendRefused(str(error)) from error
    except OutboundFailed as error:
        raise SendFailed(str(error)) from error
    if answer.is_success:
        return
    reason = f"HTTP {answer.status}: {answer.excerpt[:EXCERPT_CHARACTERS]}"
    if answer.status == GONE:
        raise SendRefused(reason)
    raise SendFailed(reason, answer.retry_after_seconds or 0.0)
