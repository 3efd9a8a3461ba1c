"""Builds issuers from documents. Key files are read and checked here.

A key file that cannot be used is a problem of the catalog, not an outage at the first token.
Algorithms are asymmetric unless the key is a shared secret, and then only HMAC: with both, a public
key could be used as a shared secret (RFC 8725 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from extauthz.catalog.documents.faults import CatalogFile, Faults
from extauthz.catalog.documents.issuer_shapes import (
    ApiKeyIssuerDocument,
    IntrospectionDocument,
    IssuerDocument,
    IssuerTlsDocument,
    KeyValidationDocument,
)
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name
from extauthz.model.identity import Secret
from extauthz.model.issuers import (
    KEY_VALIDATION_PATH,
    ApiKeySigner,
    ClaimNames,
    IntrospectionEndpoint,
    Issuer,
    KeyLocation,
    KeyValidationEndpoint,
    SignedKeyKind,
)
from extauthz.model.limits import US_PER_S
from extauthz.policy.authentication.verification_keys import (
    HMAC_ALGORITHMS,
    KeySet,
    fits,
    read_hmac_secret,
    read_jwks,
    read_pem,
)

_LOCAL: Final = ("jwks_file", "jwks", "pem_file", "pem")
_PLACES: Final = ("jwks_url", "discovery", *_LOCAL, "hmac_secret_file")
MAX_SIGNERS: Final = 8
"""Signers of API keys that are tried."""
MAX_ASKED: Final = 8
"""Issuers that are asked about an opaque token."""
_DISCOVERY_PATH: Final = "/.well-known/openid-configuration"


def build_issuers(files: Sequence[CatalogFile], faults: Faults) -> dict[str, Issuer]:
    """Every issuer by its name."""
    issuers: dict[str, Issuer] = {}
    asked: list[IssuerDocument] = []
    for file in files:
        for position, document in enumerate(file.document.issuers):
            path = ("issuers", position)
            if document.issuer in issuers:
                faults.add(
                    file,
                    (*path, "issuer"),
                    f"issuer {show_name(document.issuer)} is there already; remove one",
                )
            if document.issuer == "*":
                faults.add(file, (*path, "issuer"), "must be the text of the iss claim, not *")
            if document.introspection is not None and document.key_validation is not None:
                faults.add(
                    file, (*path, "key_validation"), "contradicts introspection; remove one of them"
                )
            elif document.asking is not None:
                asked.append(document)
                key = "introspection" if document.key_validation is None else "key_validation"
                _check_asked(file, (*path, key), asked, faults)
            issuers[document.issuer] = _build_issuer(file, path, document, faults)
    return issuers


def _check_asked(
    file: CatalogFile, path: NodePath, asked: Sequence[IssuerDocument], faults: Faults
) -> None:
    """Adds a fault for the last of several endpoints if it may not be asked beside the others."""
    askings = [it.asking for it in asked]
    allowed = [asking is not None and asking.allow_foreign_tokens for asking in askings]
    if len(asked) > 1 and not (allowed[0] and allowed[-1]):
        faults.add(
            file,
            path,
            f"issuer {show_name(asked[0].issuer)} has introspection already, and an opaque token "
            "does not say whose it is; keep one, or write allow_foreign_tokens: true in each if "
            "each may see the others' tokens",
        )
    elif len(asked) > MAX_ASKED:
        faults.add(
            file, path, f"is one too many: a token is asked about at {MAX_ASKED} issuers at most"
        )


def _build_issuer(
    file: CatalogFile, path: NodePath, document: IssuerDocument, faults: Faults
) -> Issuer:
    default = "HS256" if document.hmac_secret_file is not None else "RS256"
    algorithms = document.algorithms or (default,)
    keys = _find_keys(file, path, document, algorithms, faults)
    if keys is None and document.asking is None:
        faults.add(
            file,
            path,
            "has neither keys nor introspection; add jwks_url, discovery: true, jwks_file, jwks, "
            "pem_file, pem, hmac_secret_file, introspection or key_validation",
        )
    # API Manager validates a token for one API: no audience says more.
    needs_audiences = keys is not None or document.key_validation is None
    if needs_audiences and not document.audiences and not document.allow_any_audience:
        faults.add(
            file,
            path,
            "audiences is missing: tokens made for others would be taken; add audiences "
            "(or allow_any_audience: true)",
        )
    if document.audiences and document.allow_any_audience:
        faults.add(
            file, (*path, "allow_any_audience"), "contradicts audiences; remove one of the two"
        )
    return Issuer(
        issuer=document.issuer,
        algorithms=algorithms,
        audiences=frozenset(document.audiences),
        keys=keys,
        claims=ClaimNames(
            consumer_key=document.claims.consumer_key,
            scopes=document.claims.scopes,
            user=document.claims.user,
            key_type=document.claims.key_type,
            mappings=tuple(document.claims.mappings.items()),
        ),
        introspection=None
        if document.introspection is None
        else _build_introspection(file, (*path, "introspection"), document.introspection, faults),
        key_validation=None
        if document.key_validation is None
        else _build_key_validation(
            file, (*path, "key_validation"), document.key_validation, faults
        ),
        leeway_s=-(-document.leeway // US_PER_S),
        ttl_us=document.token_ttl,
        refresh_us=document.keys_refresh,
        cooldown_us=document.keys_cooldown,
        # The answer of API Manager names the subscription and its tier.
        subscriptions_from_token=document.subscriptions_from_token
        or document.key_validation is not None,
        ca=""
        if document.tls is None
        else _read_ca(file, (*path, "tls", "ca"), document.tls, faults),
        allow_bound_tokens=document.allow_bound_tokens,
        suspended=document.suspended,
    )


def build_api_key_signers(
    files: Sequence[CatalogFile], issuers: Mapping[str, Issuer], faults: Faults
) -> tuple[ApiKeySigner, ...]:
    """Every signer of API keys. Their keys are in the catalog, so that no key waits for a fetch."""
    signers: dict[str, ApiKeySigner] = {}
    for file in files:
        for position, document in enumerate(file.document.api_key_issuers):
            path = ("api_key_issuers", position)
            if document.name in signers or document.name in issuers:
                faults.add(
                    file,
                    (*path, "name"),
                    f"issuer {show_name(document.name)} is there already; rename one",
                )
            if len(signers) == MAX_SIGNERS:
                faults.add(file, path, f"is one too many: there may be {MAX_SIGNERS}")
            algorithms = document.algorithms or ("RS256",)
            keys = _find_keys(file, path, document, algorithms, faults)
            if keys is None:
                faults.add(file, path, "has no keys; add pem, pem_file, jwks or jwks_file")
            signers[document.name] = ApiKeySigner(
                issuer=Issuer(
                    issuer=document.name,
                    algorithms=algorithms,
                    keys=keys,
                    leeway_s=-(-document.leeway // US_PER_S),
                    ttl_us=document.token_ttl,
                    # An internal key says in this claim which API it is for.
                    subscriptions_from_token=document.subscriptions_from_key
                    or document.kind is SignedKeyKind.INTERNAL,
                ),
                key_ids=frozenset(document.key_ids),
                kind=document.kind,
            )
    return tuple(signers.values())


def _find_keys(
    file: CatalogFile,
    path: NodePath,
    document: IssuerDocument | ApiKeyIssuerDocument,
    algorithms: Sequence[str],
    faults: Faults,
) -> KeyLocation | None:
    """The location of the keys; None when the document has none."""
    places = [name for name in _PLACES if getattr(document, name, None) not in (None, False)]
    if not places:
        return None
    for extra in places[1:]:
        faults.add(file, (*path, extra), f"is one place of keys too many; keep {places[0]} or this")
    place = places[0]
    is_secret = place == "hmac_secret_file"
    if any((name in HMAC_ALGORITHMS) is not is_secret for name in algorithms):
        faults.add(
            file,
            (*path, "algorithms"),
            "hmac_secret_file takes HS256, HS384 and HS512 only; remove the others"
            if is_secret
            else "HS256, HS384 and HS512 need hmac_secret_file; remove them",
        )
        return KeyLocation()
    at = (*path, place)
    if place in _LOCAL:
        return _read_local_keys(file, at, place, document, algorithms, faults)
    assert isinstance(document, IssuerDocument)
    match place:
        case "jwks_url":
            check_url(file, at, document.jwks_url or "", faults)
            return KeyLocation(jwks_url=document.jwks_url)
        case "discovery":
            url = document.discovery
            if not isinstance(url, str):
                url = document.issuer.rstrip("/") + _DISCOVERY_PATH
            check_url(file, at, url, faults)
            return KeyLocation(discovery_url=url)
        case _:
            name = document.hmac_secret_file or ""
            text = _read_keys(file, at, name, _check_secret, algorithms, faults).rstrip("\r\n")
            return KeyLocation(hmac_secret=Secret(text))


def _read_local_keys(
    file: CatalogFile,
    at: NodePath,
    place: str,
    document: IssuerDocument | ApiKeyIssuerDocument,
    algorithms: Sequence[str],
    faults: Faults,
) -> KeyLocation:
    """Public keys that stand in the catalog, or in a file."""
    match place:
        case "jwks":
            text = json.dumps(document.jwks)
            _check_keys(file, at, place, text, _check_jwks, algorithms, faults)
            return KeyLocation(jwks=text)
        case "pem":
            text = document.pem or ""
            _check_keys(file, at, place, text, read_pem, algorithms, faults)
            return KeyLocation(pem=text)
        case "jwks_file":
            text = _read_keys(file, at, document.jwks_file or "", _check_jwks, algorithms, faults)
            return KeyLocation(jwks=text)
        case _:
            text = _read_keys(file, at, document.pem_file or "", read_pem, algorithms, faults)
            return KeyLocation(pem=text)


def _read_keys(
    file: CatalogFile,
    path: NodePath,
    name: str,
    read: Callable[[str], KeySet],
    algorithms: Sequence[str],
    faults: Faults,
) -> str:
    """The text of a key file whose keys can be used; empty, with a fault, when they cannot."""
    source = faults.read_reference(file, path, name)
    if source is None:
        return ""
    _check_keys(file, path, source.file, source.text, read, algorithms, faults)
    return source.text


def _check_keys(
    file: CatalogFile,
    path: NodePath,
    holder: str,
    text: str,
    read: Callable[[str], KeySet],
    algorithms: Sequence[str],
    faults: Faults,
) -> None:
    """Adds a fault unless the text has a key for one of the algorithms."""
    try:
        keys = read(text).keys
    except ValueError as exc:
        faults.add(file, path, f"{holder} cannot be used: {exc}")
        return
    if not any(fits(key, name) for name in algorithms for key in keys):
        faults.add(
            file,
            path,
            f"{holder} has no key for {', '.join(algorithms)}; change algorithms or the keys",
        )


def _check_jwks(text: str) -> KeySet:
    keys = read_jwks(text.encode())
    private = [reason for reason in keys.left_out if "private key" in reason]
    if private or not keys.keys:
        raise ValueError("; ".join(private or keys.left_out) or "it has no keys")
    return keys


def _check_secret(text: str) -> KeySet:
    return read_hmac_secret(Secret(text.rstrip("\r\n")))


def check_url(file: CatalogFile, path: NodePath, url: str, faults: Faults) -> None:
    """Adds a fault unless it is an http or https URL with a host and without credentials."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_user = parts.username is not None or parts.password is not None
        _ = parts.port
    except ValueError:
        is_good = has_user = False
    if not is_good:
        faults.add(file, path, "needs an http or https URL, like https://idp.example/jwks")
    elif has_user:
        faults.add(file, path, "a URL must not hold a user or password; remove them")


