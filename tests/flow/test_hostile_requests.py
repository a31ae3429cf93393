"""Whatever a caller sends, it is answered: what no database can keep is his mistake (4xx), never ours (5xx)."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.handoff.case import Handoff
from shared.embedded import EmbeddedBus
from shared.health import Health
from shared.process import Process, build_app
from shared.security import new_key
from shared.service import load_services
from shared.settings import Settings, load
from tests.handoff.support import ACME, ALWAYS_OPEN, handed_over, publish
from tests.support import SERVICES, Databases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY, ENTRY = new_key(["admin"])
WRITE_KEY = "a-write-key-of-a-site"
ANSWER_SECONDS = 20.0

NUL, SURROGATE = "%00", "%ED%A0%80"
LISTS = ("handoffs", "agreements", "leads", "deliveries", "quarantine", "identity-conflicts")
LOOKUPS = (
    "handoffs?owner={}",
    "handoffs?lead={}",
    "leads?bucket={}",
    "deliveries?lead={}",
    "leads/{}",
    "leads/{}/explanation",
    "handoffs/{}",
    "agreements/{}",
)
VERBS = ("accept", "reject", "recycle", "touch")


@dataclass
class Attacked:
    """The composed application with one handoff in it, and a caller who may do everything."""

    app: FastAPI
    client: httpx.AsyncClient
    handoff: Handoff

    async def say(self, verb: str, handoff_id: str | None = None, **more: object) -> httpx.Response:
        word = {"by": self.handoff.owner, **more}
        headers = {"If-Match": f'"{self.handoff.version}"'}
        return await self.client.post(
            f"/v1/handoffs/{handoff_id or self.handoff.handoff_id}/{verb}", content=json.dumps(word), headers=headers
        )


@pytest.fixture
async def attacked(databases: Databases, tmp_path: Path) -> AsyncIterator[Attacked]:
    opened = {name: databases.open(name) for name in SERVICES}
    await publish(opened["handoff"], ALWAYS_OPEN)
    handoff = await handed_over(opened["handoff"])
    (tmp_path / "secrets.json").write_text(json.dumps({"segment_write_keys": {"site": WRITE_KEY}}))
    cluster = {"profile": "cluster", "database_url": databases.place, "kafka_bootstrap": "unused:1"}
    given = {"data_directory": tmp_path, "api_keys": [ENTRY], **(cluster if databases.name == "postgresql" else {})}
    common = load(Settings, given)
    bus = EmbeddedBus(tmp_path / "log.sqlite")
    services = load_services(SERVICES, bus, common)
    stop = asyncio.Event()
    doors = [asyncio.ensure_future(service.roles["api"](stop)) for service in services if "api" in service.roles]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = Process(services, frozenset({"api"}), bus, common, listener)
        app = build_app(process, Health(databases=[], heads={}, bus=bus, phase="running"))
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://baton", headers=headers
    ) as client:
        yield Attacked(app, client, handoff)
    stop.set()
    await asyncio.wait(doors)
    for service in services:
        await service.database.close()
    await bus.close()


def cursor(values: object) -> str:
    """A cursor that no list has given."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def refused(answer: httpx.Response, status: int, type: str) -> None:
    assert answer.status_code == status, (answer.url, answer.text)
    assert answer.json()["type"] == type
    assert answer.json()["detail"]


async def test_an_address_that_is_no_text_is_refused_before_any_question(attacked: Attacked) -> None:
    for lookup in LOOKUPS:
        for hostile in (NUL, SURROGATE, "%FF", "a%00b"):
            answer = await attacked.client.get(f"/v1/{lookup.format(hostile)}")
            refused(answer, 400, "/problems/malformed-address")
    for verb in VERBS:
        refused(await attacked.say(verb, NUL), 400, "/problems/malformed-address")


