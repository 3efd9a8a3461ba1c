"""Builds API keys from documents: those of an application, and those that are for one API.

No two keys have the same digest, whoever they belong to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from extauthz.catalog.documents.faults import CatalogFile, Faults
from extauthz.catalog.documents.networks import read_network
from extauthz.catalog.documents.shapes import ApiKeyDocument, BoundApiKeyDocument
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey
from extauthz.model.limits import US_PER_S
from extauthz.model.referers import RefererPattern, read_referer_pattern

_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST_OF_NOTHING: Final = hashlib.sha256(b"").hexdigest()


def add_keys(
    file: CatalogFile,
    path: NodePath,
    documents: Sequence[ApiKeyDocument],
    application: Application,
    keys: dict[bytes, ApiKey],
    faults: Faults,
    *,
    has_pepper: bool,
) -> None:
    """Adds the keys of an application.

    Args:
        keys: all keys so far, by their digest.
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.
    """
    for position, document in enumerate(documents):
        at = (*path, position)
        key = _build_key(file, at, document, application, faults, has_pepper=has_pepper)
        _add_key(file, at, key, keys, faults)


def add_keys_of_apis(
    files: Sequence[CatalogFile],
    applications: Mapping[str, Application],
    keys: dict[bytes, ApiKey],
    faults: Faults,
    *,
    has_pepper: bool,
) -> None:
    """Adds the keys that are for one API; see `add_keys`."""
    for file in files:
        for nth, api in enumerate(file.document.apis):
            bound = (api.name, api.version)
            for position, document in enumerate(api.api_keys):
                at = ("apis", nth, "api_keys", position)
                application = None
                if document.application is not None:
                    application = applications.get(document.application)
                    if application is None:
                        faults.add_unknown(
                            file,
                            (*at, "application"),
                            "application",
                            document.application,
                            applications,
                        )
                key = _build_key(
                    file,
                    at,
                    document,
                    application,
                    faults,
                    has_pepper=has_pepper,
                    api=bound,
                )
                _add_key(file, at, key, keys, faults)


def _add_key(
    file: CatalogFile,
    path: NodePath,
    key: ApiKey | None,
    keys: dict[bytes, ApiKey],
    faults: Faults,
) -> None:
    if key is None:
        return
    other = keys.setdefault(key.digest, key)
    if other is not key:
        holder = (
            f"application {show_name(other.application.name)}"
            if other.application is not None
            else f"API {show_name(' '.join(other.api or ()))}"
        )
        faults.add(file, path, f"is a key of {holder} already; make a new key")


def _build_key(
    file: CatalogFile,
    path: NodePath,
    document: ApiKeyDocument,
    application: Application | None,
    faults: Faults,
    *,
    has_pepper: bool,
    api: tuple[str, str] | None = None,
) -> ApiKey | None:
    if document.hmac_sha256 is not None and not has_pepper:
        faults.add(
            file,
            (*path, "hmac_sha256"),
            "could match no key: the settings have no credentials.api_key_pepper_file",
        )
    if (document.sha256 is None) is (document.hmac_sha256 is None):
        faults.add(file, path, "needs exactly one of sha256 and hmac_sha256")
        return None
    digest = document.sha256 or document.hmac_sha256 or ""
    if _DIGEST.fullmatch(digest) is None:
        name = "sha256" if document.sha256 is not None else "hmac_sha256"
        faults.add(
            file,
            (*path, name),
            "must be 64 hexadecimal digits, the digest of the key and never the key itself; "
            "make it with `extauthz key hash`",
        )
        return None
    if digest.lower() == _DIGEST_OF_NOTHING:
        faults.add(file, (*path, "sha256"), "is the digest of an empty key; make one with a key")
        return None
    networks = [
        read_network(file, (*path, "networks", position), text, faults)
        for position, text in enumerate(document.networks)
    ]
    patterns = [
        _read_pattern(file, (*path, "referer_patterns", position), text, faults)
        for position, text in enumerate(document.referer_patterns)
    ]
    return ApiKey(
        digest=bytes.fromhex(digest),
        application=application,
        api=api,
        user=document.user if isinstance(document, BoundApiKeyDocument) else "",
        key_type=document.key_type,
        scopes=None if document.scopes is None else frozenset(document.scopes),
        networks=tuple(network for network in networks if network is not None),
        referers=document.referers,
        referer_patterns=tuple(pattern for pattern in patterns if pattern is not None),
        expires_at_us=write_us(document.expires),
    )


def _read_pattern(
    file: CatalogFile, path: NodePath, text: str, faults: Faults
) -> RefererPattern | None:
    try:
        return read_referer_pattern(text)
    except ValueError as exc:
        faults.add(file, path, str(exc))
        return None


def write_us(moment: datetime | None) -> int | None:
    """A time in microseconds since the Unix epoch; None for no time."""
    return None if moment is None else round(moment.timestamp() * US_PER_S)
