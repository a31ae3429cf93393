"""Who is who, record by record, without a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from services.scoring.identity import ANONYMOUS_ID, EMAIL, USER_ID, Identity, is_provisional
from services.scoring.resolve import Claim, Known, Resolution, resolve

ANA, BO = Identity(EMAIL, "ana@acme.example"), Identity(EMAIL, "bo@acme.example")
U1, U2 = Identity(USER_ID, "u1"), Identity(USER_ID, "u2")
CRM5, CRM6 = Identity("crm:hubspot", "5"), Identity("crm:hubspot", "6")
BROWSER, PHONE = Identity(ANONYMOUS_ID, "browser"), Identity(ANONYMOUS_ID, "phone")


def minting() -> Callable[[bool], str]:
    numbers = count(1)
    return lambda provisional: f"{'anon' if provisional else 'lead'}_{next(numbers):04}"


@dataclass
class World:
    """All that doors have written, as `recognise` keeps it: the database's part in this game."""

    mint: Callable[[bool], str] = field(default_factory=minting)
    pointers: dict[Identity, str] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)

    def known(self) -> Known:
        holdings: dict[str, frozenset[Identity]] = {}
        for identity, lead in self.pointers.items():
            person = self.people.get(lead, lead)
            if identity.is_exclusive:
                holdings[person] = holdings.get(person, frozenset()) | {identity}
        return Known(dict(self.pointers), dict(self.people), holdings)

    def meet(self, *claims: Claim) -> Resolution:
        resolution = resolve(claims, self.known(), self.mint)
        self.learn(resolution)
        return resolution

    def meet_as_a_door_does(self, *claims: Claim) -> Resolution:
        """New identities are stored first, as if nobody knew anything, and then it is seen what others knew."""
        first = resolve(claims, Known(), self.mint)
        stored = {identity for claim in claims for identity in claim.stored}
        candidates = {identity: first.pointers[identity] for identity in stored - set(self.pointers)}
        resolution = resolve(claims, self.known(), self.mint, candidates)
        self.learn(resolution)
        return resolution

    def learn(self, resolution: Resolution) -> None:
        self.pointers.update(resolution.pointers)
        self.people = {lead: resolution.people.get(person, person) for lead, person in self.people.items()}
        self.people.update(resolution.people)

    def person(self, identity: Identity) -> str:
        lead = self.pointers[identity]
        return self.people.get(lead, lead)


def test_an_anonymous_visitor_is_provisional_and_joins_the_person_it_turns_out_to_be() -> None:
    world = World()
    met, known = world.meet(Claim(weak=(BROWSER,))), world.meet(Claim(strong=(ANA,), weak=(BROWSER,)))
    (visitor,), (ana,) = met.leads, known.leads
    assert is_provisional(visitor)
    assert [(merge.absorbed, merge.survivor, merge.evidence) for merge in known.merges] == [(visitor, ana, "weak")]
    assert world.meet(Claim(weak=(BROWSER,))).leads == [ana]


def test_a_new_person_with_all_ids_at_once_is_one_lead_without_any_merge() -> None:
    resolution = World().meet(Claim(strong=(U1, CRM5, ANA), weak=(BROWSER,)))
    assert set(resolution.pointers.values()) == set(resolution.leads)
    assert not resolution.merges
    assert not resolution.people_at_stake


def test_a_shared_browser_points_to_the_last_one_identified_and_joins_nobody() -> None:
    world = World()
    world.meet(Claim(strong=(ANA,), weak=(BROWSER,)))
    second = world.meet(Claim(strong=(BO,), weak=(BROWSER,)))
    assert not second.merges
    assert second.pointers_at_stake == {BROWSER}
    assert world.meet(Claim(weak=(BROWSER,))).leads == second.leads
    assert world.person(ANA) != world.person(BO)


def test_two_strong_ids_of_different_leads_join_them_and_the_older_survives() -> None:
    world = World()
    (by_mail,), (by_crm,) = world.meet(Claim(strong=(ANA,))).leads, world.meet(Claim(strong=(CRM5,))).leads
    joined = world.meet(Claim(strong=(CRM5, ANA)))
    assert [(merge.absorbed, merge.survivor, merge.evidence) for merge in joined.merges] == [
        (by_crm, by_mail, "strong")
    ]
    assert joined.leads == [by_mail]
    assert not world.meet(Claim(strong=(CRM5, ANA))).merges


def test_leads_with_different_user_ids_are_not_joined_and_the_record_goes_to_the_user_ids_lead() -> None:
    world = World()
    (first,) = world.meet(Claim(strong=(U1, ANA))).leads
    (second,) = world.meet(Claim(strong=(U2,))).leads
    resolution = world.meet(Claim(strong=(U2, ANA)))
    assert resolution.leads == [second]
    assert not resolution.merges
    assert [(found.identity, found.lead_id, found.other) for found in resolution.conflicts] == [(ANA, second, first)]


def test_a_new_user_id_with_the_address_of_another_user_is_a_new_person() -> None:
    world = World()
    (first,) = world.meet(Claim(strong=(U1, ANA))).leads
    resolution = world.meet(Claim(strong=(U2, ANA)))
    assert resolution.leads != [first]
    assert len(resolution.conflicts) == 1
    assert world.person(ANA) == first


