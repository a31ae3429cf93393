"""The life of a handoff drawn from its one table, for `docs/lifecycle.md`; a test keeps the page equal to it."""

from __future__ import annotations

from collections.abc import Iterator

from services.handoff.lifecycle import OPEN, TABLE, State

START_AND_END = "[*]"
FRAME = "open"


def mermaid() -> str:
    """The states and what leads from one to another, as a Mermaid state diagram. What changes no state is not drawn.

    What may happen in every open state is one arrow from the frame around them.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, target, action in _moves():
        arrows.setdefault((source, target), []).append(action)
    drawn = {move: f"{move[0]} --> {move[1]}: {', '.join(actions)}" for move, actions in arrows.items()}
    inside = [f"        {arrow}" for move, arrow in drawn.items() if set(move) <= {*OPEN}]
    outside = [f"    {arrow}" for move, arrow in drawn.items() if not set(move) <= {*OPEN}]
    ends = [f"    {state} --> {START_AND_END}" for state in State if state not in OPEN]
    return "\n".join(["stateDiagram-v2", f"    state {FRAME} {{", *inside, "    }", *outside, *ends])


def markdown_table() -> str:
    """Every action: where it is possible, what comes of it, who may do it, and whether the cycle ends."""
    head = "| action | possible when | then | event | who | ends the cycle |\n| --- | --- | --- | --- | --- | --- |"
    rows = [
        f"| {action} | {_names(row.sources)} | {row.target or 'as before'} | `{row.event}` "
        f"| {', '.join(sorted(row.who))} | {'yes' if row.ends_cycle else ''} |"
        for action, row in TABLE.items()
    ]
    return "\n".join([head, *rows])


def _moves() -> Iterator[tuple[str, str, str]]:
    for action, row in TABLE.items():
        sources = [FRAME] if row.sources == {*OPEN} else [source or START_AND_END for source in _ordered(row.sources)]
        for source in sources:
            if row.target is not None and row.target != source:
                yield source, row.target, action


def _names(sources: frozenset[State | None]) -> str:
    if sources == frozenset(State):
        return "always"
    return ", ".join(source or "not open yet" for source in _ordered(sources))


def _ordered(sources: frozenset[State | None]) -> list[State | None]:
    return [state for state in (None, *State) if state in sources]
