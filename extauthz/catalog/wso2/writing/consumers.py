"""Writes applications with their keys, and subscriptions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from extauthz.catalog.wso2.rows import Rows, tenant_of
from extauthz.catalog.wso2.shapes import ApiKeyRow, ApplicationRow, KeyMappingRow
from extauthz.catalog.wso2.writing.limits import Tiers, Unreadable
from extauthz.catalog.wso2.writing.naming import find_fault, name_application
from extauthz.catalog.wso2.writing.report import Report
from extauthz.model.identity import KeyType
from extauthz.model.referers import read_referer_pattern
from extauthz.model.subscriptions import SubscriptionState

_KEY_TYPES: Final = {kind.value for kind in KeyType}
_STATES: Final = {state.value for state in SubscriptionState}
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_ACTIVE: Final = "ACTIVE"
_OF_NOTHING: Final = hashlib.sha256(b"").hexdigest()
MAX_ID: Final = 2**63 - 1
"""The largest number of an application that a catalog takes."""


class Applications:
    """The applications that are written.

    Attributes:
        documents: by what identifies their rows.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self._by_number: dict[int, str] = {}
        self.tenants: dict[str, str] = {}

    def add(self, key: str, row: ApplicationRow, document: dict[str, Any]) -> None:
        """Adds one."""
        self.documents[key] = document
        self.tenants[key] = tenant_of(row.organization)
        if row.id:
            self._by_number[row.id] = key

    def find(self, uuid: str, number: int) -> str | None:
        """What identifies the application that a row refers to; None when it is not there."""
        if uuid in self.documents:
            return uuid
        return self._by_number.get(number)


def write_applications(
    rows: Rows,
    tiers: Tiers,
    issuers: Mapping[tuple[str, str], str],
    report: Report,
) -> Applications:
    """The applications, with their consumer keys and API keys."""
    applications = Applications()
    names: set[str] = set()
    for key, row in sorted(rows.applications.items()):
        name = name_application(row)
        what = f"application {name!r}"
        fault = find_fault(name) or ("is there twice" if name in names else "")
        if fault:
            report.leave_out(what, f"{fault}: its keys are refused")
            continue
        try:
            tier = tiers.find("application", tenant_of(row.organization), row.policy)
        except Unreadable as exc:
            report.leave_out(what, f"{exc}: its keys are refused")
            continue
        names.add(name)
        document: dict[str, Any] = {"name": name}
        told = {"display_name": row.name, "owner": row.owner, "uuid": row.uuid}
        document |= {field: text for field, text in told.items() if not find_fault(text)}
        if 0 < row.id <= MAX_ID:
            document["id"] = row.id
        if tier is not None:
            document["tier"] = tier
        applications.add(key, row, document)
    _add_consumer_keys(rows, applications, issuers, report)
    _add_api_keys(rows, applications, report)
    return applications


def _add_consumer_keys(
    rows: Rows,
    applications: Applications,
    issuers: Mapping[tuple[str, str], str],
    report: Report,
) -> None:
    taken: dict[tuple[str, str], str] = {}
    lost = 0
    for _, row in sorted(rows.key_mappings.items()):
        key = applications.find(row.application_uuid, row.application_id)
        if key is None:
            lost += 1
            continue
        issuer = _find_issuer(row, applications.tenants[key], issuers)
        if issuer is None or find_fault(row.consumer_key):
            lost += 1
            continue
        other = taken.setdefault((issuer, row.consumer_key), key)
        if other != key:
            report.leave_out(
                f"a consumer key of application {applications.documents[key]['name']!r}",
                f"belongs to {applications.documents[other]['name']!r} at the same issuer: "
                "its tokens are those of the other",
            )
            continue
        document = {"id": row.consumer_key, "issuer": issuer}
        if row.key_type.upper() in _KEY_TYPES:
            document["key_type"] = row.key_type.upper()
        keys = applications.documents[key].setdefault("consumer_keys", [])
        if document not in keys:
            keys.append(document)
    if lost:
        report.leave_out(
            f"{lost} consumer keys",
            "have no application, or no key manager that is enabled: their tokens are refused",
        )


