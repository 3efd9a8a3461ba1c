"""Writes throttling policies as tiers.

- Windows are fixed, as those of API Manager's own engine, which knows no calendar: a month is 30 days.
- Unlimited, and a limit of 2147483647, which means it, have no tier.
- ``eventCount`` counts requests here.
- Of an AI quota the number of requests is enforced. Its tokens are not, and the report says so.
- A policy that cannot be read is unreadable as a whole: what needs it is closed, not unlimited.

Source: wso2/carbon-apimgt, APIConstants (time units, quota types, the default policies), and
org.wso2.carbon.apimgt.throttling.siddhi.extension, ThrottleStreamProcessor (windows).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from extauthz.catalog.wso2.rows import Rows
from extauthz.catalog.wso2.shapes import (
    ConditionGroupRow,
    ConditionRow,
    PolicyRow,
    QuotaLimit,
)
from extauthz.catalog.wso2.writing.naming import find_fault, name_tier
from extauthz.catalog.wso2.writing.report import Report

UNLIMITED: Final = "Unlimited"
NO_LIMIT: Final = 2_147_483_647
"""Java's largest int, with which policies say that there is no limit."""
MAX_REQUESTS: Final = 10**12
MAX_BURST: Final = 94_906_265

_USER_LEVEL: Final = "userlevel"
_SECONDS: Final[Mapping[str, int]] = {
    "sec": 1, "second": 1,
    "min": 60, "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
}  # fmt: skip
_MULTIPLES: Final = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_TEXTS: Final = {
    "header": "header",
    "headers": "header",
    "headercondition": "header",
    "query": "query",
    "queryparameter": "query",
    "queryparametertype": "query",
    "queryparametercondition": "query",
    "jwtclaim": "claim",
    "jwtclaims": "claim",
    "jwtclaimscondition": "claim",
}
_ADDRESSES: Final = frozenset({"ip", "ipspecific", "ipcondition"})
_RANGES: Final = frozenset({"iprange", "iprangecondition"})


class Unreadable(Exception):
    """A policy that cannot be carried over; the text says why."""


class Tiers:
    """The tiers of all policies, by kind, tenant and name of the policy.

    Attributes:
        documents: by the tier's name.
    """

    def __init__(self, rows: Rows, report: Report) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self._unreadable: set[tuple[str, str, str]] = set()
        self._unlimited: set[tuple[str, str, str]] = set()
        for key, row in sorted(rows.policies.items()):
            kind, tenant, _ = key
            name = name_tier(kind, row.name, tenant)
            try:
                document = write_tier(row, report)
            except Unreadable as exc:
                self._unreadable.add(key)
                report.leave_out(f"{kind} policy {row.name!r}", f"{exc}: what uses it is closed")
                continue
            if document is None:
                self._unlimited.add(key)
                continue
            if kind == "application" or (kind == "api" and row.level.lower() == _USER_LEVEL):
                # API Manager's keys of these counters end with the user.
                document["per_user"] = True
            self.documents[name] = document

    def find(self, kind: str, tenant: str, policy: str) -> str | None:
        """The tier of a policy; None when there is no limit.

        Raises:
            Unreadable: the policy is not known, or could not be carried over.
        """
        if policy in {"", UNLIMITED}:
            return None
        key = (kind, tenant, policy)
        if key in self._unlimited:
            return None
        name = name_tier(kind, policy, tenant)
        if name in self.documents:
            return name
        why = "could not be carried over" if key in self._unreadable else "does not exist"
        raise Unreadable(f"its {kind} policy {policy!r} {why}")


def write_tier(row: PolicyRow, report: Report) -> dict[str, Any] | None:
    """A policy as a tier; None when it has no limit.

    Raises:
        Unreadable: it cannot be carried over.
    """
    fault = find_fault(row.name)
    if fault:
        raise Unreadable(fault)
    if row.name == UNLIMITED:
        return None
    document: dict[str, Any] = {}
    what = f"policy {row.name!r}"
    if row.limit is None:
        # Before 4.0 the lists had no limits.
        raise Unreadable("tells no limit (defaultLimit), as releases before 4.0 do not")
    limits = write_limits(row.limit, what, report)
    if limits:
        document["limits"] = limits
    if row.burst > 0 and row.burst != NO_LIMIT:
        if row.burst > MAX_BURST:
            raise Unreadable(f"allows a burst above {MAX_BURST}")
        document["burst"] = {"requests": row.burst, "per": _write_span(row.burst_unit, 1)}
    groups = [_write_group(group, what, report) for group in row.groups]
    if groups:
        document["conditions"] = groups
    if document and not row.stops:
        document["stop_on_quota_reach"] = False
    return document or None


