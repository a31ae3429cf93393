"""What must fit together across the sections of an agreement. Each check names the sections it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from shared.agreement.conditions import Condition
from shared.agreement.flaws import Fault, Step, shown, unknown
from shared.agreement.model import Agreement

MAX_ATTRIBUTES = 100


class Check(NamedTuple):
    needs: frozenset[str]
    find: Callable[[Agreement], Iterator[Fault]]


def check(sections: Mapping[str, Any]) -> list[Fault]:
    """The faults between sections, as far as the sections at hand are valid."""
    agreement = Agreement.model_construct(None, **sections)  # only of what the check then reads
    return [fault for check in CHECKS if check.needs <= sections.keys() for fault in check.find(agreement)]


def _effective_times(agreement: Agreement) -> Iterator[Fault]:
    since, until = agreement.effective_from, agreement.effective_to
    if since is not None and until is not None and until <= since:
        yield Fault(("effective_to",), f"{until.isoformat()} is not after effective_from, {since.isoformat()}")


def _attributes(agreement: Agreement) -> Iterator[Fault]:
    """An MQL carries them all to sales, in one event."""
    if len(agreement.fields) > MAX_ATTRIBUTES:
        yield Fault((), f"its conditions name {len(agreement.fields)} attributes of leads; at most {MAX_ATTRIBUTES}")


def _people(agreement: Agreement) -> Iterator[Fault]:
    """Every name means one rep, and every manager is somebody."""
    owners: dict[str, str] = {}
    for place, rep in enumerate(agreement.reps):
        for name in rep.names:
            other = owners.setdefault(name, rep.id)
            if other != rep.id:
                yield Fault(("reps", place), f"{shown(name)} names {shown(other)} too: a performer would be ambiguous")
    known = {rep.email.casefold() for rep in agreement.reps} | {email.casefold() for email in agreement.party_emails}
    for place, rep in enumerate(agreement.reps):
        if rep.manager is not None and rep.manager.casefold() not in known:
            yield Fault(("reps", place, "manager"), unknown("person", rep.manager, sorted(known)))


def _members(agreement: Agreement) -> Iterator[Fault]:
    known = [rep.id for rep in agreement.reps]
    for place, pool in enumerate(agreement.pools):
        for seat, member in enumerate(pool.members):
            if member.rep not in known:
                yield Fault(("pools", place, "members", seat, "rep"), unknown("rep", member.rep, known))


def _route_pools(agreement: Agreement) -> Iterator[Fault]:
    known = [pool.id for pool in agreement.pools]
    for place, route in enumerate(agreement.routing):
        if route.pool not in known:
            yield Fault(("routing", place, "pool"), unknown("pool", route.pool, known))


def _last_resorts(agreement: Agreement) -> Iterator[Fault]:
    last = len(agreement.routing) - 1
    for place, route in enumerate(agreement.routing):
        if route.last_resort is None and place == last:
            yield Fault(("routing", place), "the last route needs `last_resort`: a lead is never left without an owner")
        elif route.last_resort is not None and agreement.owner(route.last_resort) is None:
            known = [*(rep.id for rep in agreement.reps), *agreement.party_emails]
            yield Fault(("routing", place, "last_resort"), unknown("person", route.last_resort, known))


def _one_scorecard_each(agreement: Agreement) -> Iterator[Fault]:
    seen: dict[tuple[str, str], str] = {}
    for place, card in enumerate(agreement.scorecards):
        other = seen.setdefault((card.product, card.motion), card.id)
        if other != card.id:
            message = f"{shown(other)} scores {card.product}, {card.motion} already; experiments are not supported yet"
            yield Fault(("scorecards", place, "product"), message)


def _route_conditions(agreement: Agreement) -> Iterator[Fault]:
    for place, route in enumerate(agreement.routing):
        if route.when is not None:
            yield from _words(agreement, route.when, ("routing", place, "when"))


def _policy_conditions(agreement: Agreement) -> Iterator[Fault]:
    for place, policy in enumerate(agreement.sla.policies):
        if policy.when is not None:
            yield from _words(agreement, policy.when, ("sla", "policies", place, "when"))


def _words(agreement: Agreement, condition: Condition, steps: tuple[Step, ...]) -> Iterator[Fault]:
    """Products, motions and buckets that no scorecard has, in a condition on handoffs."""
    cards = agreement.scorecards
    known: dict[str, list[str]] = {
        "product": sorted({card.product for card in cards}),
        "motion": sorted({card.motion for card in cards}),
        "bucket": sorted({bucket.id for card in cards for bucket in card.buckets}),
    }
    if condition.activities:
        yield Fault((*steps, "activity"), "a handoff is chosen by facts, not by an activity")
    for test in condition.tests():
        words = test.operand if isinstance(test.operand, tuple) else (test.operand,)
        if test.field in known and test.operator in ("eq", "ne", "in", "not_in"):
            for word in words:
                if word not in known[test.field]:
                    yield Fault((*steps, test.field), unknown(test.field, str(word), known[test.field]))


def _examples(agreement: Agreement) -> Iterator[Fault]:
    for place, card in enumerate(agreement.scorecards):
        known = [bucket.id for bucket in card.buckets]
        for number, example in enumerate(card.examples):
            bucket = example.expect.bucket
            if bucket is not None and bucket not in known:
                steps = ("scorecards", place, "examples", number, "expect", "bucket")
                yield Fault(steps, unknown("bucket", bucket, known))


CHECKS = (
    Check(frozenset({"effective_from", "effective_to"}), _effective_times),
    Check(frozenset({"reps", "parties"}), _people),
    Check(frozenset({"reps", "pools"}), _members),
    Check(frozenset({"routing", "pools"}), _route_pools),
    Check(frozenset({"routing", "reps", "parties"}), _last_resorts),
    Check(frozenset({"scorecards"}), _one_scorecard_each),
    Check(frozenset({"scorecards"}), _examples),
    Check(frozenset({"definitions", "routing", "scorecards", "sla"}), _attributes),
    Check(frozenset({"routing", "scorecards"}), _route_conditions),
    Check(frozenset({"sla", "scorecards"}), _policy_conditions),
)
