"""Writes block conditions as deny rules, and revocations.

A revocation of a client or user holds for tokens that were issued up to its time. One that tells no
time holds for all of its tokens, and one of an unknown kind for a client and a user of that name.

A user is blocked as ``user@tenant``. A token may name a user of the super tenant with or without
``@carbon.super``, so both are refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from extauthz.catalog.wso2.rows import Rows
from extauthz.catalog.wso2.shapes import SUPER_TENANT, IpBlock
from extauthz.catalog.wso2.writing.naming import find_fault
from extauthz.catalog.wso2.writing.report import Report

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_MS: Final = 1000
_EARLIEST_MS: Final = 100_000_000_000
"""In 1973: what is smaller is no time in milliseconds."""
_LATEST_MS: Final = 253_402_300_798_000
"""The end of the year 9999."""
_EVERYTHING: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def write_deny_rules(
    rows: Rows, apis: Mapping[str, Mapping[str, Any]], applications: set[str], report: Report
) -> list[dict[str, Any]]:
    """The deny rules."""
    by_context = {api["context"]: api for api in apis.values()}
    written: list[dict[str, Any]] = []
    for block in rows.blocks:
        for context in block.api:
            api = by_context.get(f"/{context.strip('/')}")
            if api is None:
                report.leave_out(f"the block of the API at {context!r}", "fits no API here")
            else:
                written.append({"api": api["name"], "version": api["version"]})
        for name in block.application:
            if name in applications:
                written.append({"application": name})
            else:
                report.leave_out(f"the block of application {name!r}", "fits none here")
        for user in block.user:
            if find_fault(user):
                report.leave_out("the block of a user", find_fault(user))
                continue
            written += ({"user": name} for name in _spell_user(user))
        for ip in block.ip:
            try:
                written += ({"ip": str(network)} for network in _list_networks(ip))
            except ValueError as exc:
                report.leave_out("the block of an address", f"cannot be read: {exc}")
        for key in block.custom:
            report.leave_out(f"the block of the custom key {key!r}", "is not enforced")
    return [dict(rule) for rule in dict.fromkeys(tuple(rule.items()) for rule in written)]


def _spell_user(user: str) -> Iterator[str]:
    yield user
    name, _, tenant = user.rpartition("@")
    if tenant == SUPER_TENANT and name:
        yield name


def _list_networks(block: IpBlock) -> list[_Network]:
    """The networks that are refused.

    Raises:
        ValueError: the block names no addresses.
    """
    if block.fixed:
        networks: list[_Network] = [ipaddress.ip_network(block.fixed.strip(), strict=False)]
    elif block.first and block.last:
        first = ipaddress.ip_address(block.first.strip())
        last = ipaddress.ip_address(block.last.strip())
        networks = list(ipaddress.summarize_address_range(first, last))
    else:
        raise ValueError("it names no address")
    return _invert(networks) if block.invert else networks


def _invert(networks: list[_Network]) -> list[_Network]:
    """All other addresses of both versions."""
    others: list[_Network] = list(_EVERYTHING)
    for network in networks:
        left: list[_Network] = []
        for other in others:
            if other.version != network.version or not network.overlaps(other):
                left.append(other)
            elif network != other and network.subnet_of(other):  # type: ignore[arg-type]
                left += other.address_exclude(network)  # type: ignore[arg-type]
        others = left
    return others


def write_revoked(rows: Rows, report: Report) -> list[dict[str, Any]]:
    """The revoked tokens."""
    written: dict[str, dict[str, Any]] = {}
    for row in rows.revoked.tokens:
        if find_fault(row.token_id):
            report.leave_out("a revoked token", find_fault(row.token_id))
            continue
        document: dict[str, Any] = {"jti": row.token_id}
        if _EARLIEST_MS < row.expires_ms < _LATEST_MS:
            document["expires"] = _write_moment(row.expires_ms)
        written[row.token_id] = document
    tokens = sorted(written.values(), key=lambda it: str(it["jti"]))
    return [*tokens, *_write_revoked_for_all(rows, report)]


def _write_revoked_for_all(rows: Rows, report: Report) -> list[dict[str, Any]]:
    """Consumer keys and users whose tokens up to a moment were revoked."""
    revoked = rows.revoked
    named = [("consumer_key", it.consumer_key, it.revoked_ms) for it in revoked.consumer_keys]
    for row in revoked.subjects:
        kind = row.type.strip().upper()
        if kind != "USER_ID":
            named.append(("consumer_key", row.id, row.revoked_ms))
        if kind != "CLIENT_ID":
            named += (("user", name, row.revoked_ms) for name in _spell_user(row.id))
    latest: dict[tuple[str, str], int] = {}
    for kind, name, moment_ms in named:
        if find_fault(name):
            report.leave_out(f"the revocation of a {kind}", find_fault(name))
            continue
        until_ms = moment_ms if _EARLIEST_MS < moment_ms < _LATEST_MS else _LATEST_MS
        latest[kind, name] = max(until_ms, latest.get((kind, name), 0))
    # Those that were issued at that moment are revoked, too.
    return [
        {kind: name, "issued_before": _write_moment(moment_ms + 1)}
        for (kind, name), moment_ms in sorted(latest.items())
    ]


def _write_moment(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // _MS, UTC)
    return moment.replace(microsecond=milliseconds % _MS * _MS).isoformat(timespec="milliseconds")
