"""`baton explain`: the lines a score is the sum of, as the server tells them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from shared.cli.client import Client
from shared.cli.options import Output, show_json, show_table

COLUMNS = ("dimension", "group", "rule", "kind", "count", "points")


def explain_lead(client: Client, lead: str, output: Output) -> None:
    """Print each scorecard's lines; those of a dimension sum to it exactly."""
    answer = client.get(f"/v1/leads/{quote(lead, safe='')}/explanation")
    if output is Output.JSON:
        show_json(answer)
        return
    scores: list[dict[str, Any]] = answer.get("scores", answer.get("items", []))
    if not scores:
        print(f"{lead} has no score yet")
    for score in scores:
        _show_score(score)


def _show_score(score: dict[str, Any]) -> None:
    dimensions = ", ".join(f"{name} {points}" for name, points in score.get("dimensions", {}).items())
    version = score.get("agreement_version")
    print(f"{score.get('scorecard')}: {score.get('bucket')} ({dimensions}), agreement version {version}")
    show_table(COLUMNS, [[line.get(column) for column in COLUMNS] for line in score.get("lines", ())])