async def test_a_word_with_nul_or_half_a_character_is_refused_and_changes_nothing(attacked: Attacked) -> None:
    for text in ("a\x00b", "a\ud800b"):
        for verb in ("accept", "reject", "recycle"):
            refused(await attacked.say(verb, note=text), 422, "/problems/invalid-request")
        refused(await attacked.say("touch", kind=text), 422, "/problems/invalid-request")
        refused(await attacked.say("accept", by=text), 422, "/problems/invalid-request")
    now = (await attacked.client.get(f"/v1/handoffs/{attacked.handoff.handoff_id}")).json()
    assert (now["state"], now["version"]) == ("assigned", attacked.handoff.version)


async def test_a_touch_outside_of_the_years_that_are_kept_is_refused(attacked: Attacked) -> None:
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z", -(10**15)):
        answer = await attacked.say("touch", kind="call", occurred_at=at)
        refused(answer, 422, "/problems/invalid-request")
        assert "occurred_at" in answer.json()["detail"]


@pytest.mark.parametrize("place", LISTS)
async def test_a_cursor_that_no_list_gave_is_refused(attacked: Attacked, place: str) -> None:
    early, late, plain = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00+00:00"
    forged: list[list[object]] = [[10**30], [-(10**30)], ["\x00"], ["\ud800"], [2**63], [float("nan")]]
    forged += [[{"at": at}, "x"] for at in (early, late, "2026-01-01T00:00:00")]
    forged += [[{"at": plain}, text] for text in ("\x00", "\ud800")]
    for values in forged:
        refused(
            await attacked.client.get(f"/v1/{place}", params={"cursor": cursor(values)}),
            400,
            "/problems/malformed-cursor",
        )


async def test_an_agreement_whose_names_no_database_can_keep_is_refused(attacked: Attacked) -> None:
    for hostile in (r"\0", r"\ud800", r"\x00"):
        content = ACME.replace("agreement: ", f'agreement: "{hostile}" #', 1)
        answer = await attacked.client.post("/v1/agreements", content=content.encode())
        assert 400 <= answer.status_code < 500, (hostile, answer.text)


# Whatever else

