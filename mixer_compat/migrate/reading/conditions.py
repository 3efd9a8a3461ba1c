"""Converts a match expression to alternatives of simple tests.

The result is a disjunction of conjunctions: the rule matches when all tests of one alternative
hold. Anything else than a simple test is `Unclear`: when it is left out, the alternative matches
more requests, never fewer. An attribute without a value is empty text, as in Mixer's maps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import product
from typing import Final

from mixer_compat.migrate.reading.expressions import (
    Attribute,
    Call,
    Expression,
    Literal,
    Not,
    Operation,
    list_attributes,
    list_defaults,
    read_expression,
)

MAX_ALTERNATIVES: Final = 64


class How(Enum):
    """The kind of a comparison of texts."""

    EQUALS = "equals"
    STARTS_WITH = "starts with"
    ENDS_WITH = "ends with"
    MATCHES = "matches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison of one attribute with a constant.

    Attributes:
        default: the text that replaces a missing value of the attribute.
    """

    subject: Attribute
    how: How
    value: str
    negated: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """A condition that is not a simple test; `about` names its attributes."""

    about: str


Condition = Comparison | Unclear
Alternative = tuple[Condition, ...]
"""Conditions that must all hold; an empty alternative always holds."""

ALWAYS: Final[tuple[Alternative, ...]] = ((),)


def read_match(text: str) -> tuple[Alternative, ...]:
    """Reads the alternatives of a rule's match; there are none when it can never hold.

    Raises:
        ExpressionError: the text is not an expression of Mixer.
    """
    return ALWAYS if not text.strip() else _alternatives(read_expression(text), negated=False)


def _alternatives(expression: Expression, *, negated: bool) -> tuple[Alternative, ...]:
    match expression:
        case Literal(value=bool(value)):
            return ALWAYS if value is not negated else ()
        case Not(inner=inner):
            return _alternatives(inner, negated=not negated)
        case Operation(operator="&&" | "||" as operator, left=left, right=right):
            first = _alternatives(left, negated=negated)
            second = _alternatives(right, negated=negated)
            if (operator == "||") is not negated:
                found = tuple(dict.fromkeys((*first, *second)))
            else:
                if len(first) * len(second) > MAX_ALTERNATIVES:
                    return _unclear(expression)
                found = tuple(
                    dict.fromkeys(
                        tuple(dict.fromkeys((*one, *other)))
                        for one, other in product(first, second)
                    )
                )
            return found if len(found) <= MAX_ALTERNATIVES else _unclear(expression)
        case Operation(operator="==" | "!=" as operator, left=left, right=right):
            return _compare(expression, left, right, negated=negated is not (operator == "!="))
        case Call():
            test = _read_call(expression)
            return _unclear(expression) if test is None else ((replace(test, negated=negated),),)
        case Attribute():
            test = Comparison(subject=expression, how=How.EQUALS, value="true", negated=negated)
            return ((test,),)
        case _:
            return _unclear(expression)


def _compare(
    whole: Expression, left: Expression, right: Expression, *, negated: bool
) -> tuple[Alternative, ...]:
    if isinstance(left, Literal) and not isinstance(right, Literal):
        left, right = right, left
    if isinstance(right, Literal) and isinstance(right.value, bool):
        # A comparison with a boolean, like match(…) == false.
        return _alternatives(left, negated=negated is not (right.value is False))
    value = _read_constant(right)
    subject = _read_subject(left)
    if value is None or subject is None:
        return _unclear(whole)
    attribute, default = subject
    return (
        (
            Comparison(
                subject=attribute, how=How.EQUALS, value=value, negated=negated, default=default
            ),
        ),
    )


def _read_call(call: Call) -> Comparison | None:
    """Reads a call of startsWith, endsWith, matches or match; None for any other call."""
    if call.name == "match" and call.target is None and len(call.arguments) == 2:
        subject, pattern = _read_subject(call.arguments[0]), _read_constant(call.arguments[1])
        if subject is None or pattern is None:
            return None
        if pattern.endswith("*"):
            return _test(subject, How.STARTS_WITH, pattern[:-1])
        if pattern.startswith("*"):
            return _test(subject, How.ENDS_WITH, pattern[1:])
        return _test(subject, How.EQUALS, pattern)
    if call.target is None or len(call.arguments) != 1:
        return None
    (argument,) = call.arguments
    if call.name == "matches":
        # The usual form is "pattern".matches(attribute), but the reverse occurs as well.
        pattern, subject = _read_constant(call.target), _read_subject(argument)
        if pattern is None:
            pattern, subject = _read_constant(argument), _read_subject(call.target)
        return None if pattern is None or subject is None else _test(subject, How.MATCHES, pattern)
    how = {"startsWith": How.STARTS_WITH, "endsWith": How.ENDS_WITH}.get(call.name)
    subject, value = _read_subject(call.target), _read_constant(argument)
    return None if how is None or subject is None or value is None else _test(subject, how, value)


def _test(subject: tuple[Attribute, str], how: How, value: str) -> Comparison:
    return Comparison(subject=subject[0], how=how, value=value, default=subject[1])


def _read_subject(expression: Expression) -> tuple[Attribute, str] | None:
    """Reads an attribute and the default for a missing value; None for other expressions."""
    alternatives = list_defaults(expression)
    first, rest = alternatives[0], alternatives[1:]
    if not isinstance(first, Attribute) or len(rest) > 1:
        return None
    default = _read_constant(rest[0]) if rest else ""
    return None if default is None else (first, default)


def _read_constant(expression: Expression) -> str | None:
    match expression:
        case Literal(value=bool()):
            return None
        case Literal(value=value):
            return str(value)
        case Call(
            name="ip" | "timestamp" | "dnsName" | "email" | "uri",
            target=None,
            arguments=(Literal(value=str(value)),),
        ):
            return value
        case _:
            return None


def _unclear(expression: Expression) -> tuple[Alternative, ...]:
    names = list(dict.fromkeys(map(str, list_attributes(expression))))
    return ((Unclear(about=", ".join(names) or "a constant"),),)
