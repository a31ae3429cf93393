"""What reasons lead to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.handoff.recycle import AttemptsNeeded, Consequence, NoteNeeded, UnknownReason, consequence, of_loss
from tests.handoff.terms import terms

AGREEMENT = terms().agreement


def test_a_reason_names_its_class_its_track_and_when_to_wake() -> None:
    assert consequence(AGREEMENT, "recycle", "no_budget", note=None, attempts=0) == Consequence(
        "no_budget", "timing", "budget-track", timedelta(days=90)
    )


def test_a_logistics_reason_means_another_rep() -> None:
    assert consequence(AGREEMENT, "reject", "wrong_territory", note=None, attempts=0).is_reroute


@pytest.mark.parametrize("reason", ["no_budget", "not_a_fitt", None])
def test_a_reason_of_another_list_or_none_is_refused_with_the_legal_ones(reason: str | None) -> None:
    with pytest.raises(UnknownReason) as refused:
        consequence(AGREEMENT, "reject", reason, note=None, attempts=0)
    assert refused.value.legal == ("wrong_territory", "conflict_of_interest", "not_a_fit", "bad_data", "other")
    assert ("did you mean 'not_a_fit'" in str(refused.value)) is (reason == "not_a_fitt")


@pytest.mark.parametrize("note", [None, "", "  "])
def test_a_reason_that_says_nothing_needs_a_note(note: str | None) -> None:
    with pytest.raises(NoteNeeded):
        consequence(AGREEMENT, "reject", "other", note=note, attempts=0)
    assert consequence(AGREEMENT, "reject", "other", note="already a customer", attempts=0).track == "default"


def test_unreachable_is_believed_after_as_many_attempts_as_agreed() -> None:
    with pytest.raises(AttemptsNeeded) as refused:
        consequence(AGREEMENT, "recycle", "unreachable", note=None, attempts=4)
    assert (refused.value.needed, refused.value.attempts) == (5, 4)
    assert consequence(AGREEMENT, "recycle", "unreachable", note=None, attempts=5).track == "re-engage"


def test_a_deal_may_be_lost_for_a_reason_that_only_the_crm_knows() -> None:
    assert of_loss(AGREEMENT, "They went quiet") is None
    assert of_loss(AGREEMENT, None) is None
    assert of_loss(AGREEMENT, "competitor") == Consequence("competitor", "fit", "long-term", timedelta(days=180))
