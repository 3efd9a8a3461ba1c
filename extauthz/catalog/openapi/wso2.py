"""Reads the extensions about access that WSO2's products write into OpenAPI documents.

``x-wso2-application-security``, ``x-wso2-mutual-ssl``, ``x-wso2-disable-security``,
``x-auth-type``, ``x-scope`` and the two names of a throttling tier. The nearest statement counts:
operation, then path item, then document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extauthz.catalog.openapi.document import MergedNode, Node, OpenApiDocument
from extauthz.catalog.openapi.security import API_KEY, BEARER, MTLS, is_scope
from extauthz.model.identity import SecurityScheme

_SECURED_AUTH_TYPES: Final = frozenset(
    {"any", "application", "application user", "application & application user"}
)
_TWO_CREDENTIALS: Final = (
    "a client certificate and a token cannot be asked for together: a request is known by one "
    "credential; make one of them optional, or let the proxy require the certificate"
)


def read_tier(document: OpenApiDocument, *nodes: Node | MergedNode) -> str | None:
    """The nearest tier's name; None when there is none, or when it is "Unlimited"."""
    for node in nodes:
        for name in ("x-wso2-throttling-tier", "x-throttling-tier"):
            tier = node.below(name)
            if tier.value is None:
                continue
            if not isinstance(tier.value, str) or not tier.value:
                document.report(tier, "the name of a tier stands here")
                return None
            return None if tier.value.lower() == "unlimited" else tier.value
    return None


def read_is_disabled(document: OpenApiDocument, *nodes: Node | MergedNode) -> bool | None:
    """The nearest statement on whether security is switched off; None when there is none."""
    for node in nodes:
        is_disabled = document.read_flag(node, "x-wso2-disable-security")
        if is_disabled is not None:
            return is_disabled
    return None


def read_is_open(document: OpenApiDocument, operation: Node) -> bool:
    """Whether ``x-auth-type`` lets everybody call an operation."""
    node = operation.below("x-auth-type")
    if node.value is None:
        return False
    word = str(node.value).replace("_", " ").lower()
    if word == "none":
        return True
    if word not in _SECURED_AUTH_TYPES:
        document.report(
            node,
            f"{node.value!r} is not known; write None, Any, Application, "
            "Application User or Application & Application User",
        )
    return False


def read_scopes(
    document: OpenApiDocument, operation: Node, of_security: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The scopes of a need, or of ``x-scope`` (comma-separated, any of them is enough)."""
    node = operation.below("x-scope")
    if not operation.has("x-scope"):
        return of_security
    value = node.value
    scopes = [scope.strip() for scope in value.split(",")] if isinstance(value, str) else [""]
    if not all(map(is_scope, scopes)):
        document.report(node, "write scope names with commas between them")
        return None
    if not of_security or set(scopes) == set(of_security):
        return of_security or tuple(scopes)
    document.report(node, "x-scope and security name different scopes; remove one")
    return None


@dataclass(frozen=True, slots=True)
class Unsayable:
    """What a catalog cannot express: its node, and why."""

    node: Node
    why: str


def read_application_security(
    document: OpenApiDocument, node: Node
) -> tuple[SecurityScheme, ...] | Unsayable | None:
    """``x-wso2-application-security``, seen together with ``x-wso2-mutual-ssl``."""
    is_root = node is document.root
    mutual_node = document.root.below("x-wso2-mutual-ssl")
    mutual = mutual_node.value
    if mutual not in (None, "optional", "mandatory") and is_root:
        document.report(mutual_node, "write optional or mandatory")
    extension = node.below("x-wso2-application-security")
    if extension.value is None:
        if mutual == "mandatory" and is_root:
            return Unsayable(mutual_node, _TWO_CREDENTIALS)
        return None
    types = extension.below("security-types").value
    if not isinstance(extension.value, Mapping) or not isinstance(types, list):
        document.report(extension, "security-types is a list of oauth2 and api_key")
        return None
    is_optional = document.read_flag(extension, "optional") or False
    schemes: dict[SecurityScheme, None] = {}
    for word in types:
        if word in ("oauth2", "api_key"):
            schemes.update(dict.fromkeys(BEARER if word == "oauth2" else API_KEY))
            continue
        cannot = f"{word!r} cannot be checked; security-types are oauth2 and api_key"
        if not {"oauth2", "api_key"}.intersection(map(str, types)):
            return Unsayable(extension, cannot)
        document.warn(extension, f"{cannot}: it is left out, and who uses it is denied")
    if mutual in ("optional", "mandatory") and not types:
        return MTLS
    if mutual == "mandatory":
        return MTLS if is_optional else Unsayable(extension, _TWO_CREDENTIALS)
    if is_optional and mutual is None:
        return Unsayable(
            extension,
            "without mutual SSL beside it this would let in who presents nothing: write "
            "optional: false, or say it in security, or in the catalog",
        )
    if is_optional:
        schemes[SecurityScheme.MTLS] = None
    elif not types:
        return Unsayable(extension, "no security type is named; add oauth2 or api_key")
    return tuple(schemes) or None
