"""YAML as an agreement may use it, with the place of every value.

A strict part of YAML 1.2: no aliases, anchors or tags (they explode, or run code), no duplicate keys, no NaN, one
document, limited depth. Plain `NO`, `on` and `12:30` are text, as in YAML 1.2: Norway is a country.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import yaml

from shared.agreement.flaws import Flaw, Step, shown
from shared.given import is_clean

MAX_DEPTH = 30  # the grammar needs 12
Scalar = str | int | float | bool | None

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there: ten times faster
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?([0-9]{1,18}\.[0-9]*|\.[0-9]+|[0-9]{1,18})([eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(nan|inf)", re.IGNORECASE)


class Unreadable(Exception):
    """Reading cannot go on; `flaw` says why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(str(flaw))
        self.flaw = flaw


@dataclass(slots=True)
class Node:
    """A value and where it stands. Exactly one of the three holds it; a mapping keeps the places of its keys."""

    line: int
    column: int
    scalar: Scalar = None
    items: list[Node] | None = None
    entries: dict[str, tuple[Node, Node]] | None = None

    def plain(self) -> object:
        """The value itself, lists as tuples."""
        if self.items is not None:
            return tuple(item.plain() for item in self.items)
        if self.entries is not None:
            return {key: value.plain() for key, (_, value) in self.entries.items()}
        return self.scalar


@dataclass(slots=True)
class _Reader:
    events: Iterator[yaml.Event]
    flaws: list[Flaw] = field(default_factory=list)

    def refuse(self, event: yaml.Event, message: str) -> None:
        self.flaws.append(Flaw(*_place(event), "", message))


def read(content: str) -> tuple[Node | None, list[Flaw]]:
    """The document of a text, None if it has none, and what is wrong with it as YAML."""
    reader = _Reader(_events(content))
    try:
        root = _document(reader)
    except Unreadable as error:
        return None, [*reader.flaws, error.flaw]
    return root, reader.flaws


def locate(root: Node, steps: Sequence[Step]) -> tuple[int, int, str]:
    """Line, column and written path of a value; of the nearest one around it, where it is missing.

    A whole number is a place in a list, or in a mapping's order.
    """
    node, here, path = root, root, ""
    for step in steps:
        if node.entries is not None:
            key = list(node.entries)[step] if isinstance(step, int) and step < len(node.entries) else str(step)
            if key not in node.entries:
                break
            here, node = node.entries[key]
            path = f"{path}.{key}" if path else key
        elif node.items is not None and isinstance(step, int) and step < len(node.items):
            here = node = node.items[step]
            path = f"{path}[{step}]"
        else:
            break
    place = here if node.items is not None or node.entries is not None else node
    return place.line, place.column, path


def _events(content: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(content, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise Unreadable(Flaw(*place, "", f"not YAML: {error.problem or error.context}")) from error
    except yaml.YAMLError as error:
        raise Unreadable(Flaw(1, 1, "", f"not YAML: {str(error).splitlines()[0]}")) from error


def _document(reader: _Reader) -> Node | None:
    root: Node | None = None
    for event in reader.events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                reader.refuse(event, "a second document: an agreement is one")
                break
            root = _node(reader, next(reader.events), depth=0)
    return root


def _node(reader: _Reader, event: yaml.Event, depth: int) -> Node:
    node = Node(*_place(event))
    if depth > MAX_DEPTH:
        raise Unreadable(Flaw(node.line, node.column, "", f"nested deeper than {MAX_DEPTH} levels"))
    if isinstance(event, yaml.AliasEvent):
        reader.refuse(event, f"alias `*{event.anchor}`: aliases are refused, write the value out")
    elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
        reader.refuse(event, f"anchor `&{event.anchor}`: anchors are refused")
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        reader.refuse(event, f"tag {shown(event.tag)}: tags are refused")
    if isinstance(event, yaml.SequenceStartEvent):
        node.items = list(_items(reader, depth + 1))
    elif isinstance(event, yaml.MappingStartEvent):
        node.entries = _entries(reader, depth + 1)
    elif isinstance(event, yaml.ScalarEvent):
        if not is_clean(event.value):
            reader.refuse(event, "NUL or half of a surrogate pair, which no text may hold")
        node.scalar = _scalar(reader, event)
    return node


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _items(reader: _Reader, depth: int) -> Iterator[Node]:
    while not isinstance(event := next(reader.events), yaml.SequenceEndEvent):
        yield _node(reader, event, depth)


def _entries(reader: _Reader, depth: int) -> dict[str, tuple[Node, Node]]:
    entries: dict[str, tuple[Node, Node]] = {}
    while not isinstance(event := next(reader.events), yaml.MappingEndEvent):
        key = _node(reader, event, depth)
        value = _node(reader, next(reader.events), depth)
        name = event.value if isinstance(event, yaml.ScalarEvent) else None
        if name is None or name == "<<":
            reader.refuse(event, "a key must be plain text (merge keys are refused)")
        elif name in entries:
            reader.refuse(event, f"key {shown(name)} stands twice, first in line {entries[name][0].line}")
        else:
            entries[name] = (key, value)
    return entries


def _scalar(reader: _Reader, event: yaml.ScalarEvent) -> Scalar:
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        reader.refuse(event, f"{shown(text)}: expected a finite number")
        return 0
    if _DECIMAL.fullmatch(text) and not text.lstrip("+-").isdigit():
        number = float(text)
        if not math.isfinite(number):
            reader.refuse(event, f"{shown(text)}: expected a finite number")
            return 0
        return number
    return text
