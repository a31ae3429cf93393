"""The agreement between marketing and sales: a signed YAML text, read strictly into an immutable model. Pure.

`parse` reads a text or tells everything that is wrong with it. Read on in this order: `source` (YAML and places),
`flaws`, `conditions` (with `operators`), `durations`, `parts`, then the sections `scorecards` (with `examples`),
`routing`, `sla` and `terms`, `model` (the whole, and what the services ask it), `checks` (across sections).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from pydantic import ValidationError

from shared.agreement.checks import check
from shared.agreement.conditions import Condition
from shared.agreement.durations import Duration
from shared.agreement.examples import Example
from shared.agreement.flaws import AgreementInvalid, Fault, Flaw, faults_of
from shared.agreement.model import Agreement, handoff_facts
from shared.agreement.routing import Pool, Rep, Route
from shared.agreement.scorecards import Bucket, Clause, Dimension, Group, Limit, Rule, Scorecard
from shared.agreement.sla import Milestone, Policy
from shared.agreement.source import Node, locate, read
from shared.agreement.terms import Nurture, Reason, ReasonKind

MAX_BYTES = 200 * 1024  # the content travels in an event of at most 256 KiB, where quotes and line ends are escaped

__all__ = [
    "MAX_BYTES",
    "Agreement",
    "AgreementInvalid",
    "Bucket",
    "Clause",
    "Condition",
    "Dimension",
    "Duration",
    "Example",
    "Flaw",
    "Group",
    "Limit",
    "Milestone",
    "Nurture",
    "Policy",
    "Pool",
    "Reason",
    "ReasonKind",
    "Rep",
    "Route",
    "Rule",
    "Scorecard",
    "handoff_facts",
    "parse",
    "sha256",
]


@lru_cache(maxsize=64)
def parse(content: str) -> Agreement:
    """The agreement of a YAML text. Raises `AgreementInvalid` with every flaw found.

    A fault between two sections is found once both are valid by themselves.
    """
    try:
        size = len(content.encode())
    except UnicodeEncodeError as error:
        raise AgreementInvalid([Flaw(1, 1, "", f"not UTF-8: {error.reason}")]) from error
    if size > MAX_BYTES:
        raise AgreementInvalid([Flaw(1, 1, "", f"{size:,} bytes; at most {MAX_BYTES:,} are taken")])
    root, flaws = read(content)
    if root is None or root.entries is None:
        raise AgreementInvalid(flaws or [Flaw(1, 1, "", "expected the keys of an agreement")])
    sections: dict[str, object] = {}
    faults: list[Fault] = []
    agreement: Agreement | None = None
    try:
        agreement = Agreement.model_validate(root.plain(), context=sections)
    except ValidationError as error:
        faults = faults_of(error)
    faults += check(_with_defaults(sections, root))
    if agreement is None or faults or flaws:
        raise AgreementInvalid([*flaws, *(_placed(fault, root) for fault in faults)])
    return agreement


def sha256(content: str) -> str:
    """The hex SHA-256 of a text's UTF-8 bytes: what signatures name."""
    return hashlib.sha256(content.encode()).hexdigest()


def _with_defaults(sections: dict[str, object], root: Node) -> dict[str, object]:
    given = root.entries or {}
    defaults = {name: field.default for name, field in Agreement.model_fields.items() if not field.is_required()}
    return {name: value for name, value in defaults.items() if name not in given} | sections


def _placed(fault: Fault, root: Node) -> Flaw:
    return Flaw(*locate(root, fault.steps), fault.message)