HOSTILE = (
    "\x00",
    "a\x00b",
    "\ud800",
    "\udfff\ud800",
    "\u202eabc\u202c",
    "\ufeff",
    "\U0010ffff",
    "x" * 10_000,
    "é" * 3_000,
    "9" * 5_000,
    "-1",
    str(2**31),
    str(2**63),
    str(10**30),
    "1e400",
    "NaN",
    "true",
    "null",
    "..",
    "%",
    "' OR 1=1 --",
    "",
    " ",
    "\r\n",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-02-30T25:61:00Z",
    "2026-01-01T00:00:00",
)
PLAUSIBLE = (
    "ana",
    "ana@acme.example",
    "lead_1",
    "call",
    "no_budget",
    "other",
    "assigned",
    "pending",
    "marketing",
    "50",
)
hostile_text = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=40)
leaves = (
    hostile_text
    | st.sampled_from(PLAUSIBLE)
    | st.sampled_from([None, True, 0, -1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 1e308, float("nan"), -1e15])
)
hostile_json = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_text, inner, max_size=3), max_leaves=6
)
bad_numbers = st.sampled_from([2**63, -(2**63) - 1, 10**30, float("nan")])
forged_places = st.tuples(hostile_text | bad_numbers) | st.tuples(st.fixed_dictionaries({"at": leaves}), hostile_text)
forged_cursors = (forged_places | st.lists(leaves, max_size=3)).map(cursor)
ITEM_WORDS = (
    "id kind occurred_at lead_id properties attributes by outcome opportunity_id stage amount currency owner reason "
    "event userId anonymousId messageId timestamp traits context"
)
kinds = st.sampled_from(["activity", "touch", "opportunity", "track", "identify"]) | hostile_text
identities = st.fixed_dictionaries({}, optional=dict.fromkeys(("email", "anonymous_id", "user_id", "crm"), leaves))
item = st.fixed_dictionaries(
    {"type": kinds, "writeKey": st.just(WRITE_KEY)},
    optional={
        **dict.fromkeys(ITEM_WORDS.split(), hostile_json),
        "identities": identities,
        "batch": st.lists(hostile_json, max_size=2),
    },
)
yaml_escapes = st.sampled_from(
    [r"\0", r"\ud800", r"\x00", r"\u202e", "x" * 10_000, "9" * 5_000, "&a [*a]", "!!python/x"]
)
yaml_places = st.sampled_from(["agreement: ", "name: ", "head: ", "email: ", "timezone: ", "id: ", "points: "])
bad_yaml = st.builds(
    lambda place, text: ACME.replace(place, f'{place}"{text}" #', 1), yaml_places, yaml_escapes | hostile_text
)


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (method, path, description) of the application's own description."""
    return [
        (method.upper(), path, described)
        for path, methods in app.openapi()["paths"].items()
        for method, described in methods.items()
    ]


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@dataclass(frozen=True)
class Hostile:
    """What one attack is made of: the same text in every parameter, the same JSON under every word."""

    text: str
    cursor: str
    value: object
    item: object
    yaml: str

    def requests(self, app: FastAPI, handoff: Handoff) -> Iterator[tuple[str, str, dict[bytes, bytes], bytes]]:
        """Each (method, address, headers, body) with one hostile place; the rest is as it should be."""
        schemas = app.openapi()["components"]["schemas"]
        for method, path, described in operations(app):
            plain = re.sub("{.*?}", handoff.handoff_id, path)
            for parameter in described.get("parameters", []):
                name, place = parameter["name"], parameter["in"]
                text = self.cursor if name == "cursor" else self.text
                address = path.replace(f"{{{name}}}", encoded(text)) if place == "path" else plain
                query = f"?{name}={encoded(text)}" if place == "query" else ""
                headers = {name.encode(): text.encode("utf-8", "surrogatepass")} if place == "header" else {}
                yield method, re.sub("{.*?}", handoff.handoff_id, address) + query, headers, b'{"by": "ana"}'
            if method == "POST":
                yield from ((method, plain, {}, body) for body in self.bodies(described, schemas, handoff))

    def bodies(self, described: dict[str, Any], schemas: dict[str, Any], handoff: Handoff) -> Iterator[bytes]:
        """One hostile word each, where the description has words; else whatever a door or a draft may be sent."""
        content = described.get("requestBody", {}).get("content", {}).get("application/json")
        yield json.dumps(self.value).encode()
        if content is None:
            yield json.dumps(self.item).encode()
            yield self.yaml.encode("utf-8", "surrogatepass")
            return
        words = schemas[content["schema"]["$ref"].rpartition("/")[2]]["properties"]
        usual: dict[str, object] = {"by": handoff.owner, "kind": "call", "places": []}
        said = {word: usual[word] for word in usual if word in words}
        for word in words:
            yield json.dumps({**said, word: self.value}).encode()
            yield json.dumps({**said, word: self.text}).encode()


attacks = st.builds(
    Hostile,
    hostile_text,
    forged_cursors,
    hostile_json,
    item | st.lists(item, max_size=3),
    bad_yaml | st.just("[" * 50_000),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # the failing request is in the message as it stands
)
@given(attack=attacks)
async def test_no_request_is_answered_with_an_error_of_ours(attacked: Attacked, attack: Hostile) -> None:
    sent = 0
    for method, address, headers, body in attack.requests(attacked.app, attacked.handoff):
        content = body if method == "POST" else None
        seen = {b"If-Match": f'"{attacked.handoff.version}"'.encode(), **headers}
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await attacked.client.request(method, address, content=content, headers=seen)
        assert answer.status_code < 500, (method, address, headers, content, answer.text)
        sent += 1
    assert sent > 80