def write_limits(limit: QuotaLimit, what: str, report: Report) -> list[dict[str, Any]]:
    """The limits of one quota; empty for no limit.

    Raises:
        Unreadable: it cannot be carried over.
    """
    if limit.requests is not None:
        counted = limit.requests
        return _write_count(counted.requests, counted.unit, counted.length)
    if limit.events is not None:
        events = limit.events
        return _write_count(events.events, events.unit, events.length)
    if limit.bandwidth is not None:
        return _write_bytes(limit.bandwidth.amount, limit.bandwidth.data_unit,
                            limit.bandwidth.unit, limit.bandwidth.length)  # fmt: skip
    if limit.ai is not None:
        ai = limit.ai
        if ai.total_tokens or ai.prompt_tokens or ai.completion_tokens:
            report.leave_out(what, "limits the tokens of a language model, which is not enforced")
        return _write_count(ai.requests, ai.unit, ai.length) if ai.requests else []
    raise Unreadable(f"has a quota of an unknown type, {limit.quota_type!r}")


def _write_count(number: int, unit: str, length: int) -> list[dict[str, Any]]:
    if number >= NO_LIMIT:
        return []
    if number < 1:
        raise Unreadable(f"allows {number} requests, which is no limit that can be counted")
    return [{"requests": number, **_write_period(unit, length)}]


def _write_bytes(amount: int, data_unit: str, unit: str, length: int) -> list[dict[str, Any]]:
    multiple = _MULTIPLES.get(data_unit.upper())
    if multiple is None:
        raise Unreadable(f"counts data in {data_unit!r}, which is no known unit")
    size = amount * multiple
    if amount >= NO_LIMIT or size > MAX_REQUESTS:
        return []
    if size < 1:
        raise Unreadable(f"allows {amount} {data_unit}, which is no limit that can be counted")
    return [{"bytes": size, **_write_period(unit, length)}]


def _write_period(unit: str, length: int) -> dict[str, str]:
    return {"per": _write_span(unit, length), "algorithm": "fixed_window"}


def _write_span(unit: str, length: int) -> str:
    if length < 1:
        raise Unreadable(f"has a time of {length} {unit}")
    return f"{_SECONDS[_read_unit(unit)] * length}s"


def _read_unit(unit: str) -> str:
    """The name of a unit in the singular. API Manager takes any text for one."""
    word = unit.strip().lower()
    for known in (word, word.removesuffix("s")):
        if known in _SECONDS:
            return {"second": "sec", "minute": "min"}.get(known, known)
    raise Unreadable(f"counts by {unit!r}, which is no known unit of time")


def _write_group(group: ConditionGroupRow, what: str, report: Report) -> dict[str, Any]:
    if group.limit is None:
        raise Unreadable("has a condition group without a limit")
    if not group.conditions:
        raise Unreadable("has a condition group without conditions")
    limits = write_limits(group.limit, what, report)
    if not limits:
        # The catalog has no group without a limit: fitting it would lift all limits.
        limits = [{"requests": MAX_REQUESTS, "per": "1s", "algorithm": "fixed_window"}]
    return {
        "name": f"condition_{group.id}",
        "when": [write_condition(condition) for condition in group.conditions],
        "limits": limits,
    }


def write_condition(row: ConditionRow) -> dict[str, Any]:
    """A condition.

    Raises:
        Unreadable: it cannot be carried over.
    """
    kind = re.sub(r"[^a-z]", "", row.type.lower())
    inverted = {"invert": True} if row.is_inverted else {}
    text = _TEXTS.get(kind)
    if text is not None:
        if not row.name or not row.value:
            raise Unreadable(f"has a condition on a {text} without a name or value")
        # API Manager searches the value for the pattern.
        return {text: {"name": row.name, "matches": row.value}, **inverted}
    value = row.value or row.name
    if kind in _RANGES or (kind in _ADDRESSES and len(_split_range(value)) == 2):
        ends = _split_range(value)
        if len(ends) != 2:
            raise Unreadable(f"has a condition on the addresses {value!r}, which are no range")
        return {"ip_range": {"from": ends[0], "to": ends[1]}, **inverted}
    if kind in _ADDRESSES:
        return {"ip": value, **inverted}
    raise Unreadable(f"has a condition of an unknown type, {row.type!r}")


def _split_range(value: str) -> Sequence[str]:
    return [part.strip() for part in re.split(r"[-,]", value) if part.strip()]