def _read_ca(file: CatalogFile, path: NodePath, document: IssuerTlsDocument, faults: Faults) -> str:
    """The certificates as PEM, one after the other; empty, with a fault, when they are bad."""
    source = faults.read_reference(file, path, document.ca)
    if source is None:
        return ""
    if "PRIVATE KEY-----" in source.text:
        faults.add(file, path, f"{source.file} holds a private key; name the certificate only")
        return ""
    try:
        found = load_pem_x509_certificates(source.text.encode())
    except ValueError:
        faults.add(file, path, f"{source.file} holds no certificate in PEM that can be read")
        return ""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)


def _build_introspection(
    file: CatalogFile, path: NodePath, document: IntrospectionDocument, faults: Faults
) -> IntrospectionEndpoint:
    check_url(file, (*path, "url"), document.url, faults)
    secret = _read_secret(file, (*path, "client_secret_file"), document.client_secret_file, faults)
    return IntrospectionEndpoint(
        url=document.url,
        client_id=document.client_id,
        client_secret=secret,
        credentials_in_body=document.credentials_in_body,
        timeout_us=document.timeout,
        ttl_us=document.ttl,
        inactive_ttl_us=document.inactive_ttl,
        require_token_type=document.require_token_type,
        allow_foreign_tokens=document.allow_foreign_tokens,
    )


def _build_key_validation(
    file: CatalogFile, path: NodePath, document: KeyValidationDocument, faults: Faults
) -> KeyValidationEndpoint:
    check_url(file, (*path, "url"), document.url, faults)
    if ":" in document.username:
        faults.add(file, (*path, "username"), "must have no colon (RFC 7617)")
    has_path = bool(urlsplit(document.url).path.strip("/"))
    return KeyValidationEndpoint(
        url=document.url if has_path else document.url.rstrip("/") + KEY_VALIDATION_PATH,
        username=document.username,
        password=_read_secret(file, (*path, "password_file"), document.password_file, faults),
        timeout_us=document.timeout,
        ttl_us=document.ttl,
        inactive_ttl_us=document.inactive_ttl,
        allow_foreign_tokens=document.allow_foreign_tokens,
    )


def _read_secret(file: CatalogFile, at: NodePath, name: str, faults: Faults) -> Secret:
    source = faults.read_reference(file, at, name)
    secret = "" if source is None else source.text.rstrip("\r\n")
    if source is not None and not secret:
        faults.add(file, at, f"{source.file} is empty; write the secret into it")
    return Secret(secret)
