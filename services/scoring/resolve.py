"""Who is who: which lead each record belongs to, and what it teaches about identities. Pure.

Records are taken in order; each sees what the ones before it taught. The strongest identity of a record is its home:
a lead named outright, then the user id, then CRM ids, then e-mail. Rules, as in DESIGN.md, "Who owns a lead":

- Strong identities of two known leads in one record join them, unless they hold different user ids or different CRM
  ids of one namespace: then the record stays at home and the conflict is listed. Explicit evidence (an alias, a merge
  in the CRM) joins them all the same.
- An anonymous id joins a provisional lead to a known one, once. It never joins two known leads: it points to whoever
  was identified last from then on.

Known leads that were joined are one *person* from then on, although the scorer may apply the merge later: else two
records in a row could join three leads, of which the first and the last hold different user ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.scoring.identity import LEAD_ID, Identity, is_provisional, survivor_first

Mint = Callable[[bool], str]  # a new lead id; True: a provisional one


@dataclass(frozen=True, slots=True)
class Claim:
    """What one record says about who it is: identities of one person.

    `strong` is in order of precedence; `weak` never joins two known leads; `if_known` is weak too, and never makes a
    lead. `explicit`: the sender says in so many words that all of them are one person.
    """

    strong: tuple[Identity, ...] = ()
    weak: tuple[Identity, ...] = ()
    if_known: tuple[Identity, ...] = ()
    explicit: bool = False

    @property
    def stored(self) -> Iterable[Identity]:
        """What is to be found from now on."""
        return (identity for identity in (*self.strong, *self.weak) if identity.kind != LEAD_ID)

    @property
    def all(self) -> tuple[Identity, ...]:
        return (*self.strong, *self.weak, *self.if_known)


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows: the root lead of each identity, the person of each lead if it is not itself, and the
    user and CRM ids each person holds."""

    leads: Mapping[Identity, str] = field(default_factory=dict)
    people: Mapping[str, str] = field(default_factory=dict)
    holdings: Mapping[str, frozenset[Identity]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Merge:
    """Evidence, in the record of that place in the list, that two leads are one."""

    place: int
    absorbed: str
    survivor: str
    evidence: Literal["weak", "strong"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """The record of that place held `identity`, which leads to `other`; it went to `lead_id` all the same."""

    place: int
    identity: Identity
    lead_id: str
    other: str


@dataclass(slots=True)
class Resolution:
    """`leads`: one per record. `pointers`: where each identity met here points now. `people`: the person that a former
    one belongs to now. `people_at_stake`, `pointers_at_stake`: what the database had before and this would change."""

    leads: list[str] = field(default_factory=list)
    pointers: dict[Identity, str] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    people_at_stake: set[str] = field(default_factory=set)
    pointers_at_stake: set[Identity] = field(default_factory=set)


def resolve(
    claims: Sequence[Claim], known: Known, mint: Mint, candidates: Mapping[Identity, str] | None = None
) -> Resolution:
    """The resolution of these records, in order. `candidates`: the ids under which new identities were just stored."""
    book = _Book(known, mint, candidates or {})
    for place, claim in enumerate(claims):
        book.record(place, claim)
    return book.resolution


class _Book:
    """What is known while records are read one after the other."""

    def __init__(self, known: Known, mint: Mint, candidates: Mapping[Identity, str]) -> None:
        self.resolution = Resolution(pointers=dict(known.leads))
        self._known = known
        self._mint = mint
        self._candidates = candidates
        self._seen = set(known.leads.values())  # leads that somebody else may know of
        self._opened: set[str] = set()
        self._absorbed: set[str] = set()
        self._person = dict(known.people)
        self._known_people = {known.people.get(lead, lead) for lead in known.leads.values()}
        self._holdings: defaultdict[str, set[Identity]] = defaultdict(set)
        for person, held in known.holdings.items():
            self._holdings[person] |= held

    def record(self, place: int, claim: Claim) -> None:
        home: str | None = None
        for identity in claim.strong:
            home = self._lead(identity) if home is None else self._join(place, home, identity, claim)
        for identity in claim.weak:
            if home is None:
                home = self._lead(identity, provisional=True)
            else:
                self._attach(place, home, identity)
        if home is None:
            raise ValueError("a claim without an identity has no lead")
        for identity in claim.if_known:
            if identity in self.resolution.pointers:
                self._attach(place, home, identity)
        self._seen.add(home)
        self.resolution.leads.append(home)

    def _lead(self, identity: Identity, *, provisional: bool = False) -> str:
        """The lead this identity points to; a new one if it is met for the first time."""
        lead = self.resolution.pointers.get(identity)
        return lead if lead is not None else self._open(identity, provisional)

    def _open(self, identity: Identity, provisional: bool) -> str:
        lead = self._candidates.get(identity)
        if lead is None or lead in self._opened or is_provisional(lead) != provisional:
            lead = self._mint(provisional)
        self._opened.add(lead)
        self.resolution.pointers[identity] = lead
        if identity.is_exclusive:
            self._holdings[lead].add(identity)
        return lead

    def _join(self, place: int, home: str, identity: Identity, claim: Claim) -> str:
        """Home, after one more strong identity of the record was joined to it, or was not."""
        mine = self._person_of(home)
        held = {identity} if identity.is_exclusive else set()
        other = self.resolution.pointers.get(identity)
        theirs = None if other is None else self._person_of(other)
        if mine == theirs:
            return home
        if not claim.explicit and _differ(self._holdings[mine], held if theirs is None else self._holdings[theirs]):
            other = other or self._open(identity, provisional=False)
            self._seen.add(other)
            self.resolution.conflicts.append(Conflict(place, identity, home, other))
            return home
        if other is None or theirs is None:
            self.resolution.pointers[identity] = home
            self._hold(mine, held)
            return home
        if home not in self._seen:
            return self._move(home, other, claim)
        self._unite(mine, theirs)
        survivor, absorbed = survivor_first(home, other)
        self.resolution.merges.append(Merge(place, absorbed, survivor, "strong"))
        return survivor

    def _attach(self, place: int, home: str, identity: Identity) -> None:
        """An anonymous id in a record of somebody known is theirs from now on."""
        before = self.resolution.pointers.get(identity)
        if before is not None:
            if is_provisional(home) or self._person_of(before) == self._person_of(home):
                return
            self._absorb(place, before, home)
            if identity in self._known.leads:
                self.resolution.pointers_at_stake.add(identity)
        if identity.kind != LEAD_ID:
            self.resolution.pointers[identity] = home

    def _absorb(self, place: int, lead: str, home: str) -> None:
        if is_provisional(lead) and lead not in self._absorbed:
            self._absorbed.add(lead)
            self.resolution.merges.append(Merge(place, lead, home, "weak"))

    def _person_of(self, lead: str) -> str:
        return self._person.get(lead, lead)

    def _hold(self, person: str, held: set[Identity]) -> None:
        if held:
            self._holdings[person] |= held
            self.resolution.people_at_stake |= {person} & self._known_people

    def _move(self, unseen: str, lead: str, claim: Claim) -> str:
        """A lead opened for this very record gives way to the one that its later identities know."""
        for identity in claim.strong:
            if self.resolution.pointers.get(identity) == unseen:
                self.resolution.pointers[identity] = lead
        self._hold(self._person_of(lead), self._holdings.pop(unseen, set()))
        return lead

    def _unite(self, mine: str, theirs: str) -> None:
        self.resolution.people_at_stake |= {mine, theirs} & self._known_people
        self._holdings[mine] |= self._holdings.pop(theirs, set())
        self._person[theirs] = mine
        for lead, person in self._person.items():
            if person == theirs:
                self._person[lead] = mine
        for former in (*self.resolution.people, theirs):
            self.resolution.people[former] = self._person_of(former)


def _differ(mine: Iterable[Identity], theirs: Iterable[Identity]) -> bool:
    """Whether both hold a user id, or an id of the same CRM; never the same one, as that points to one lead."""
    return not {held.kind for held in mine}.isdisjoint(held.kind for held in theirs)
