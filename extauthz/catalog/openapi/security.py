"""Reads the security requirements and schemes of an OpenAPI document.

A catalog can express any of several schemes, an optional credential, and any or all of several
scopes. Alternatives that cannot be checked (HTTP Basic, two credentials together, roles of API
keys) are left out with a warning: that is stricter than the document, never weaker. When no
alternative is left, the catalog's security of the API counts, and without one it is a problem. So
are mixed sets of scopes, and everything that is not valid OpenAPI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from extauthz.catalog.openapi.document import Node, OpenApiDocument
from extauthz.catalog.openapi.grammar import SCHEME
from extauthz.documents.messages import show_name
from extauthz.model.identity import Place, PlaceKind, SecurityScheme

PUBLIC: Final = (SecurityScheme.NONE,)
BEARER: Final = (SecurityScheme.JWT, SecurityScheme.OPAQUE)
API_KEY: Final = (SecurityScheme.API_KEY,)
MTLS: Final = (SecurityScheme.MTLS,)

_WSO2_SCHEME: Final = "default"
"""What API Manager calls the one OAuth2 scheme of a document that it writes."""
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 section 3.3
_SAY_IT: Final = "say in the catalog what is taken: security of the API, or a resource"


@dataclass(frozen=True, slots=True)
class SecurityNeed:
    """The schemes and scopes of a security requirement. `schemes` is None when it names none."""

    schemes: tuple[SecurityScheme, ...] | None = None
    scopes: tuple[str, ...] = ()
    all_scopes: bool = False


@dataclass(frozen=True, slots=True)
class _Scheme:
    schemes: tuple[SecurityScheme, ...]
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class _Alternative:
    """One requirement of a list. `unsayable` says why it cannot be checked; None when it can."""

    node: Node
    schemes: tuple[SecurityScheme, ...] = ()
    scopes: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    unsayable: str | None = None


class SecurityReader:
    """Reads requirements of one document.

    Args:
        declared: the schemes, by name; None when there are none.
        of_catalog: the schemes that the catalog names for the API; None when it names none.
        is_wso2: whether WSO2 API Manager wrote the document.

    Attributes:
        application: schemes that replace the WSO2 scheme, when an extension says so.
        places: places of all API key schemes that were required so far.
    """

    def __init__(
        self,
        document: OpenApiDocument,
        declared: Node | None,
        *,
        of_catalog: tuple[SecurityScheme, ...] | None = None,
        is_wso2: bool = False,
        application: tuple[SecurityScheme, ...] | None = None,
    ) -> None:
        self._document = document
        self._declared = declared
        self._is_wso2 = is_wso2
        self._can_fall_back = of_catalog is not None and SecurityScheme.NONE not in of_catalog
        self.application = application
        self.places: dict[Place, None] = {}

    def read_requirement(self, parent: Node) -> SecurityNeed | None:
        """A ``security`` field: schemes and scopes; None (and a problem) if not expressible."""
        if not parent.has("security"):
            return SecurityNeed()
        node = self._document.resolve(parent.below("security"))
        if node is None:
            return None
        if not isinstance(node.value, list):
            self._document.report(node, "security is a list of requirements; [] asks for nothing")
            return None
        before = self._document.problem_count
        alternatives = [
            self._read_alternative(node.below(position)) for position in range(len(node.value))
        ]
        if self._document.problem_count > before:
            return None
        asking = [one for one in alternatives if one is not None]
        if not asking:
            return SecurityNeed(PUBLIC)
        return self._any_of(asking, node, is_optional=len(asking) < len(alternatives))

    def _any_of(
        self, alternatives: list[_Alternative], node: Node, *, is_optional: bool
    ) -> SecurityNeed | None:
        """One need from several alternatives: all scopes of one, or one scope of each."""
        alternatives = _leave_out_unscoped(alternatives)
        kept = [one for one in alternatives if one.unsayable is None]
        if not kept:
            return self._fall_back(alternatives)
        for one in alternatives:
            if one.unsayable is not None:
                self._document.warn(
                    one.node, f"{one.unsayable}: it is left out, and who uses it is denied"
                )
        schemes = tuple(dict.fromkeys(scheme for one in kept for scheme in one.schemes))
        if is_optional:
            schemes += PUBLIC
        scopes = [one.scopes for one in kept if SecurityScheme.JWT in one.schemes]
        need: SecurityNeed | None = None
        if len(set(map(frozenset, scopes))) <= 1:
            asked = scopes[0] if scopes else ()
            # Unlike OpenAPI, API Manager accepts any one of the scopes in its exports; an API that
            # moves here must not require more than before.
            from_wso2 = self._is_wso2 and all(set(one.node.value) == {_WSO2_SCHEME} for one in kept)
            need = SecurityNeed(schemes, asked, all_scopes=len(asked) > 1 and not from_wso2)
        elif all(len(each) == 1 for each in scopes):
            need = SecurityNeed(schemes, tuple(each[0] for each in scopes))
        if need is None:
            self._document.report(
                node,
                "these alternatives ask for different sets of scopes, which cannot be expressed: "
                "ask for all scopes in one alternative, or for one scope in each, or write a "
                "resource for the operation into the catalog",
            )
            return None
        for one in kept:
            self.places.update(dict.fromkeys(one.places))
        return need

    def _fall_back(self, alternatives: list[_Alternative]) -> SecurityNeed | None:
        """The catalog's security, when no alternative can be checked."""
        may = self._can_fall_back and not any(one.scopes for one in alternatives)
        for one in alternatives:
            if may:
                self._document.warn(
                    one.node, f"{one.unsayable}: the catalog's security stands in its place"
                )
            else:
                self._document.report(one.node, f"{one.unsayable}; {_SAY_IT}")
        return SecurityNeed() if may else None

    def _read_alternative(self, written: Node) -> _Alternative | None:
        """One alternative; None for the empty one, which requires nothing, or with a problem."""
        node = self._document.resolve(written)
        if node is None:
            return None
        if not isinstance(node.value, Mapping):
            self._document.report(node, "a requirement is a mapping from scheme names to scopes")
            return None
        if not node.value:
            return None
        found: list[_Scheme] = []
        scopes: dict[str, None] = {}
        unsayable: str | None = None
        for name, asked in node.items():
            scheme = self._read_scheme(name, asked)
            value = asked.value
            if not isinstance(value, list) or not all(map(is_scope, value)):
                self._document.report(asked, "a list of scopes stands here; [] for none")
            elif isinstance(scheme, str):
                unsayable = scheme
                scopes.update(dict.fromkeys(value))
            elif scheme is not None:
                found.append(scheme)
                if value and SecurityScheme.JWT not in scheme.schemes:
                    unsayable = "roles of API keys and certificates cannot be checked"
                scopes.update(dict.fromkeys(value))
        kinds = {one.schemes for one in found}
        if unsayable is None and len(found) > 1 and kinds != {BEARER}:
            unsayable = (
                f"{' and '.join(map(str, node.value))} together cannot be asked for, as a request "
                "is known by one credential"
            )
        if unsayable is not None:
            return _Alternative(node, scopes=tuple(scopes), unsayable=unsayable)
        if not found:
            return None
        places = tuple(one.place for one in found if one.place is not None)
        return _Alternative(node, found[0].schemes, tuple(scopes), places)

    def _read_scheme(self, name: str, at: Node) -> _Scheme | str | None:
        """A scheme; why it cannot be checked; or None, and a problem."""
        if name == _WSO2_SCHEME and self.application is not None:
            return _Scheme(self.application)
        if self._declared is None or not self._declared.has(name):
            if name == _WSO2_SCHEME and self._is_wso2:
                return _Scheme(BEARER)
            self._document.report(at, f"security scheme {show_name(name)} is not declared")
            return None
        node = self._document.resolve(self._declared.below(name))
        if node is None:
            return None
        declared_at = f"security scheme {show_name(name)}"
        if not isinstance(node.value, Mapping):
            self._document.report(node, f"{declared_at} is not a mapping")
            return None
        before = self._document.problem_count
        self._document.check_keys(node, SCHEME)
        if self._document.problem_count > before:
            return None
        kind, word = node.value.get("type"), str(node.value.get("scheme", "")).lower()
        match kind:
            case "oauth2" | "openIdConnect":
                return _Scheme(BEARER)
            case "http" if word == "bearer":
                return _Scheme(BEARER)
            case "mutualTLS":
                return _Scheme(MTLS)
            case "apiKey":
                return self._read_api_key(node, declared_at)
            case "http" if word:
                return f"{declared_at}: http {word} cannot be checked"
            case "basic":
                return f"{declared_at}: basic cannot be checked"
        self._document.report(
            node,
            f"{declared_at} has no type that is known: write oauth2, openIdConnect, http (with a "
            "scheme), apiKey or mutualTLS",
        )
        return None

    def _read_api_key(self, scheme: Node, declared_at: str) -> _Scheme | None:
        name, kind = scheme.below("name"), scheme.value.get("in")
        if kind not in ("header", "query", "cookie"):
            self._document.report(scheme, f"{declared_at}: in is header, query or cookie")
        elif not isinstance(name.value, str) or not name.value:
            self._document.report(scheme, f"{declared_at}: name says which {kind} holds the key")
        else:
            found: Any = name.value
            if kind == "header":
                found = self._document.read_header_name(name)
            if found is not None:
                return _Scheme(API_KEY, Place(PlaceKind(kind), found))
        return None


def _leave_out_unscoped(alternatives: list[_Alternative]) -> list[_Alternative]:
    """The alternatives; a bearer token without scopes is unsayable beside one of another scheme.

    A request with a token fits both, so the second would be accepted without its scopes.
    """
    bearers = [one for one in alternatives if SecurityScheme.JWT in one.schemes]
    names = {frozenset(one.node.value) for one in bearers}
    if len(names) <= 1 or not any(one.scopes for one in bearers):
        return alternatives
    return [
        replace(
            one,
            unsayable=f"a token of {' and '.join(one.node.value)} cannot be told from one of "
            "another scheme, which needs scopes",
        )
        if one in bearers and not one.scopes
        else one
        for one in alternatives
    ]


def is_scope(value: Any) -> bool:
    """Whether it is a scope as a token may have one (RFC 6749 section 3.3)."""
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None
