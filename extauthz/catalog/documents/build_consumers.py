"""Builds applications with their keys, and subscriptions, from documents.

No two applications share a name, a key, a client id of one issuer or a certificate. A
subscription names an application, an API and a version that exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from extauthz.catalog.documents.build_api_keys import add_keys, write_us
from extauthz.catalog.documents.build_limits import find_tier
from extauthz.catalog.documents.faults import CatalogFile, Faults
from extauthz.catalog.documents.shapes import (
    ApplicationDocument,
    ConsumerKeyDocument,
    RevokedTokenDocument,
)
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, ClientRegistration, RevokedToken
from extauthz.model.issuers import Issuer
from extauthz.model.limits import Tier
from extauthz.model.subscriptions import Subscriptions
from extauthz.policy.authentication.compact_jws import decode_base64url

ANY_ISSUER: Final = "*"
_REVOKED_BY: Final = ("jti", "signature", "consumer_key", "user")


@dataclass(slots=True, kw_only=True)
class Consumers:
    """Applications and the indexes by which they are found."""

    applications: dict[str, Application] = field(default_factory=dict)
    api_keys: dict[bytes, ApiKey] = field(default_factory=dict)
    consumer_keys: dict[tuple[str, str], ClientRegistration] = field(default_factory=dict)
    certificates: dict[str, ClientRegistration] = field(default_factory=dict)


def build_consumers(
    files: Sequence[CatalogFile],
    tiers: Mapping[str, Tier],
    issuers: Mapping[str, Issuer],
    faults: Faults,
    *,
    has_pepper: bool,
) -> Consumers:
    """Every application with its keys, clients and certificates.

    Args:
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.
    """
    consumers = Consumers()
    for file in files:
        for position, document in enumerate(file.document.applications):
            path = ("applications", position)
            if document.name in consumers.applications:
                faults.add(
                    file,
                    (*path, "name"),
                    f"application {show_name(document.name)} is there already; rename one",
                )
            application = Application(
                name=document.name,
                owner=document.owner,
                display_name=document.display_name,
                uuid=document.uuid,
                number=document.id,
                tier=find_tier(tiers, document.tier, file, (*path, "tier"), faults),
            )
            consumers.applications[document.name] = application
            add_keys(
                file, (*path, "api_keys"), document.api_keys, application, consumers.api_keys,
                faults, has_pepper=has_pepper,
            )  # fmt: skip
            _add_clients(file, path, document, application, consumers, issuers, faults)
    return consumers


def _add_clients(
    file: CatalogFile,
    path: NodePath,
    document: ApplicationDocument,
    application: Application,
    consumers: Consumers,
    issuers: Mapping[str, Issuer],
    faults: Faults,
) -> None:
    for position, client in enumerate(document.consumer_keys):
        at = (*path, "consumer_keys", position)
        issuer = _find_issuer(file, at, client, issuers, faults)
        if issuer is None:
            continue
        registered = consumers.consumer_keys.setdefault(
            (issuer, client.id), made := ClientRegistration(
                application=application, key_type=client.key_type
            ),
        )  # fmt: skip
        if registered is not made:
            other = registered.application.name
            faults.add(
                file,
                (*at, "id"),
                f"is a consumer key of application {show_name(other)} already; remove one",
            )
    for position, certificate in enumerate(document.certificates):
        registered = consumers.certificates.setdefault(
            certificate.principal, made := ClientRegistration(
                application=application, key_type=certificate.key_type
            ),
        )  # fmt: skip
        if registered is not made:
            other = registered.application.name
            faults.add(
                file,
                (*path, "certificates", position, "principal"),
                f"is a certificate of application {show_name(other)} already; remove one",
            )


def _find_issuer(
    file: CatalogFile,
    path: NodePath,
    document: ConsumerKeyDocument,
    issuers: Collection[str],
    faults: Faults,
) -> str | None:
    """The issuer of a consumer key; ``""`` for any; None, with a fault, for an unknown one."""
    if document.issuer == ANY_ISSUER:
        return ""
    if document.issuer is None:
        if len(issuers) == 1:
            return next(iter(issuers))
        faults.add(
            file,
            path,
            f"issuer is missing, and the catalog has {len(issuers) or 'no'} issuers; add issuer "
            '(or issuer: "*" for any)',
        )
        return None
    if document.issuer not in issuers:
        faults.add_unknown(file, (*path, "issuer"), "issuer", document.issuer, issuers)
        return None
    return document.issuer


def build_subscriptions(
    files: Sequence[CatalogFile],
    apis: Mapping[tuple[str, str], Api],
    applications: Mapping[str, Application],
    tiers: Mapping[str, Tier],
    faults: Faults,
) -> Subscriptions:
    """Every subscription by application, API and version."""
    names = {name for name, _ in apis}
    subscriptions = Subscriptions()
    for file in files:
        for position, document in enumerate(file.document.subscriptions):
            application = applications.get(document.application)
            api = apis.get((document.api, document.version))
            tier = tiers.get(document.tier) if document.tier is not None else None
            path = ("subscriptions", position)
            if application is None:
                at = (*path, "application")
                faults.add_unknown(file, at, "application", document.application, applications)
            if tier is None:
                find_tier(tiers, document.tier, file, (*path, "tier"), faults)
            if api is None and document.api not in names:
                faults.add_unknown(file, (*path, "api"), "API", document.api, names)
            elif api is None:
                known = [version for name, version in apis if name == document.api]
                what = f"version of {document.api}"
                faults.add_unknown(file, (*path, "version"), what, document.version, known)
            if application is None or api is None:
                continue
            # The names of the application and the API are shared, not kept a million times.
            terms = subscriptions.share_terms(tier, document.state)
            if not subscriptions.add(application.name, api.name, api.version, terms):
                faults.add(file, path, "this application is subscribed already; remove one")
    return subscriptions


def build_revoked_tokens(files: Sequence[CatalogFile], faults: Faults) -> tuple[RevokedToken, ...]:
    """Builds the revoked tokens. A token may occur several times."""
    return tuple(
        _build_revoked_token(file, ("revoked_tokens", position), document, faults)
        for file in files
        for position, document in enumerate(file.document.revoked_tokens)
    )


def _read_signature(file: CatalogFile, path: NodePath, text: str | None, faults: Faults) -> bytes:
    """The digest of a JWT's signature; of no text it is empty."""
    if text is None:
        return b""
    signature = decode_base64url(text.encode())
    if not signature:
        faults.add(file, path, "is no base64url; write the third part of the token as it is in it")
        return b""
    return hashlib.sha256(signature).digest()


def _build_revoked_token(
    file: CatalogFile, path: NodePath, document: RevokedTokenDocument, faults: Faults
) -> RevokedToken:
    given = [name for name in _REVOKED_BY if getattr(document, name) is not None]
    if len(given) != 1:
        faults.add(file, path, f"needs exactly one of {', '.join(_REVOKED_BY)}")
    names_tokens = "consumer_key" in given or "user" in given
    if names_tokens and document.issued_before is None:
        faults.add(file, path, "needs issued_before: tokens that are issued later are good")
    for name in () if names_tokens else ("issuer", "issued_before"):
        if getattr(document, name) is not None:
            faults.add(file, (*path, name), "is for a consumer_key or user; remove it")
    return RevokedToken(
        token_id=document.jti or "",
        digest=_read_signature(file, (*path, "signature"), document.signature, faults),
        consumer_key=document.consumer_key or "",
        user=document.user or "",
        issuer=document.issuer or "",
        issued_before_us=write_us(document.issued_before) or 0,
        expires_at_us=write_us(document.expires),
    )
