"""Every way to get an agreement wrong is told, with its place, the bad value and what is allowed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.agreement import MAX_BYTES, AgreementInvalid, Flaw, parse

ACME = (Path(__file__).resolve().parents[2] / "deploy/agreements/acme.yaml").read_text()


def flaws(content: str) -> tuple[Flaw, ...]:
    with pytest.raises(AgreementInvalid) as caught:
        parse(content)
    return caught.value.problems


def broken(old: str, new: str) -> tuple[Flaw, ...]:
    """What is said of the sample with one piece of it replaced."""
    assert ACME.count(old) >= 1, f"{old!r} does not stand in the sample"
    return flaws(ACME.replace(old, new, 1))


def place_of(text: str, within: str) -> tuple[int, int]:
    before = within[: within.index(text)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


WRONG = {
    # the text
    "a duplicate key": ("timezone: America/New_York #", "timezone: UTC\ntimezone: America/New_York #", "stands twice"),
    "an alias": ("lookback: P365D", "lookback: *past", "not YAML: found undefined alias|aliases are refused"),
    "an anchor": ("lookback: P365D", "lookback: &past P365D", "anchors are refused"),
    "a tag": ("lookback: P365D", "lookback: !!python/name:os.system P365D", "tags are refused"),
    "a merge key": ("head: mia", "<<: {a: b}, head: mia", "merge keys are refused"),
    "NaN points": ("points: 30}", "points: .nan}", "finite"),
    "infinite points": ("points: 30}", "points: -.inf}", "finite"),
    "points beyond floats": ("points: 30}", "points: 1.0e999}", "finite"),
    "an escape that no database can keep": ("name: Ana Diaz", r'name: "Ana \0 Diaz"', "NUL"),
    "a tab": ("lookback: P365D", "\tlookback: P365D", "not YAML"),
    # keys and values
    "a misspelt key": ("review_every: P3M\n", "review_evry: P3M\n", "did you mean 'review_every'"),
    "a misspelt operator": ("{gte: 200}", "{gt3: 200}", "unknown operator `gt3`; did you mean 'gt"),
    "a misspelt dimension": ("engagement: {gte: 60}", "engagment: {gte: 60}", "did you mean 'engagement'"),
    "a misspelt motion": ("motion: new_business", "motion: new_busines", "did you mean 'new_business'"),
    "a misspelt limit": ("per: week}", "per: fortnight}", "allowed: `hour`, `day`, `week`, `month`"),
    "a misspelt class": ("class: timing", "class: timming", "did you mean 'timing'"),
    "a misspelt milestone": ("next_step: {within", "next_stepp: {within", "unknown value `next_stepp`"),
    "a misspelt calendar": ("calendar: na", "calendar: nah", "unknown calendar `nah`"),
    "a missing party": ("  sales: {head", "  #sales: {head", "`sales` is missing"),
    "text for a number": ("points: 30}", 'points: "30"}', "expected a number"),
    "a number for text": ('hubspot: "51"', "hubspot: 51", "expected text"),
    "yes for true": ("needs_note: true", "needs_note: yes", "expected true or false"),
    "a mapping for a list": ("warn_at: [50%, 80%]", "warn_at: {a: 50%}", "expected a list"),
    "text for a mapping": ("touch: {by: owner", "touch: none #", "expected keys with values"),
    "an empty list": ("pool: inbound, ", "pool: inbound, strategy: [], ", "unknown|expected"),
    "a capital id": ("id: ana,", "id: Ana,", "plain id"),
    "a homoglyph in an id": ("id: ana,", "id: аna,", "plain id"),
    "no e-mail address": ("head: mia@acme.example", "head: mia", "e-mail"),
    "an unknown zone": ("timezone: Europe/Berlin", "timezone: Europe/Berln", "IANA time zone"),
    "a zone that is a path": ("timezone: Europe/Berlin", "timezone: ../etc/passwd", "IANA time zone"),
    "a zone that is a folder": ("timezone: Europe/Berlin", "timezone: Europe", "IANA time zone"),
    "a naive effective time": ("review_every: P3M\n", "effective_from: 2026-01-01T00:00:00\n", "with its zone"),
    # scorecards
    "a cap below its floor": ("cap: 60\n            floor: -30", "cap: -40\n            floor: -30", "below the floor"),
    "a half life of zero": ("half_life: P14D", "half_life: P0D", "more than nothing"),
    "a half life of a century": ("half_life: P14D", "half_life: P36500D", "at most 3,650 days"),
    "a half life in months": ("half_life: P14D", "half_life: P1M", "write days"),
    "hours without T": ("qualify_max_age: P2D", "qualify_max_age: P4H", "did you mean `PT4H`"),
    "points of a thousandth": ("points: 30}", "points: 0.001}", "0.01"),
    "points of nothing": ("points: 30}", "points: 0}", "does nothing"),
    "too many points": ("points: 30}", "points: 10000000}", "1,000,000"),
    "a duplicate rule": ("id: industry", "id: size", "id `size` stands twice"),
    "a limit on a fact": ("points: 30}", "points: 30, limit: {times: 1, per: day}}", "a fact counts once"),
    "a limit of zero": ("{times: 3, per: day}", "{times: 0, per: day}", "greater than or equal to 1"),
    "a bare pattern on a fact": ("{title: {contains: student}}", '{title: "*student*"}', "write a pattern as"),
    "a text threshold": ("fit: {gte: 50}", 'fit: {gte: "50"}', "`gte` takes a number"),
    "an empty condition": ("when: {company_size: {gte: 200}}, points", "when: {}, points", "expected conditions"),
    "a wrong between": ("{gte: 200}}, points", "{between: [9, 1]}}, points", "the lower first"),
    "an activity deep inside": ("{any: [{title: {contains: student}}", "{any: [{activity: x}", "stands at the top"),
    "a dimension compared as text": ("fit: {gte: 50}", "fit: {contains: a}", "a dimension is compared by"),
    "a bucket on an activity": ("hot: {when: {engagement", "hot: {when: {activity: x, engagement", "about dimensions"),
    "no last bucket": ("cold: {otherwise: true", "cold: {when: {fit: {lt: 9}}", "must be `otherwise: true`"),
    "both when and otherwise": (
        "cold: {otherwise: true",
        "cold: {otherwise: true, when: {fit: {lt: 9}}",
        "either `when`",
    ),
    "otherwise in the middle": (
        "warm: {when: {engagement: {gte: 40}, fit: {gte: 30}}",
        "warm: {otherwise: true",
        "last",
    ),
    "otherwise: false": ("cold: {otherwise: true", "cold: {otherwise: false", "false: expected `true`"),
    "an example's bucket": ("bucket: warm}", "bucket: warmer}", "unknown bucket `warmer`; did you mean 'warm'"),
    # people and routes
    "an unknown pool": (
        "pool: na-robots, strategy",
        "pool: na-robot, strategy",
        "unknown pool `na-robot`; did you mean",
    ),
    "an unknown rep": ("{rep: chi}", "{rep: chia}", "unknown rep `chia`; did you mean 'chi'"),
    "a rep twice in a pool": ("{rep: chi}", "{rep: bo}", "in the pool twice"),
    "a pool without reps": ("members: [{rep: bo}, {rep: dee}]", "members: []", "must not be empty"),
    "a weight of zero": ("weight: 2", "weight: 0", "greater than or equal to 1"),
    "an unknown manager": ("manager: ana@acme.example", "manager: anna@acme.example", "unknown person `anna@"),
    "two reps with one CRM id": ('hubspot: "52"', 'hubspot: "51"', "ambiguous"),
    "no last resort": (", last_resort: sam@acme.example", "", "needs `last_resort`"),
    "an unknown last resort": ("last_resort: sam@acme.example", "last_resort: kim", "unknown person `kim`"),
    "an unknown product": ("{product: robots, country", "{product: robot, country", "unknown product `robot`"),
    "an unknown bucket": ("when: {bucket: hot}", "when: {bucket: hott}", "unknown bucket `hott`; did you mean 'hot'"),
    # clocks
    "a shift over midnight": ('"13:30-18:00"', '"22:00-06:00"', "over midnight it is two"),
    "overlapping intervals": ('"13:30-18:00"', '"12:00-18:00"', "overlaps"),
    "no time of day": ('"13:30-18:00"', '"13:30-25:00"', "HH:MM-HH:MM"),
    "past midnight": ('"13:30-18:00"', '"13:30-24:30"', "at most 24:00"),
    "a day twice": ("mon-fri: [", 'fri: ["10:00-11:00"], mon-fri: [', "fri has hours already"),
    "days backwards": ("mon-fri: [", "fri-mon: [", "ends before it starts"),
    "an unknown day": ("mon-fri: [", "mon-fry: [", "unknown weekday `fry`"),
    "a calendar without an open hour": ('{mon-fri: ["09:00-12:30", "13:30-18:00"]}', "{mon: []}", "no open hour"),
    "an unknown country": ("holidays: US", "holidays: XX", "ISO code"),
    "a day that does not exist": ("2026-12-31]", "2026-02-29]", "or a date"),
    "a policy without milestones": (
        "milestones:\n        accept: {within: PT4H, from: assigned}\n        first_touch: {within: P1D, from: mql}",
        "milestones: {}",
        "must not be empty",
    ),
    "a milestone from nothing": (
        "{within: PT5M, from: assigned}",
        "{within: PT5M, from: previous}",
        "no milestone comes",
    ),
    "an SLA in months": ("within: P2D", "within: P1M", "write days"),
    "a warning at nothing": ("warn_at: [80%]", "warn_at: [0%]", "from 1% to 99%"),
    "warnings out of order": ("warn_at: [50%, 80%]", "warn_at: [80%, 50%]", "rising order"),
    "a ceiling without reassigning": ("on_breach: [notify_manager]", "max_reassigns: 2", "only there"),
    "reassigning without a ceiling": ("      max_reassigns: 3\n", "", "at least 1 belongs"),
    # reasons
    "an unknown consequence": ("then: reroute", "then: rerout", "expected `reroute` or"),
    "a rerouted recycling": ("then: {nurture: re-engage}", "then: reroute", "for rejections"),
    "a duplicate reason": ("id: not_a_fit", "id: bad_data", "stands twice"),
    "no wake-up": ("wake_after: P90D", "wake_after: soon", "ISO 8601"),
    "a goal of nothing": ("target: 120", "target: 0", "greater than 0"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told(old: str, new: str, message: str) -> None:
    problems = broken(old, new)
    assert any(part in flaw.message for flaw in problems for part in message.split("|")), problems


LATER = {
    "experiments": ("lookback: P365D", "experiments: []\nlookback: P365D"),
    "accounts": ("    product: robots", "    accounts: {}\n    product: robots"),
    "explore": ("    product: robots", "    explore: 2%\n    product: robots"),
    "disqualification": ("    product: robots", "    disqualification: []\n    product: robots"),
    "on_publish": ("lookback: P365D", "on_publish: silent\nlookback: P365D"),
    "a half life per rule": ("points: 30}", "points: 30, half_life: P7D}"),
    "expiry": ("points: 30}", "points: 30, expires: P7D}"),
    "decay": ("half_life: P14D", "decay: linear"),
    "frequency": ('path: "/pricing*"}', "count: {gte: 3}}"),
    "sums": ('path: "/pricing*"}', "sum: {seconds: {gte: 3}}}"),
    "absence": ("{company_size: {gte: 200}}, points", "{absent: P30D}, points"),
    "personas in rules": ("{company_size: {gte: 200}}, points", "{persona: plant-manager}, points"),
    "other strategies": ("strategy: fair_share", "strategy: round_robin"),
    "a raised hand's clock": ("from: mql}", "from: raised_hand}"),
    "other measures": ("on_breach: [notify_manager]", "on_breach: [remind_rep]"),
    "blocking": ("then: reroute", "then: block"),
    "skills": ("slack: U0ANA}", "slack: U0ANA, skills: [german]}"),
    "regional holidays": ("holidays: US", "holidays: US-CA"),
    "touches by others": ("touch: {by: owner", "touch: {by: team"),
}


@pytest.mark.parametrize(("old", "new"), LATER.values(), ids=LATER.keys())
def test_what_a_later_version_will_know_is_refused_as_not_yet(old: str, new: str) -> None:
    assert any("not supported yet" in flaw.message for flaw in broken(old, new))


def test_every_flaw_is_told_at_once_with_line_column_and_path() -> None:
    content = (
        ACME.replace("cap: 100", "cap: lots", 1)
        .replace("{rep: chi}", "{rep: chia}")
        .replace("head: mia", "haed: mia")
        .replace("within: PT10M", "within: 10m")
        .replace("pool: inbound", "pool: outbound")
    )
    found = {flaw.path: flaw for flaw in flaws(content)}
    assert found["scorecards[0].dimensions.fit.cap"][:2] == place_of("lots", content)
    assert found["pools[0].members[2].rep"][:2] == place_of("chia", content)
    assert found["parties.marketing.haed"][:2] == place_of("mia@", content)
    assert found["parties.marketing"].message == "`head` is missing"
    assert found["sla.policies[0].milestones.first_touch.within"][:2] == place_of("10m", content)
    assert found["routing[1].pool"][:2] == place_of("outbound", content)
    assert str(found["pools[0].members[2].rep"]).startswith(f"line {place_of('chia', content)[0]}, column ")


@pytest.mark.parametrize("bad", ["points: 30}", "weight: 2", "warn_at: [80%]", "class: logistics", "within: PT5M"])
def test_one_mistake_is_one_flaw(bad: str) -> None:
    (flaw,) = broken(bad, bad.partition(":")[0] + ": {a: b}" + "}" * bad.count("}"))
    assert flaw.message.startswith("{'a': 'b'}: ")


def test_flaws_are_told_in_the_order_of_the_text() -> None:
    lines = [flaw.line for flaw in flaws(ACME.replace("P365D", "soon").replace("class: fit", "class: fat"))]
    assert len(lines) == 4
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the keys of an agreement"),
        ("# nothing", "expected the keys"),
        ("- a\n- b", "expected the keys"),
        ("just text", "expected the keys"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 1000, "nested deeper"),
        ("a: [1, 2", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: \ud800", "not UTF-8"),
        ("? [a, b]\n: c", "a key must be plain text"),
        ("x" * (MAX_BYTES + 1), "bytes; at most"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases are refused"),
        ("a: " + "9" * 10_000, "unknown key"),
    ],
)
def test_what_is_no_agreement_at_all_is_told(content: str, message: str) -> None:
    assert any(message in flaw.message for flaw in flaws(content))


@given(st.text(max_size=200))
@example("a: !!binary =")
@example("%YAML 9.9\n---\na: b")
def test_no_text_is_more_than_invalid(content: str) -> None:
    assert all(flaw.line >= 1 and flaw.column >= 1 for flaw in flaws(content))


@given(st.data())
def test_no_cut_or_repetition_of_the_sample_is_more_than_invalid(data: st.DataObject) -> None:
    lines = ACME.splitlines(keepends=True)
    start, end = sorted((data.draw(st.integers(0, len(lines))), data.draw(st.integers(0, len(lines)))))
    content = "".join(data.draw(st.sampled_from([lines[:start] + lines[end:], lines[:end] + lines[start:]])))
    with suppress(AgreementInvalid):
        parse(content)


def test_an_agreement_must_not_end_before_it_begins() -> None:
    times = "effective_from: 2026-02-01T00:00:00Z\neffective_to: 2026-01-01T00:00:00Z\n"
    (flaw,) = broken("review_every: P3M\n", times)
    assert flaw.path == "effective_to"
