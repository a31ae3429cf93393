"""What is wrong with an agreement, said so that its author can mend it: where, the bad value, what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from shared.nearest import did_you_mean

Step = str | int
SHOWN = 60  # characters of a bad value
MOST_FLAWS = 500  # an answer about a file of rubbish stays readable


class Flaw(NamedTuple):
    """One error. Line and column count from 1; `path` is written as `sla.policies[0].milestones.accept`."""

    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.path or 'agreement'}: {self.message}"


class AgreementInvalid(ValueError):
    """The text is no agreement; `problems` are the flaws found, in the order of the text, the first 500 of them."""

    def __init__(self, problems: Iterable[Flaw]) -> None:
        self.problems = tuple(sorted(problems)[:MOST_FLAWS])
        super().__init__("\n".join(str(flaw) for flaw in self.problems))


class Fault(NamedTuple):
    """A flaw before its line is known: the steps to it from where it was found, and the message."""

    steps: tuple[Step, ...]
    message: str


def refuse(faults: Sequence[Fault]) -> NoReturn:
    """Raise all of these from inside a validator; pydantic puts its own steps before theirs."""
    raise ValidationError.from_exception_data("agreement", [_detail(fault) for fault in faults])


def faults_of(error: ValidationError) -> list[Fault]:
    """Every fault in a validation error, in our words."""
    return [Fault(tuple(detail["loc"]), _say(detail)) for detail in error.errors(include_url=False)]


def shown(value: object) -> str:
    """A bad value as a message quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"`{value}`" if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def listed(words: Iterable[str]) -> str:
    """`a`, `b`, `c`."""
    return ", ".join(f"`{word}`" for word in words) or "none"


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The sentence on a word that is none of the known ones."""
    allowed = list(known)
    return f"unknown {kind} {shown(word)}{did_you_mean(word, allowed)} (allowed: {listed(allowed)})"


def not_yet(kind: str, word: str) -> str:
    """The sentence on what the agreement's language will know, but this version does not."""
    return f"{kind} {shown(word)} is not supported yet"


def _detail(fault: Fault) -> InitErrorDetails:
    kind = PydanticCustomError("agreement", "{message}", {"message": fault.message})
    return InitErrorDetails(type=kind, loc=fault.steps, input=None)


def _say(detail: ErrorDetails) -> str:
    value = detail["input"]
    match detail["type"]:
        case "agreement":
            return str(detail["ctx"]["message"])
        case "missing":
            return f"`{detail['loc'][-1]}` is missing"
        case "literal_error":
            allowed = (
                str(detail["ctx"]["expected"])
                .replace(" or ", ", ")
                .replace("'", "")
                .replace("True", "true")
                .split(", ")
            )
            return unknown("value", value, allowed) if isinstance(value, str) else _expected(value, listed(allowed))
        case "model_type" | "dict_type" | "model_attributes_type":
            return _expected(value, "keys with values")
        case "tuple_type":
            return _expected(value, "a list")
        case "string_type":
            return _expected(value, "text (write numbers in quotes)")
        case "int_type":
            return _expected(value, "a whole number")
        case "float_type":
            return _expected(value, "a number")
        case "bool_type":
            return _expected(value, "true or false")
        case "value_error":
            return f"{shown(value)}: {detail['ctx']['error']}"
    return f"{shown(value)}: {detail['msg']}"


def _expected(value: object, what: str) -> str:
    return f"{shown(value)}: expected {what}"
