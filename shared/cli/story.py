"""The story of `baton demo`: four leads, played through the public HTTP interface only, and what must come of them.

Priya comes by Segment's API, is called in time, and later has no budget. Tomas comes by HubSpot and a raised hand, and
is no fit. Wen comes by plain REST and nobody calls her: her clock breaches, the manager hears of it, another rep gets
her. Noah only looked for a job. The agreement that decides all of it is signed and published first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from shared.cli.stage import Json, Stage, expect


@dataclass
class Story:
    """Plays once, under the agreements given. `tell(who, text)` hears each step as it is taken."""

    stage: Stage
    agreements: Sequence[str]
    tell: Callable[[str, str], None]
    leads: dict[str, str] = field(default_factory=dict)

    def play(self) -> None:
        """The whole story. Raises `StoryFailed` as soon as something is not as it must be."""
        for content in self.agreements:
            self.sign_and_publish(content)
        self.priya_visits_by_segment()
        self.tomas_comes_by_hubspot()
        self.wen_asks_for_a_demo_by_rest()
        self.noah_looks_for_a_job()
        self.priya_is_called_in_time_and_recycled()
        self.tomas_is_rejected()
        self.wen_is_left_alone()
        self.noah_stays_cold()
        self.automation_left_them_alone_and_took_two_back()

    # The agreement

    def sign_and_publish(self, content: str) -> None:
        draft = self.stage.post(
            "/v1/agreements", content=content.encode(), headers={"Content-Type": "application/yaml"}
        )
        for party, head in (("marketing", "mia@acme.example"), ("sales", "sam@acme.example")):
            signature = {"party": party, "signed_by": head, "sha256": draft["sha256"]}
            self.stage.post(f"/v1/agreements/{draft['id']}/signatures", json=signature)
            self.tell("agreement", f"{party}'s head {head} signs {draft['sha256'][:12]}")
        published = self.stage.post(f"/v1/agreements/{draft['id']}/publication")
        self.tell("agreement", f"version {published['version']} of {draft['agreement']} is published")

    # How they come in

    def priya_visits_by_segment(self) -> None:
        def page(number: int, path: str) -> Json:
            properties = {"path": path, "url": f"https://acme.example{path}"}
            return {"type": "page", "messageId": f"demo-page-{number}", "anonymousId": "demo-visitor-1",
                    "properties": properties}  # fmt: skip

        company = {"company_size": 500, "industry": "manufacturing", "country": "US"}
        traits = {"email": "priya@northwind.example", "name": "Priya Raman", "title": "Plant Manager", **company}
        person = {"messageId": "demo-identify", "anonymousId": "demo-visitor-1", "userId": "demo-user-1"}
        webinar = {**person, "type": "track", "messageId": "demo-track-1", "event": "Webinar Attended"}
        self.stage.segment("page", page(0, "/robots/arm"))
        self.stage.segment("batch", {"batch": [page(number, "/pricing") for number in (1, 2, 3)]})
        self.tell("Priya", "views the robots and the prices, nobody knows who she is (Segment: page, batch)")
        self.stage.segment("identify", {**person, "traits": traits})
        self.stage.segment(
            "batch", {"batch": [webinar, {**webinar, "messageId": "demo-track-2", "event": "Trial Started"}]}
        )
        self.tell("Priya", "gives her name, attends a webinar, starts a trial (Segment: identify, batch)")

    def tomas_comes_by_hubspot(self) -> None:
        now = int(time.time() * 1000)

        def event(number: int, **more: object) -> Json:
            return {"eventId": number, "subscriptionId": 7, "portalId": 42, "appId": 9, "occurredAt": now,
                    "attemptNumber": 0, "objectId": 4711, "changeSource": "CRM_UI", **more}  # fmt: skip

        facts = {"email": "tomas@southwind.example", "firstname": "Tomas", "numberofemployees": "350", "country": "US"}
        changes = [
            event(2 + number, subscriptionType="contact.propertyChange", propertyName=name, propertyValue=value)
            for number, (name, value) in enumerate(facts.items())
        ]
        self.stage.hubspot([event(1, subscriptionType="contact.creation", changeFlag="NEW"), *changes])
        self.tell("Tomas", "is entered into HubSpot, with what is known of his company (signed webhook)")
        raised = {"kind": "demo_requested", "identities": {"crm": {"hubspot": "4711"}}, "id": "demo-tomas-1"}
        self.leads["Tomas"] = self.stage.activity(raised)
        self.tell("Tomas", "asks for a demo: a raised hand waits for no points (REST)")

    def wen_asks_for_a_demo_by_rest(self) -> None:
        attributes = {"company_size": 900, "country": "CA", "industry": "logistics", "title": "Director of Operations"}
        who = {"identities": {"email": "wen@westwind.example"}, "attributes": attributes, "properties": {}}
        self.leads["Wen"] = self.stage.activity({**who, "kind": "demo_requested", "id": "demo-wen-1"})
        self.tell("Wen", "asks for a demo on the form (REST)")

    def noah_looks_for_a_job(self) -> None:
        who = {"identities": {"email": "noah@eastwind.example"}, "properties": {"path": "/careers/welder"}}
        self.leads["Noah"] = self.stage.activity({**who, "kind": "page_viewed", "id": "demo-noah-1"})
        self.tell("Noah", "looks at the jobs page (REST)")

    # What sales does, and does not

    def priya_is_called_in_time_and_recycled(self) -> None:
        about = {"kind": "page_viewed", "id": "demo-priya-rest", "properties": {"path": "/about"}}
        known = self.stage.activity({**about, "identities": {"user_id": "demo-user-1"}})
        self.leads["Priya"] = known
        handoff = self.assigned("Priya")
        call = {"type": "touch", "kind": "call_logged", "by": f"{handoff['owner']}@acme.example", "lead_id": known,
                "id": "demo-call-1"}  # fmt: skip
        self.stage.activity(call)
        self.tell("Priya", f"is called by {handoff['owner']}, as the CRM reports (REST)")
        after = self.stage.until(
            "the call meets the clock and implies acceptance", lambda: self.handoff("Priya"), is_touched
        )
        recycled = self.stage.act(after, "recycle", {"by": after["owner"], "reason": "no_budget", "note": "next year"})
        expect(recycled["state"] == "recycled", "Priya is recycled", recycled["state"])
        self.tell("Priya", "has no budget this year: recycled")

    def tomas_is_rejected(self) -> None:
        handoff = self.assigned("Tomas")
        rejected = self.stage.act(handoff, "reject", {"by": handoff["owner"], "reason": "not_a_fit"})
        expect(rejected["state"] == "rejected", "Tomas is rejected", rejected["state"])
        self.tell("Tomas", f"is rejected by {handoff['owner']}: not a fit")

    def wen_is_left_alone(self) -> None:
        first = self.assigned("Wen")
        self.tell("Wen", f"is {first['owner']}'s, who does nothing; the clock has ten seconds")
        after = self.stage.until(
            "the breach gives Wen another owner", lambda: self.handoff("Wen"), is_reassigned(first)
        )
        (clock,) = [each for each in after["clocks"] if each["milestone"] == "first_touch"]
        expect(clock["breached_at"] is not None and clock["met_at"] is None, "Wen's own clock goes on", clock)
        expect(clock["started_at"] == after["qualified_at"], "Wen's clock was never reset", clock)
        manager = next(rep["manager"] for rep in self.stage.get("/v1/reps")["items"] if rep["id"] == first["owner"])
        self.stage.until(f"the manager {manager} is told", lambda: self.deliveries("Wen"), is_told_of_breach(manager))
        self.tell("Wen", f"was not touched in time: {manager} is told, {after['owner']} gets the lead")

    def noah_stays_cold(self) -> None:
        lead = self.stage.until("Noah is scored", lambda: self.lead("Noah"), lambda lead: bool(lead["scores"]))
        expect(not lead["mqls"] and lead["scores"][0]["bucket"] == "cold", "Noah does not qualify", lead)

    def automation_left_them_alone_and_took_two_back(self) -> None:
        for name in ("Priya", "Tomas", "Wen"):
            self.stage.until(
                f"marketing leaves {name} alone", partial(self.deliveries, name), told("nurture.suspended")
            )
        for name in ("Priya", "Tomas"):
            self.stage.until(f"{name} is back in nurture", partial(self.deliveries, name), told("nurture.requested"))
        for name in ("Priya", "Tomas"):
            self.stage.until(f"{name}'s cycle is closed", partial(self.lead, name), is_cycle_closed)

    # What is asked of the server

    def lead(self, name: str) -> Json:
        return self.stage.get(f"/v1/leads/{self.leads[name]}")

    def explanation(self, name: str) -> Json:
        return self.stage.get(f"/v1/leads/{self.leads[name]}/explanation")

    def handoff(self, name: str) -> Json:
        items = self.stage.get("/v1/handoffs", lead=self.leads[name])["items"]
        return self.stage.get(f"/v1/handoffs/{items[0]['id']}") if items else {}

    def deliveries(self, name: str) -> list[Json]:
        found: list[Json] = self.stage.get("/v1/deliveries", lead=self.leads[name], limit="200")["items"]
        return found

    def assigned(self, name: str) -> Json:
        return self.stage.until(
            f"{name} is assigned", lambda: self.handoff(name), lambda found: bool(found.get("owner"))
        )

    # What came of it

    def facts(self) -> list[Json]:
        """Where each lead is now, as the API says."""
        return [self._facts_of(name) for name in sorted(self.leads)]

    def _facts_of(self, name: str) -> Json:
        lead, handoff = self.lead(name), self.handoff(name)
        breached = [clock["milestone"] for clock in handoff.get("clocks", []) if clock["breached_at"]]
        return {
            "id": lead["id"],
            "name": name,
            "score": lead["scores"][0]["score"],
            "mql_id": handoff.get("mql_id"),
            "handoff_id": handoff.get("id"),
            "state": handoff.get("state"),
            "owner": handoff.get("owner"),
            "reason": handoff.get("reason"),
            "nurture": handoff.get("nurture"),
            "breaches": breached,
        }


def check(facts: list[Json]) -> None:
    """Raise `StoryFailed` unless the leads are where the story must have brought them."""
    by_name = {fact["name"]: fact for fact in facts}
    compared = ("score", "state", "reason", "breaches")
    got = {name: tuple(fact[key] for key in compared) for name, fact in by_name.items()}
    must = {
        "Priya": (180.0, "recycled", "no_budget", []),
        "Tomas": (80.0, "rejected", "not_a_fit", []),
        "Wen": (130.0, "assigned", None, ["first_touch"]),
        "Noah": (0.0, None, None, []),
    }
    for name, expected in must.items():
        expect(got.get(name) == expected, f"{name} ends with {compared} {expected}", got.get(name))
    unowned = [name for name, fact in by_name.items() if bool(fact["mql_id"]) != bool(fact["owner"])]
    expect(not unowned, "every MQL has an owner, and nobody else has one", unowned)
    tracks = {name: (fact["nurture"] or {}).get("track") for name, fact in by_name.items()}
    expect(tracks == {"Priya": "budget-track", "Tomas": "default", "Wen": None, "Noah": None}, "their tracks", tracks)
    wake_at = datetime.fromisoformat(by_name["Priya"]["nurture"]["wake_at"])
    expect(abs(wake_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(days=1), "Priya wakes in 90 days", wake_at)


def is_touched(handoff: Mapping[str, Any]) -> bool:
    met = {clock["milestone"] for clock in handoff["clocks"] if clock["met_at"]}
    return handoff["state"] == "accepted" and "first_touch" in met


def is_reassigned(first: Mapping[str, Any]) -> Callable[[Json], bool]:
    return lambda handoff: handoff["state"] == "assigned" and handoff["owner"] not in (None, first["owner"])


def is_told_of_breach(manager: str) -> Callable[[list[Json]], bool]:
    def is_told(deliveries: list[Json]) -> bool:
        breaches = [each for each in deliveries if each["event_type"] == "sla.breached"]
        return any((each["receiver"], each["state"]) == (manager, "delivered") for each in breaches)

    return is_told


def told(event_type: str) -> Callable[[list[Json]], bool]:
    def is_told(deliveries: list[Json]) -> bool:
        return any(
            (each["event_type"], each["channel"], each["state"]) == (event_type, "automation", "delivered")
            for each in deliveries
        )

    return is_told


def is_cycle_closed(lead: Mapping[str, Any]) -> bool:
    return all(mql["ended_at"] is not None for mql in lead["mqls"])
