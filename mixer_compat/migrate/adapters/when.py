"""Converts Mixer's conditions to conditions of a catalog's limits.

A limit can test the client's address, a header, a query parameter and a claim of a verified token.
A condition on anything else is left out, so more requests are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from itertools import product
from typing import Final

from extauthz.model.conditions import Pattern
from mixer_compat.migrate.adapters.targets import fits
from mixer_compat.migrate.reading.conditions import Comparison, Condition, How
from mixer_compat.migrate.reading.expressions import Attribute
from mixer_compat.migrate.writing.draft import WhenDraft

MAX_WAYS: Final = 16
MAX_DEFAULT: Final = 32
"""The most characters of a dimension's default."""

_SECRET_HEADERS: Final = re.compile(
    r"authorization|token|secret|passw|api[-_]?key|^apikey$|^(?:user|app)[-_]?key$"
)
_MOST_CHARACTERS: Final = 1_000


def find_place(attribute: Attribute, *, has_claims: bool) -> tuple[str, str] | None:
    """Finds the part of a request that an attribute stands for.

    Args:
        has_claims: whether the API has tokens, so that claims are verified.

    Returns:
        The source (header, query, claim or ip) and the name; None when no limit can test it.
    """
    match attribute:
        case Attribute(name="source.ip" | "origin.ip", key=None):
            return "ip", ""
        case Attribute(name="request.headers", key=str(name)) if name:
            return "header", name.lower()
        case Attribute(name="request.useragent", key=None):
            return "header", "user-agent"
        case Attribute(name="request.query_params", key=str(name)) if name:
            return "query", name
        case Attribute(name="request.auth.claims", key=str(name)) if name and has_claims:
            return "claim", name
        case _:
            return None


def is_present(source: str, name: str, *, invert: bool = False) -> WhenDraft:
    """A condition that holds for requests with this value; inverted, for those without it."""
    return WhenDraft(source=source, name=name, pattern=".", invert=invert)


def write_whens(
    conditions: Iterable[Condition], left_out: Callable[[Condition], None], *, has_claims: bool
) -> list[tuple[WhenDraft, ...]]:
    """Writes alternative lists of conditions, one of which holds when all given conditions do.

    Args:
        left_out: called with each condition that no limit can test.
        has_claims: whether the API has tokens, so that claims are verified.

    Returns:
        The alternatives; ``[()]`` when nothing is tested.
    """
    each: list[list[tuple[WhenDraft, ...]]] = []
    for condition in conditions:
        ways = _write(condition, has_claims=has_claims)
        if ways is None:
            left_out(condition)
        else:
            each.append(ways)
    count = 1
    for ways in each:
        count *= len(ways)
    if count > MAX_WAYS:
        return [()]
    return [tuple(dict.fromkeys(one for way in ways for one in way)) for ways in product(*each)]


def is_other(source: str, name: str, default: str, *, invert: bool = False) -> WhenDraft:
    """A condition for requests with a value other than the default; inverted, for all others."""
    # RE2 has no look-ahead, so there is one branch for each position of the first difference.
    ways = [f"{_quote(default[:at])}{_any_but(default[at])}" for at in range(len(default))]
    ways += [f"{_quote(default[:at])}$" for at in range(1, len(default))]
    ways.append(f"{_quote(default)}.")
    pattern = f"^(?:{'|'.join(ways)})" if default else "."
    return WhenDraft(source=source, name=name, pattern=pattern, invert=invert)


def _any_but(mark: str) -> str:
    return f"[^\\x{{{ord(mark):x}}}]"


def equals(source: str, name: str, value: str) -> WhenDraft | None:
    """A condition for requests with exactly this value; None when a catalog cannot express it."""
    if source == "ip":
        try:
            return WhenDraft(source="ip", pattern=str(ip_network(value)))
        except ValueError:
            return None
    pattern = f"^{_quote(value)}$"
    return WhenDraft(source=source, name=name, pattern=pattern) if _is_good(pattern, name) else None


def merge(ways: Iterable[tuple[WhenDraft, ...]]) -> tuple[WhenDraft, ...] | None:
    """Merges alternatives into one list of conditions; None when no such list exists."""
    found = list(dict.fromkeys(ways))
    if len(found) == 1:
        return found[0]
    if any(len(way) != 1 for way in found):
        return None
    single = [way[0] for way in found]
    places = {(one.source, one.name, one.invert) for one in single}
    if len(places) != 1 or single[0].source == "ip" or single[0].invert:
        return None
    pattern = "|".join(f"(?:{one.pattern})" for one in single)
    source, name, _ = places.pop()
    if not _is_good(pattern, name):
        return None
    return (WhenDraft(source=source, name=name, pattern=pattern),)


def _write(condition: Condition, *, has_claims: bool) -> list[tuple[WhenDraft, ...]] | None:
    if not isinstance(condition, Comparison):
        return None
    place = find_place(condition.subject, has_claims=has_claims)
    if place is None:
        return None
    source, name = place
    if source == "ip":
        found = equals("ip", "", condition.value) if condition.how is How.EQUALS else None
        if found is None:
            return None
        inverted = WhenDraft(source="ip", pattern=found.pattern, invert=condition.negated)
        return [(inverted,)]
    if _SECRET_HEADERS.search(name) and source != "claim":
        return None  # the value of the comparison may be a credential
    if condition.how is How.EQUALS and condition.value == "" and not condition.default:
        return [(is_present(source, name, invert=not condition.negated),)]
    if condition.how is How.EQUALS and condition.value == "":
        return None  # a catalog treats an empty value as a missing one
    pattern = _write_pattern(condition)
    fits_default = fits(condition.how, condition.default, condition.value)
    if pattern is None or fits_default is None or not _is_good(pattern, name):
        return None
    when = WhenDraft(source=source, name=name, pattern=pattern, invert=condition.negated)
    if not fits_default:
        # A missing value does not match, but does when inverted, as in Mixer.
        return [(when,)]
    present, absent = is_present(source, name), is_present(source, name, invert=True)
    return [(when, present)] if condition.negated else [(when,), (absent,)]


def _write_pattern(condition: Comparison) -> str | None:
    match condition.how:
        case How.EQUALS:
            return f"^{_quote(condition.value)}$"
        case How.STARTS_WITH:
            return f"^{_quote(condition.value)}"
        case How.ENDS_WITH:
            return f"{_quote(condition.value)}$"
        case How.MATCHES:
            return condition.value


def _quote(value: str) -> str:
    return re.sub(r"([\\.^$|?*+()\[\]{}])", r"\\\1", value)


def _is_good(pattern: str, name: str) -> bool:
    for text in (pattern, name):
        if not text.isprintable() or text != text.strip() or len(text) > _MOST_CHARACTERS:
            return False
    try:
        Pattern(pattern)
    except ValueError:
        return False
    return True
