"""Builds tiers, custom limits and deny rules from documents.

`per: day` (week, month, year) counts by the calendar, in UTC unless a time zone is named;
`per: 1d` is any 24 hours. No tier and no condition group may have two limits that would share a
counter. A condition group must have a limit, so that fitting one never lifts all limits.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from extauthz.catalog.documents.build_conditions import build_conditions
from extauthz.catalog.documents.faults import CatalogFile, Faults, find_hint
from extauthz.catalog.documents.limit_shapes import (
    BurstDocument,
    ConditionGroupDocument,
    LimitDocument,
    TierDocument,
)
from extauthz.catalog.documents.networks import read_network
from extauthz.catalog.documents.shapes import DenyDocument
from extauthz.documents.document import read_duration_us
from extauthz.documents.lines import NodePath, write_path
from extauthz.documents.messages import show_name, suggest
from extauthz.model.catalog import UNLIMITED_TIER, CustomLimit
from extauthz.model.deny_rules import DenyRule
from extauthz.model.issuers import Issuer
from extauthz.model.limits import (
    MAX_BURST,
    US_PER_S,
    Algorithm,
    CalendarUnit,
    ConditionGroup,
    Limit,
    QuotaUnit,
    Tier,
)
from extauthz.policy.limits.keys import check_template

_LOG = logging.getLogger(__name__)

_DAY_US: Final = 86_400 * US_PER_S
_LONGEST_US: Final[Mapping[CalendarUnit, int]] = {
    CalendarUnit.DAY: _DAY_US,
    CalendarUnit.WEEK: 7 * _DAY_US,
    CalendarUnit.MONTH: 31 * _DAY_US,
    CalendarUnit.YEAR: 366 * _DAY_US,
}
_UNITS: Final = {unit.value: unit for unit in CalendarUnit}


def build_tiers(files: Sequence[CatalogFile], faults: Faults) -> dict[str, Tier]:
    """Every tier by its name. Unlimited is there even when no file defines it."""
    tiers: dict[str, Tier] = {}
    for file in files:
        for name, document in file.document.tiers.items():
            path = ("tiers", name)
            if name in tiers:
                faults.add(file, path, f"tier {show_name(name)} is in another file too; remove one")
                continue
            tiers[name] = _build_tier(file, path, name, document, faults)
    tiers.setdefault(UNLIMITED_TIER, Tier(name=UNLIMITED_TIER))
    return tiers


def find_tier(
    tiers: Mapping[str, Tier], name: str | None, file: CatalogFile, path: NodePath, faults: Faults
) -> Tier | None:
    """The tier that a node names; None for no name, and with a fault for an unknown one."""
    if name is None:
        return None
    tier = tiers.get(name)
    if tier is None:
        faults.add_unknown(file, path, "tier", name, tiers)
    return tier


def _build_tier(
    file: CatalogFile, path: NodePath, name: str, document: TierDocument, faults: Faults
) -> Tier:
    limits, burst = _build_limits(file, path, document.limits, document.burst, faults)
    groups: dict[str, ConditionGroup] = {}
    for position, written in enumerate(document.conditions):
        at = (*path, "conditions", position)
        group = _build_group(file, at, written.name or f"condition-{position + 1}", written, faults)
        if group.name in groups:
            faults.add(
                file, at, f"condition group {show_name(group.name)} is there already; rename one"
            )
        groups[group.name] = group
    return Tier(
        name=name,
        limits=limits,
        burst=burst,
        per_user=document.per_user,
        stop_on_quota_reach=document.stop_on_quota_reach,
        on_outage=document.on_outage,
        conditions=tuple(groups.values()),
    )


def _build_group(
    file: CatalogFile, path: NodePath, name: str, document: ConditionGroupDocument, faults: Faults
) -> ConditionGroup:
    if not document.limits and document.burst is None:
        faults.add(
            file,
            path,
            "has no limit, so whoever fits it would have none; add limits or burst",
        )
    limits, burst = _build_limits(file, path, document.limits, document.burst, faults)
    when = build_conditions(file, (*path, "when"), document.when, faults)
    return ConditionGroup(name=name, when=when, limits=limits, burst=burst)


def _build_limits(
    file: CatalogFile,
    path: NodePath,
    documents: Sequence[LimitDocument],
    burst_document: BurstDocument | None,
    faults: Faults,
) -> tuple[tuple[Limit, ...], Limit | None]:
    """Limits that are counted side by side, and their burst."""
    limits: list[Limit] = []
    burst = None
    rules: set[str] = set()
    if burst_document is not None:
        burst = Limit(
            algorithm=Algorithm.BURST,
            requests=burst_document.requests,
            window_us=burst_document.per,
            shadow=burst_document.shadow,
        )
        rules.add(burst.rule)
    for position, written in enumerate(documents):
        at = (*path, "limits", position)
        limit = _build_limit(file, at, written, faults)
        if limit is None:
            continue
        if limit.rule in rules:
            faults.add(file, at, "counts by the same period as another limit here; keep one")
        rules.add(limit.rule)
        limits.append(limit)
    return tuple(limits), burst


def _build_limit(
    file: CatalogFile, path: NodePath, document: LimitDocument, faults: Faults
) -> Limit | None:
    quota = _find_quota(file, path, document, faults)
    if quota is None:
        return None
    requests, quota_unit = quota
    unit = _UNITS.get(document.per)
    if unit is None:
        return _build_window(file, path, document, requests, quota_unit, faults)
    if document.algorithm not in (None, Algorithm.CALENDAR):
        faults.add(
            file,
            (*path, "algorithm"),
            f"per: {unit.value} counts by the calendar; remove algorithm, or write per: 1d",
        )
        return None
    zone = _find_zone(file, (*path, "timezone"), document.timezone or "UTC", faults)
    if zone is None:
        return None
    return Limit(
        algorithm=Algorithm.CALENDAR,
        requests=requests,
        quota_unit=quota_unit,
        window_us=_LONGEST_US[unit],
        unit=unit,
        timezone=zone,
        shadow=document.shadow,
    )


def _find_quota(
    file: CatalogFile, path: NodePath, document: LimitDocument, faults: Faults
) -> tuple[int, QuotaUnit] | None:
    """Reads the number and the unit of a limit."""
    match document.requests, document.bytes:
        case int(requests), None:
            return requests, QuotaUnit.REQUESTS
        case None, int(size):
            _LOG.warning(
                "%s: %s: bytes are counted from reports of finished requests: the limit holds only "
                "where Envoy's access logs (`usage` in the settings) or Mixer's metrics arrive",
                file.source.file,
                write_path(path),
            )
            return size, QuotaUnit.BYTES
        case None, None:
            faults.add(file, path, "does not say how many; add requests or bytes")
        case _:
            faults.add(file, path, "has both requests and bytes; write two limits")
    return None


def _build_window(
    file: CatalogFile,
    path: NodePath,
    document: LimitDocument,
    requests: int,
    quota_unit: QuotaUnit,
    faults: Faults,
) -> Limit | None:
    try:
        window_us = read_duration_us(document.per)
    except ValueError as exc:
        units = suggest(document.per, list(_UNITS))
        hint = units if units.startswith("; did") else f"; or one of {', '.join(_UNITS)}"
        faults.add(file, (*path, "per"), f"{exc}{hint}")
        return None
    if window_us == 0:
        faults.add(file, (*path, "per"), "must be longer than nothing")
        return None
    if document.algorithm is Algorithm.CALENDAR:
        faults.add(
            file,
            (*path, "per"),
            "algorithm calendar counts per day, week, month or year; write one of them",
        )
        return None
    if document.timezone is not None:
        faults.add(
            file, (*path, "timezone"), "is for per: day, week, month or year only; remove it"
        )
        return None
    if document.algorithm is Algorithm.BURST and quota_unit is QuotaUnit.BYTES:
        faults.add(
            file,
            (*path, "algorithm"),
            "bytes are charged after the response, and a burst forgets what is past it; "
            "write sliding_window or fixed_window",
        )
        return None
    if document.algorithm is Algorithm.BURST and requests > MAX_BURST:
        faults.add(file, (*path, "requests"), f"a burst is at most {MAX_BURST}; write less")
        return None
    return Limit(
        algorithm=document.algorithm or Algorithm.SLIDING_WINDOW,
        requests=requests,
        quota_unit=quota_unit,
        window_us=window_us,
        shadow=document.shadow,
    )


def _find_zone(file: CatalogFile, path: NodePath, name: str, faults: Faults) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # OSError: the name of a folder of zones, like "Europe"; ValueError: "../x", NUL.
        faults.add(
            file, path, f"there is no time zone {show_name(name)}; write one like Europe/Berlin"
        )
        return None


def build_custom_limits(
    files: Sequence[CatalogFile],
    tiers: Mapping[str, Tier],
    apis: Mapping[tuple[str, str], object],
    faults: Faults,
) -> tuple[CustomLimit, ...]:
    """Every limit by a key of its own."""
    names = {name for name, _ in apis}
    limits: dict[str, CustomLimit] = {}
    for file in files:
        for position, document in enumerate(file.document.custom_limits):
            path = ("custom_limits", position)
            if document.name in limits:
                faults.add(
                    file,
                    (*path, "name"),
                    f"custom limit {show_name(document.name)} is there already; rename one",
                )
            wrong = check_template(document.key)
            if wrong is not None:
                faults.add(file, (*path, "key"), wrong)
            tier = find_tier(tiers, document.tier, file, (*path, "tier"), faults)
            when = build_conditions(file, (*path, "when"), document.when, faults)
            for nth, api in enumerate(document.apis):
                if api not in names:
                    faults.add_unknown(file, (*path, "apis", nth), "API", api, names)
            if tier is not None:
                limits[document.name] = CustomLimit(
                    name=document.name,
                    template=document.key,
                    tier=tier,
                    when=when,
                    apis=frozenset(document.apis),
                )
    return tuple(limits.values())


def build_deny_rules(
    files: Sequence[CatalogFile],
    apis: Mapping[tuple[str, str], object],
    applications: Collection[str],
    issuers: Mapping[str, Issuer],
    faults: Faults,
) -> tuple[DenyRule, ...]:
    """Every deny rule. It may name an application that only tokens know, but no unknown API."""
    names = {name for name, _ in apis}
    only_tokens_know = any(issuer.subscriptions_from_token for issuer in issuers.values())
    folded = {name.casefold(): name for name in applications}
    rules: list[DenyRule] = []
    for file in files:
        for position, document in enumerate(file.document.deny):
            path = ("deny", position)
            if document.api is None and document.version is not None:
                faults.add(file, (*path, "version"), "is of no API; add api")
            elif document.api is not None and document.api not in names:
                faults.add_unknown(file, (*path, "api"), "API", document.api, names)
            elif (
                document.api is not None
                and document.version is not None
                and (document.api, document.version) not in apis
            ):
                known = [version for name, version in apis if name == document.api]
                what = f"version of {document.api}"
                faults.add_unknown(file, (*path, "version"), what, document.version, known)
            application = document.application
            if application is not None and application not in applications:
                near = folded.get(application.casefold())
                if near is not None or not only_tokens_know:
                    whom = "everybody" if document.invert else "nobody"
                    hint = find_hint(application, applications if near is None else [near])
                    message = f"no application has this name, so the rule refuses {whom}{hint}"
                    faults.warn(file, (*path, "application"), message)
            conditions = _write_conditions(document)
            if not conditions:
                faults.add(
                    file,
                    path,
                    "has no condition and would refuse everything; "
                    "add ip, application, api or user",
                )
            rules.append(
                DenyRule(
                    name=document.name or conditions,
                    network=None
                    if document.ip is None
                    else read_network(file, (*path, "ip"), document.ip, faults),
                    api=document.api,
                    version=document.version,
                    application=document.application,
                    user=document.user,
                    invert=document.invert,
                )
            )
    return tuple(rules)


def _write_conditions(document: DenyDocument) -> str:
    conditions = [
        f"{key} {value}"
        for key in ("ip", "api", "version", "application", "user")
        if (value := getattr(document, key)) is not None
    ]
    return ("not " if document.invert and conditions else "") + ", ".join(conditions)
