"""Where the story of `baton demo` is played: one server, asked and told over HTTP only, and its senders' secrets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
Json = dict[str, Any]

POLL_SECONDS = 0.1
STEP_SECONDS = 20.0
WHOLE_SECONDS = 50.0
GLANCE = 400


class StoryFailed(Exception):
    """What was observed is not what the story must give; the message says which, and what was seen."""


@dataclass
class Stage:
    """One server, its public URL, the key of a person who may do everything, and the secrets of two senders."""

    url: str
    public_url: str
    api_key: str
    segment_write_key: str
    hubspot_source: str
    hubspot_secret: str
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        bearer = {"Authorization": f"Bearer {self.api_key}"}
        self._http = httpx.Client(base_url=self.url, headers=bearer, timeout=15.0, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str) -> Json:
        return _read(self._http.get(path, params=query))

    def post(self, path: str, **request: Any) -> Json:
        return _read(self._http.post(path, **request))

    def events(self) -> int:
        """How many events the services have published, as their metrics say."""
        lines = self._http.get("/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith("baton_events_published_total{")]
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in counts))

    def activity(self, item: Json) -> str:
        """Send one item by plain REST; the lead's id."""
        (verdict,) = self.post("/v1/activities", json=item)["results"]
        expect(verdict["status"] == "accepted", f"{item['id']} is accepted", verdict)
        return str(verdict["lead_id"])

    def segment(self, call: str, body: Json) -> None:
        """A call of Segment's HTTP tracking API."""
        answer = self.post(f"/v1/{call}", json=body, auth=(self.segment_write_key, ""))
        expect(answer.get("success") is True, f"Segment's {call} succeeds", answer)

    def hubspot(self, events: list[Json]) -> None:
        """A webhook as HubSpot signs it (v3): method, public URL, raw body and time stamp, under the app's secret."""
        path = f"/webhooks/{self.hubspot_source}"
        body, sent = json.dumps(events).encode(), str(int(time.time() * 1000))
        signed = b"POST" + (self.public_url + path).encode() + body + sent.encode()
        digest = hmac.new(self.hubspot_secret.encode(), signed, hashlib.sha256).digest()
        signature = {"X-HubSpot-Signature-v3": base64.b64encode(digest).decode(), "X-HubSpot-Request-Timestamp": sent}
        self.post(path, content=body, headers={"Content-Type": "application/json", **signature})

    def act(self, handoff: Json, verb: str, body: Json) -> Json:
        """A person's word on a handoff as he saw it; when something else came first, he looks again."""
        while True:
            headers = {"If-Match": f'"{handoff["version"]}"'}
            answer = self._http.post(f"/v1/handoffs/{handoff['id']}/{verb}", json=body, headers=headers)
            if answer.status_code != httpx.codes.PRECONDITION_FAILED:
                return _read(answer)
            handoff = self.get(f"/v1/handoffs/{handoff['id']}")

    def until(self, what: str, ask: Callable[[], T], is_so: Callable[[T], bool]) -> T:
        """Ask until it is so. Raises `StoryFailed` when it takes too long."""
        deadline = min(time.monotonic() + STEP_SECONDS, self.started + WHOLE_SECONDS)
        while not is_so(seen := ask()):
            if time.monotonic() > deadline:
                raise StoryFailed(f"expected that {what}, within {STEP_SECONDS:.0f} s; seen at last: {_glance(seen)}")
            time.sleep(POLL_SECONDS)
        return seen


def expect(is_so: bool, what: str, seen: object) -> None:
    """Raise `StoryFailed` unless it is so."""
    if not is_so:
        raise StoryFailed(f"expected that {what}; seen: {seen}")


def _glance(seen: object) -> str:
    """What a person can take in: the whole of it is a GET away."""
    text = json.dumps(seen)
    return text if len(text) <= GLANCE else f"{text[:GLANCE]} ..."


def _read(answer: httpx.Response) -> Json:
    if answer.status_code >= httpx.codes.BAD_REQUEST:
        raise StoryFailed(
            f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:500]}"
        )
    found: Json = answer.json()
    return found
