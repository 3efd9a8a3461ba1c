"""Writes key managers as issuers.

The key manager of a token is found by its exact ``iss``. Two key managers with one issuer and the same
keys, in two tenants, become one issuer: their consumer keys are both known under it. With other keys,
the later one is left out, so that a tenant cannot sign tokens for another one's applications.

A key manager's PEM stands in its configuration; an issuer reads it from a file. Such files are
returned by name, for the caller to write beside the document.

Source: wso2/carbon-apimgt, APIConstants.KeyManager (names in the configuration).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from extauthz.catalog.wso2.rows import Rows
from extauthz.catalog.wso2.shapes import SUPER_TENANT, KeyManagerRow
from extauthz.catalog.wso2.writing.report import Report

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512"]
_RESIDENT_TYPE: Final = "default"
_DEFAULT_CLAIM: Final = "azp"


@dataclass(slots=True)
class Issuers:
    """All issuers.

    Attributes:
        documents: in their order.
        files: the text of each file that they name, by its name.
        by_key_manager: from tenant and name of a key manager to its issuer.
    """

    documents: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    by_key_manager: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resident:
    """How API Manager's own key manager is asked about opaque tokens.

    Attributes:
        ca_file: PEM of the authorities of its certificate; empty for the system's.
    """

    introspection_url: str
    username: str
    password_file: str
    ca_file: str = ""


def write_issuers(rows: Rows, resident: Resident | None, report: Report) -> Issuers:
    """The issuers of all key managers that are enabled."""
    issuers = Issuers()
    known: dict[str, tuple[str, str]] = {}
    introspects = False
    for (tenant, name), row in sorted(rows.key_managers.items(), key=_rank):
        if not row.enabled:
            continue
        what = f"key manager {name!r} of {tenant}"
        issuer = _read(row, "issuer")
        if not issuer:
            report.leave_out(what, "has no issuer: its tokens are refused")
            continue
        if issuer in known:
            if known[issuer] == _read_keys(row):
                issuers.by_key_manager[tenant, name] = issuer
            else:
                report.leave_out(
                    what, "has the issuer of another one, with other keys: its tokens are refused"
                )
            continue
        issuers.by_key_manager[tenant, name] = issuer
        document = {"issuer": issuer, "allow_any_audience": True, "algorithms": ALGORITHMS}
        _add_claims(document, row)
        has_keys = _add_keys(document, row, issuers.files, what, report)
        if resident is not None and not introspects and row.type.lower() == _RESIDENT_TYPE:
            introspects = True
            document["introspection"] = {
                "url": resident.introspection_url,
                "client_id": resident.username,
                "client_secret_file": resident.password_file,
            }
        if resident is not None and resident.ca_file and row.type.lower() == _RESIDENT_TYPE:
            document["tls"] = {"ca": resident.ca_file}
        if not has_keys and "introspection" not in document:
            report.leave_out(what, "has neither keys nor introspection: its tokens are refused")
            del issuers.by_key_manager[tenant, name]
            continue
        known[issuer] = _read_keys(row)
        issuers.documents.append(document)
    return issuers


def _rank(entry: tuple[tuple[str, str], KeyManagerRow]) -> tuple[bool, bool, tuple[str, str]]:
    """The super tenant's first, and its own first of all: no tenant takes their issuers over."""
    key, row = entry
    return key[0] != SUPER_TENANT, row.type.lower() != _RESIDENT_TYPE, key


def _read(row: KeyManagerRow, *names: str) -> str:
    for name in names:
        value = row.configuration.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _add_claims(document: dict[str, Any], row: KeyManagerRow) -> None:
    consumer_key = _read(row, "consumer_key_claim", "consumerKeyClaim") or _DEFAULT_CLAIM
    scopes = _read(row, "scopes_claim", "scopesClaim") or "scope"
    mapped = _read_mappings(row)
    document["claims"] = {
        "consumer_key": list(dict.fromkeys([consumer_key, "client_id", "consumerKey"])),
        "scopes": [mapped.get("scope", scopes)],
        "user": [mapped.get("http://wso2.org/claims/enduser", "sub")],
    }
    if mapped:
        document["claims"]["mappings"] = {remote: local for local, remote in mapped.items()}


def _read_mappings(row: KeyManagerRow) -> Mapping[str, str]:
    """From the name of a claim in API Manager to the one in tokens."""
    written = row.configuration.get("claim_mappings") or row.configuration.get("claimMapping")
    mapped: dict[str, str] = {}
    for entry in written if isinstance(written, list) else ():
        if isinstance(entry, dict):
            remote, local = entry.get("remoteClaim"), entry.get("localClaim") or entry.get("Claim")
            if isinstance(remote, str) and isinstance(local, str) and remote and local:
                mapped[local] = remote
    return mapped


def _add_keys(
    document: dict[str, Any],
    row: KeyManagerRow,
    files: dict[str, str],
    what: str,
    report: Report,
) -> bool:
    kind, value = _read_keys(row)
    if not value:
        return False
    if kind == "JWKS":
        document["jwks_url"] = value
        return True
    pem = _read_pem(value)
    if pem is None:
        report.leave_out(what, f"has a certificate of type {kind!r} that is no PEM")
        return False
    name = f"{hashlib.sha256(pem.encode()).hexdigest()[:16]}.pem"
    files[name] = pem
    document["pem_file"] = name
    return True


def _read_keys(row: KeyManagerRow) -> tuple[str, str]:
    """The kind of a key manager's keys (JWKS or PEM), and where or what they are."""
    kind = _read(row, "certificate_type", "certificateType").upper()
    value = _read(row, "certificate_value", "certificateValue")
    certificates = row.configuration.get("certificates")
    if not value and isinstance(certificates, dict):
        kind, value = str(certificates.get("type", "")).upper(), str(certificates.get("value", ""))
    return kind, value


def _read_pem(value: str) -> str | None:
    """PEM as it is, or in Base64."""
    if "-----BEGIN" in value:
        return value
    try:
        text = base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return text if "-----BEGIN" in text else None
