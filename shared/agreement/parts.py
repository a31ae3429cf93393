"""What every part of an agreement is made of: strict, frozen, without unknown keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from shared.agreement.conditions import When
from shared.agreement.flaws import Fault, faults_of, not_yet, refuse, shown, unknown
from shared.agreement.source import Scalar

MOST_POINTS = 1_000_000

SLUG = re.compile(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?", re.ASCII)
EMAIL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+", re.ASCII)


def _slug(text: str) -> str:
    if not SLUG.fullmatch(text):
        raise ValueError("expected a plain id: small ASCII letters, digits, - and _, at most 64")
    return text


def _email(text: str) -> str:
    if not EMAIL.fullmatch(text):
        raise ValueError("expected an e-mail address")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError) as error:  # a directory of the zone data is an OSError
        raise ValueError("expected an IANA time zone such as Europe/Berlin") from error
    return text


def _hundredths(number: float) -> float:
    if abs(number) > MOST_POINTS or round(number, 2) != number:
        raise ValueError(f"expected points to 0.01, at most {MOST_POINTS:,} either way")
    return float(number)


Slug = Annotated[str, AfterValidator(_slug)]
Email = Annotated[str, AfterValidator(_email)]
ZoneName = Annotated[str, AfterValidator(_zone)]
Points = Annotated[float, AfterValidator(_hundredths)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Part(BaseModel):
    """A mapping of the agreement. `later`: keys that the language will have, and this version refuses."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _knows_every_key(cls, raw: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Unknown keys are named beside all other faults, not instead of them."""
        if not isinstance(raw, Mapping):
            return validate(raw)
        known = [field.alias or name for name, field in cls.model_fields.items()]
        faults = [Fault((key,), cls._on(key, known)) for key in raw if key not in known]
        if not faults:
            return validate(raw)
        try:
            validate({key: value for key, value in raw.items() if key in known})
        except ValidationError as error:
            faults += faults_of(error)
        refuse(faults)

    @classmethod
    def _on(cls, key: str, known: Iterable[str]) -> str:
        return not_yet("key", key) if key in cls.later else unknown("key", key, known)


class Choice(Part):
    """One of a list that is read from the top: `when` it holds, or `otherwise`."""

    id: Slug = ""
    when: When | None = None
    otherwise: Literal[True] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.when is None) == (self.otherwise is None):
            raise ValueError("needs either `when` or `otherwise: true`")
        return self

    def applies(self, facts: Mapping[str, Scalar]) -> bool:
        return self.when is None or self.when.holds(facts)


class Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T")
P = TypeVar("P", bound=Identified)
C = TypeVar("C", bound=Choice)


def _not_empty(parts: tuple[T, ...]) -> tuple[T, ...]:
    if not parts:
        refuse([Fault((), "must not be empty")])
    return parts


def _ids_differ(parts: tuple[P, ...]) -> tuple[P, ...]:
    ids = [part.id for part in parts]
    faults = [Fault((place, "id"), f"id {shown(id)} stands twice") for place, id in enumerate(ids) if id in ids[:place]]
    if faults:
        refuse(faults)
    return parts


def _ends_in_otherwise(choices: tuple[C, ...]) -> tuple[C, ...]:
    faults = [
        Fault((place, "otherwise"), "`otherwise` comes last: what follows is never reached")
        for place, choice in enumerate(choices[:-1])
        if choice.otherwise
    ]
    if choices and not choices[-1].otherwise:
        faults.append(Fault((len(choices) - 1,), "the last entry must be `otherwise: true`: nothing may fall through"))
    if faults:
        refuse(faults)
    return choices


def _named_by_place(choices: tuple[C, ...]) -> tuple[C, ...]:
    """Each choice without an id is called by its kind and place: `policy-1`; the last one `otherwise`."""
    kind = type(choices[0]).__name__.lower() if choices else ""
    return tuple(
        choice.model_copy(update={"id": choice.id or ("otherwise" if choice.otherwise else f"{kind}-{number}")})
        for number, choice in enumerate(choices, start=1)
    )


def _with_ids(raw: object) -> object:
    """`{fit: {...}, engagement: {...}}` as a list whose parts know their names, in the order of the text."""
    if not isinstance(raw, Mapping):
        return raw
    return tuple({**value, "id": key} if isinstance(value, Mapping) else value for key, value in raw.items())


def pairs(raw: object) -> object:
    return tuple(raw.items()) if isinstance(raw, Mapping) else raw


def postponed(kind: str, *words: str) -> Callable[[Any], Any]:
    """A validator that answers words of a later version with "not yet"."""

    def check(raw: Any) -> Any:
        if isinstance(raw, str) and raw in words:
            refuse([Fault((), not_yet(kind, raw))])
        return raw

    return check


Some = AfterValidator(_not_empty)
Parts = Annotated[tuple[P, ...], AfterValidator(_ids_differ)]
Listed = Annotated[tuple[P, ...], Some, AfterValidator(_ids_differ)]
Named = Annotated[tuple[T, ...], BeforeValidator(_with_ids), Some]
Choices = Annotated[
    tuple[C, ...],
    Some,
    AfterValidator(_ends_in_otherwise),
    AfterValidator(_named_by_place),
    AfterValidator(_ids_differ),
]
NamedChoices = Annotated[tuple[C, ...], BeforeValidator(_with_ids), Some, AfterValidator(_ends_in_otherwise)]
Pairs = Annotated[tuple[tuple[str, Scalar], ...], BeforeValidator(pairs)]
