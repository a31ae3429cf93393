"""What happened to each lead, when and why, put together from what the API says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared.cli.stage import Json
from shared.cli.story import Story


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of the timeline; `why` may be empty."""

    at: datetime
    who: str
    what: str
    why: str = ""


def timeline(story: Story) -> list[Entry]:
    """Everything the API tells of the story's leads, in the order in which it happened."""
    return sorted(entry for name in story.leads for entry in _of(story, name))


def _of(story: Story, name: str) -> Iterator[Entry]:
    lead, handoff = story.lead(name), story.handoff(name)
    if not lead["mqls"]:
        for score in story.explanation(name)["scores"]:
            yield Entry(_time(score["as_of"]), name, "does not qualify: marketing keeps it", f"scored {_rules(score)}")
    for mql in lead["mqls"]:
        scores = [each for each in story.explanation(name)["scores"] if each["product"] == mql["product"]]
        why = f"clause {mql['clause']}; scored {_rules(scores[0])}" if scores else f"clause {mql['clause']}"
        yield Entry(_time(mql["qualified_at"]), name, f"qualifies: an MQL for {mql['product']}", why)
        if mql["ended_at"]:
            yield Entry(_time(mql["ended_at"]), name, "may qualify again from here on", "scoring heard of the end")
    decisions = {decision["at"]: decision for decision in handoff.get("routing", [])}
    for line in handoff.get("history", []):
        yield Entry(_time(line["at"]), name, _transition(line), _decision(decisions.get(line["at"])) or _cause(line))
    for clock in handoff.get("clocks", []):
        yield from _clock(name, clock)
    for delivery in story.deliveries(name):
        if delivery["delivered_at"]:
            what = f"told {delivery['receiver']} by {delivery['channel']}: {delivery['event_type']}"
            yield Entry(_time(delivery["delivered_at"]), name, what)


def _rules(score: Json) -> str:
    """The rules that scored, and the total."""
    lines = [line for line in score["lines"] if line["points"]]
    said = ", ".join(f"{line['rule'] or line['kind']} {line['points']:+g}" for line in lines) or "nothing"
    return f"{said} = {score['score']:g} ({score['bucket']})"


def _transition(line: Json) -> str:
    to = f" to {line['owner']}" if line["owner"] and line["type"] in ("handoff.assigned", "handoff.reassigned") else ""
    reason = f" ({line['reason']})" if line["reason"] else ""
    return f"{line['type']}{to}{reason}"


def _decision(decision: Json | None) -> str:
    if not decision:
        return ""
    shares = ", ".join(map(_share, decision["candidates"]))
    return f"rule {decision['rule']}, pool {decision['pool']}: {decision['why']} ({shares})"


def _share(candidate: Json) -> str:
    """How far a rep is from his fair share, in leads."""
    if not candidate["eligible"]:
        return f"{candidate['rep']}: {candidate['why']}"
    debt = candidate["debt_before"]
    standing = "has his share" if abs(debt) < 0.005 else f"is {abs(debt):.2f} {'ahead of' if debt > 0 else 'behind'} it"
    return f"{candidate['rep']} {standing}"


def _cause(line: Json) -> str:
    """Who did it; what Baton does by itself, the line above it has told."""
    return "" if line["actor"] == "baton" else f"by {line['actor']}"


def _clock(name: str, clock: Json) -> Iterator[Entry]:
    yield Entry(_time(clock["started_at"]), name, f"clock {clock['milestone']} of {clock['subject']} starts",
                f"due {_short(clock['due_at'])} under policy {clock['policy']}")  # fmt: skip
    if clock["breached_at"]:
        yield Entry(_time(clock["breached_at"]), name, f"clock {clock['milestone']} of {clock['subject']} BREACHES",
                    f"due {_short(clock['due_at'])}")  # fmt: skip
    if clock["met_at"]:
        yield Entry(_time(clock["met_at"]), name, f"clock {clock['milestone']} of {clock['subject']} is met",
                    f"after {clock['elapsed_seconds']:.1f} s of working time")  # fmt: skip


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _short(text: str) -> str:
    return f"{_time(text):%d %b %H:%M:%S}"