def test_an_address_shared_by_two_users_joins_them_not_even_one_after_the_other() -> None:
    """Before the scorer has applied the first merge, the second record must already see what it joined."""
    world = World()
    for identity in (U1, U2, ANA):
        world.meet(Claim(strong=(identity,)))
    first, second = world.meet(Claim(strong=(U1, ANA))), world.meet(Claim(strong=(U2, ANA)))
    assert len(first.merges) == 1
    assert not second.merges
    assert len(second.conflicts) == 1
    assert world.person(U1) != world.person(U2)


def test_different_crm_ids_of_one_namespace_are_two_people() -> None:
    world = World()
    world.meet(Claim(strong=(CRM5, ANA)))
    assert len(world.meet(Claim(strong=(CRM6, ANA))).conflicts) == 1


def test_an_alias_joins_two_users_in_so_many_words() -> None:
    world = World()
    world.meet(Claim(strong=(U1, ANA)))
    world.meet(Claim(strong=(U2, BO)))
    resolution = world.meet(Claim(strong=(U2, U1), explicit=True))
    assert [merge.evidence for merge in resolution.merges] == ["strong"]
    assert world.person(ANA) == world.person(BO)


def test_an_alias_of_an_anonymous_id_is_weak_evidence() -> None:
    world = World()
    (visitor,) = world.meet(Claim(weak=(BROWSER,))).leads
    former = Identity(USER_ID, BROWSER.value)
    resolution = world.meet(Claim(strong=(U1, former), if_known=(BROWSER,), explicit=True))
    assert [(merge.absorbed, merge.evidence) for merge in resolution.merges] == [(visitor, "weak")]


def test_a_visitor_joins_only_the_first_who_is_identified_in_the_same_group() -> None:
    world = World()
    world.meet(Claim(weak=(BROWSER,)))
    resolution = world.meet(Claim(strong=(ANA,), weak=(BROWSER,)), Claim(strong=(BO,), weak=(BROWSER,)))
    assert [merge.survivor for merge in resolution.merges] == [resolution.leads[0]]


strong_ids = st.sampled_from([ANA, BO, U1, U2, CRM5, CRM6])
claims = st.builds(
    lambda strong, weak, explicit: Claim(
        tuple(sorted(set(strong), key=lambda found: (found.kind != USER_ID, found.kind == EMAIL, found))),
        weak if strong or weak else (BROWSER,),
        explicit=explicit and len(set(strong)) > 1,
    ),
    st.lists(strong_ids, max_size=3),
    st.sampled_from([(), (BROWSER,), (PHONE,)]),
    st.booleans().filter(lambda explicit: explicit) | st.just(False) | st.just(False),
)
stories = st.lists(claims, min_size=1, max_size=12)


@given(stories)
def test_who_is_who_does_not_depend_on_how_requests_were_grouped(story: Sequence[Claim]) -> None:
    at_once, one_by_one = World(), World()
    together = at_once.meet(*story)
    apart = [one_by_one.meet(claim) for claim in story]
    assert together.leads == [resolution.leads[0] for resolution in apart]
    assert [(merge.absorbed, merge.survivor) for merge in together.merges] == [
        (merge.absorbed, merge.survivor) for resolution in apart for merge in resolution.merges
    ]
    assert len(together.conflicts) == sum(len(resolution.conflicts) for resolution in apart)
    assert at_once.pointers == one_by_one.pointers


@given(st.lists(stories, min_size=1, max_size=4))
def test_storing_new_identities_before_looking_changes_nobody(groups: Sequence[Sequence[Claim]]) -> None:
    plain, door = World(), World()
    for group in groups:
        looked, stored = plain.meet(*group), door.meet_as_a_door_does(*group)
        assert shape(looked.leads) == shape(stored.leads)
        assert [merge.evidence for merge in looked.merges] == [merge.evidence for merge in stored.merges]
        assert len(looked.conflicts) == len(stored.conflicts)
    everybody = sorted(plain.pointers)
    assert shape([plain.person(identity) for identity in everybody]) == shape(
        [door.person(identity) for identity in everybody]
    )


@given(stories)
def test_nobody_holds_two_user_ids_unless_told_so_outright(story: Sequence[Claim]) -> None:
    world = World()
    world.meet(*(Claim(claim.strong, claim.weak) for claim in story))
    for held in world.known().holdings.values():
        assert len({identity.kind for identity in held}) == len(held)


@given(stories)
def test_an_anonymous_id_never_joins_two_known_leads(story: Sequence[Claim]) -> None:
    resolution = World().meet(*story)
    weak = [merge for merge in resolution.merges if merge.evidence == "weak"]
    assert all(is_provisional(merge.absorbed) and not is_provisional(merge.survivor) for merge in weak)
    assert len({merge.absorbed for merge in weak}) == len(weak)


def shape(names: Sequence[str]) -> list[int]:
    """The same list for the same partition, whatever the parts are called."""
    order: dict[str, int] = {}
    return [order.setdefault(name, len(order)) for name in names]
