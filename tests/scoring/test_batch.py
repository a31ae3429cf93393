"""Batches of activities, merges and versions, in memory: nothing about their order or their cuts changes a score."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import deepcopy
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from services.scoring.batch import Batch, Crossed, take_activity, take_merge
from services.scoring.lead import Lead, display, fold_anew, read, resume
from services.scoring.score import Facts, fold, learn
from services.scoring.score import read as read_score
from shared.envelope import Received
from shared.events import ActivityRecorded, Event, IdentityMerged
from tests.scoring.leads import ANNA, BERT, VISITOR, card, lives
from tests.scoring.scorer import merged, received

CARDS = {1: (card(),)}


class World:
    """What a database keeps between batches."""

    def __init__(self) -> None:
        self.leads: dict[str, Lead] = {}
        self.roots: dict[str, str] = {}
        self.seen: set[str] = set()
        self.crossed: list[tuple[str, str]] = []

    def take(self, events: Sequence[Event]) -> None:
        """One batch, over leads that were loaded for it."""
        for lead_id in {name for event in events for name in _names(event)}:
            self.roots.setdefault(lead_id, lead_id)
            self.leads.setdefault(self.roots[lead_id], Lead(lead_id, 0, None, {}, history=[]))
        batch = Batch({lead_id: _loaded(lead) for lead_id, lead in self.leads.items()}, dict(self.roots), CARDS)
        for event in events:
            if isinstance(event, IdentityMerged):
                take_merge(batch, cast("Received[IdentityMerged]", received(event, 0)))
            elif isinstance(event, ActivityRecorded) and event.activity_id not in self.seen:
                self.seen.add(event.activity_id)
                take_activity(batch, cast("Received[ActivityRecorded]", received(event, 0)))
        for lead in batch.leads.values():
            for standing in lead.standings:
                display(lead, standing)
        self.leads = batch.leads
        self.roots = {lead_id: batch.root(lead_id) for lead_id in self.roots}
        self.crossed += [
            (one.crossing.mql.mql_id, one.crossed_by) for one in batch.happened if isinstance(one, Crossed)
        ]


def _names(event: Event) -> tuple[str, ...]:
    if isinstance(event, IdentityMerged):
        return event.absorbed_id, event.survivor_id
    assert isinstance(event, ActivityRecorded)
    return (event.lead_id,)


def _loaded(lead: Lead) -> Lead:
    """A lead as it comes back from its tables."""
    loaded = Lead(lead.lead_id, lead.version, lead.last_received_at, dict(lead.facts))
    loaded.mqls, loaded.displayed, loaded.history = list(lead.mqls), dict(lead.displayed), list(lead.history or ())
    fold_anew(loaded, CARDS.get(lead.version, ()), lead.version)
    for place, standing in enumerate(lead.standings):
        said, as_of = lead.displayed[standing.card.id], lead.last_received_at
        assert as_of is not None
        loaded.standings[place] = resume(standing.card, deepcopy(standing.tally), standing.cycle, said, as_of)
    return loaded


@st.composite
def people(draw: st.DrawFn) -> list[Event]:
    """One person's life under three ids, and the evidence that joins them, some of it said twice."""
    parts: list[Sequence[Event]] = [
        draw(lives(lead_id=ANNA, prefix="a")),
        draw(lives(lead_id=BERT, prefix="b")),
        draw(lives(lead_id=VISITOR, prefix="v", version=None)),
        [merged(BERT, ANNA), merged(VISITOR, BERT, weak=True), merged(ANNA, BERT)],
    ]
    events = list(itertools.chain.from_iterable(parts))
    return draw(st.permutations([*events, *events[::5]]))


@given(people(), st.lists(st.integers(0, 80)))
def test_the_score_of_a_person_depends_on_no_order_no_cut_and_no_repetition(
    events: list[Event], cuts: list[int]
) -> None:
    world = World()
    places = sorted({0, *cuts, len(events)})
    for start, end in itertools.pairwise(places):
        world.take(events[start:end])
    assert set(world.roots.values()) == {ANNA}
    lead = world.leads[ANNA]
    activities = {event.activity_id: event for event in events if isinstance(event, ActivityRecorded)}
    if lead.version == 0 or lead.last_received_at is None:
        return
    facts: Facts = {}
    for activity in activities.values():
        learn(facts, activity)
    (standing,) = lead.standings
    assert (standing.tally, lead.facts) == (fold(card(), activities.values()), facts)
    assert read(lead, standing) == read_score(card(), standing.tally, facts, lead.last_received_at)


@given(people(), st.lists(st.integers(0, 80)))
def test_who_became_an_mql_depends_on_no_cut_and_no_replay(events: list[Event], cuts: list[int]) -> None:
    whole, cut = World(), World()
    whole.take(events)
    for start, end in itertools.pairwise(sorted({0, *cuts, len(events)})):
        cut.take(events[start:end])
        cut.take(events[:end])
    assert cut.crossed == whole.crossed
