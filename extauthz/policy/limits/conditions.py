"""Evaluates conditions on a request: a group fits when all of its conditions do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from extauthz.model.conditions import LONGEST_VALUE, AddressCondition, Condition, TextSource
from extauthz.model.deny_rules import read_address
from extauthz.model.limits import ConditionGroup
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.request.values import find_claim, find_header, find_query


def find_fitting_groups(
    groups: Iterable[ConditionGroup], limited: LimitedRequest
) -> tuple[ConditionGroup, ...]:
    """The groups whose conditions all fit; empty when the tier's own limits hold."""
    return tuple(group for group in groups if fits_all(group.when, limited))


def ask_address(conditions: Iterable[Condition]) -> bool:
    """Whether one of the conditions is about the client's address."""
    return any(isinstance(condition, AddressCondition) for condition in conditions)


def fits_all(conditions: Iterable[Condition], limited: LimitedRequest) -> bool:
    """Whether every condition fits a request; true when there is none."""
    return all(_fits(condition, limited) for condition in conditions)


def _fits(condition: Condition, limited: LimitedRequest) -> bool:
    if isinstance(condition, AddressCondition):
        family, number = read_address(limited.client_address)
        found = family == condition.family and condition.first <= number <= condition.last
        return found is not condition.invert
    name = condition.name
    match condition.source:
        case TextSource.HEADER:
            value = find_header(limited.request, name)
        case TextSource.QUERY:
            value = find_query(limited.request, name)
        case TextSource.CLAIM:
            value = find_claim(limited.identity, name)
        case _:
            assert_never(condition.source)
    found = 0 < len(value) <= LONGEST_VALUE and condition.pattern.is_in(value)
    return found is not condition.invert