def _find_issuer(
    row: KeyMappingRow, tenant: str, issuers: Mapping[tuple[str, str], str]
) -> str | None:
    found = issuers.get((tenant, row.key_manager))
    if found is None and not row.key_manager and len(set(issuers.values())) == 1:
        return next(iter(issuers.values()))
    return found


def _add_api_keys(rows: Rows, applications: Applications, report: Report) -> None:
    for _, row in sorted(rows.api_keys.items()):
        if row.status.upper() != _ACTIVE:
            continue
        key = applications.find("", row.application_id)
        digest = read_digest(row.digest)
        if key is None or digest is None:
            report.leave_out(
                f"API key {row.name!r}",
                "belongs to no application" if digest else "has no SHA-256 digest",
            )
            continue
        try:
            document = {"sha256": digest, **_write_restrictions(row)}
        except ValueError as exc:
            report.leave_out(f"API key {row.name!r}", f"is refused: {exc}")
            continue
        if row.key_type.upper() in _KEY_TYPES:
            document["key_type"] = row.key_type.upper()
        applications.documents[key].setdefault("api_keys", []).append(document)


def read_digest(text: str) -> str | None:
    """A SHA-256 digest in lower-case hexadecimal, from that or from Base64; None when it is none."""
    digest = text.lower()
    if not _HEX.fullmatch(text):
        try:
            digest = base64.b64decode(text, validate=True).hex()
        except (binascii.Error, ValueError):
            return None
    return digest if len(digest) == 64 and digest != _OF_NOTHING else None


def _write_restrictions(row: ApiKeyRow) -> dict[str, Any]:
    """Who may use a key.

    Raises:
        ValueError: that cannot be carried over. Without it, the key would be good for more.
    """
    written: dict[str, Any] = {}
    networks = _split(row, "permittedIP")
    if networks:
        # API Manager takes an address with host bits for its network.
        written["networks"] = [str(ipaddress.ip_network(it, strict=False)) for it in networks]
    patterns = _split(row, "permittedReferer")
    for pattern in patterns:
        read_referer_pattern(pattern)
    if patterns:
        written["referer_patterns"] = patterns
    return written


def _split(row: ApiKeyRow, name: str) -> list[str]:
    value = (row.properties or {}).get(name)
    if value is None:
        return []
    if not isinstance(value, str):
        raise ValueError(f"its {name} is no text")  # noqa: TRY004  (of a row, not of our caller)
    return [part.strip() for part in value.split(",") if part.strip()]


def write_subscriptions(
    rows: Rows,
    apis: Mapping[str, Mapping[str, Any]],
    applications: Applications,
    tiers: Tiers,
    report: Report,
) -> list[dict[str, Any]]:
    """The subscriptions whose API and application are there."""
    by_number = {row.id: key for key, row in rows.apis.items() if row.id}
    written: dict[tuple[str, str], dict[str, Any]] = {}
    lost = 0
    for _, row in sorted(rows.subscriptions.items()):
        api_key = row.api_uuid if row.api_uuid in apis else by_number.get(row.api_id, "")
        key = applications.find(row.application_uuid, row.application_id)
        api = apis.get(api_key)
        if key is None or api is None:
            lost += 1
            continue
        state = row.state.strip().upper()
        what = f"the subscription of {applications.documents[key]['name']!r} to {api['name']!r}"
        if state not in _STATES:
            report.leave_out(what, f"is in the unknown state {row.state!r}: it does not count")
            continue
        try:
            tier = tiers.find(
                "subscription", tenant_of(rows.apis[api_key].organization), row.policy
            )
        except Unreadable as exc:
            report.leave_out(what, f"does not count: {exc}")
            continue
        if (api_key, key) in written:
            report.leave_out(what, "is there twice; the first counts")
            continue
        document = {
            "application": applications.documents[key]["name"],
            "api": api["name"],
            "version": api["version"],
            "state": state,
        }
        if tier is not None:
            document["tier"] = tier
        written[api_key, key] = document
    if lost:
        report.leave_out(f"{lost} subscriptions", "have no API or no application here")
    return list(written.values())
