"""Conditions over facts and activities: strict about types, and never an exception."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.agreement.conditions import condition
from shared.agreement.operators import OPERATORS, glob
from shared.agreement.source import Scalar

HOLDS = [
    ({"n": 5}, 5, True),
    ({"n": 5}, 5.0, True),
    ({"n": 5}, "5", False),
    ({"n": 1}, True, False),
    ({"n": True}, 1, False),
    ({"n": True}, True, True),
    ({"n": "US"}, "us", False),
    ({"n": ("US", "CA")}, "CA", True),
    ({"n": (1, "a")}, True, False),
    ({"n": {"ne": "US"}}, "CA", True),
    ({"n": {"ne": "US"}}, None, False),
    ({"n": {"not_in": ("US", "CA")}}, "DE", True),
    ({"n": {"not_in": ("US", "CA")}}, None, False),
    ({"n": {"gte": 200}}, 200, True),
    ({"n": {"gte": 200}}, "about 200", False),
    ({"n": {"gte": 0}}, True, False),
    ({"n": {"gt": 200}}, 200, False),
    ({"n": {"lt": 200}}, None, False),
    ({"n": {"lte": 200}}, 200.0, True),
    ({"n": {"lte": 200}}, float("nan"), False),
    ({"n": {"between": (1, 3)}}, 3, True),
    ({"n": {"between": (1, 3)}}, 3.01, False),
    ({"n": {"gte": 1, "lt": 3}}, 3, False),
    ({"n": {"exists": True}}, "", True),
    ({"n": {"exists": True}}, None, False),
    ({"n": {"missing": True}}, None, True),
    ({"n": {"missing": False}}, 0, True),
    ({"n": {"matches": "*plant manager*"}}, "Senior Plant Manager EMEA", True),
    ({"n": {"matches": "a*b*c"}}, "abc", True),
    ({"n": {"matches": "ab*ba"}}, "aba", False),
    ({"n": {"matches": "a.c"}}, "abc", False),
    ({"n": {"matches": "*"}}, 5, False),
    ({"n": {"starts_with": "vp "}}, "VP Sales", True),
    ({"n": {"contains": "STUDENT"}}, "PhD student", True),
    ({"n": {"contains": "1"}}, 1, False),
    ({"not": {"n": 5}}, None, True),
    ({"any": ({"n": 5}, {"n": 6})}, 6, True),
    ({"all": ({"n": {"gt": 5}}, {"not": {"n": 7}})}, 7, False),
]


@pytest.mark.parametrize(("raw", "value", "holds"), HOLDS)
def test_a_condition_holds_or_not(raw: dict[str, object], value: Scalar, holds: bool) -> None:
    assert condition(raw).holds({"n": value}) is holds
    if value is None:
        assert condition(raw).holds({}) is holds


def test_an_activity_is_met_by_kind_and_properties() -> None:
    pricing = condition({"activity": "page_viewed", "path": ("/pricing*", "/plans")})
    assert pricing.holds_for("page_viewed", {"path": "/pricing/enterprise?plan=[x]"})
    assert pricing.holds_for("page_viewed", {"path": "/plans"})
    assert not pricing.holds_for("page_viewed", {"path": "/plans/a"})
    assert not pricing.holds_for("page_viewed", {})
    assert not pricing.holds_for("form_submitted", {"path": "/pricing"})
    assert condition({"activity": ("demo_requested", "call_requested")}).holds_for("call_requested", {})


def test_a_condition_reads_like_a_sentence() -> None:
    raw = {"activity": "page_viewed", "path": "/p*", "any": ({"n": {"gte": 2}}, {"m": {"missing": True}, "k": "x"})}
    assert str(condition(raw)) == (
        "activity page_viewed with path matches /p* and (n >= 2 or (m is missing and k = x))"
    )


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
operands = scalars | st.lists(scalars, max_size=3).map(tuple)


@given(st.sampled_from(sorted(OPERATORS)), operands, scalars)
def test_no_value_of_a_lead_makes_an_operator_raise(operator: str, operand: object, value: Scalar) -> None:
    check = OPERATORS[operator].compile(operand)
    assert check is None or check(value) in (True, False)


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="abA", max_size=12))
def test_a_pattern_means_what_its_regular_expression_would(pattern: str, text: str) -> None:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert glob(pattern)(text) == bool(re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL))


def test_a_hostile_text_does_not_slow_a_pattern_down() -> None:
    matches = glob("*a" * 200 + "*b")
    started = time.perf_counter()
    assert not matches("a" * 100_000)
    assert time.perf_counter() - started < 1
