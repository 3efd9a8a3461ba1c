"""Reads what an OpenAPI document asks of callers: its security requirements and schemes.

A catalog knows any-of schemes and any-of or all-of scopes; what a document says beyond that
(two credentials together, a credential that may be missing, mixed sets of scopes) is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from extauthz.catalog.openapi_document import OpenApiDocument, below
from extauthz.model.identity import Place, PlaceKind, SecurityScheme

PUBLIC: Final = (SecurityScheme.NONE,)
_BEARER: Final = (SecurityScheme.JWT, SecurityScheme.OPAQUE)
_API_KEY: Final = (SecurityScheme.API_KEY,)
_MTLS: Final = (SecurityScheme.MTLS,)
_WSO2_SCHEME: Final = "default"
"""What API Manager calls the one OAuth2 scheme of a document that it writes."""
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 section 3.3
_TWO_CREDENTIALS: Final = (
    "a client certificate and a token cannot be asked for together: a request is known by one "
    "credential; make one of them optional, or let the proxy require the certificate"
)


@dataclass(frozen=True, slots=True)
class SecurityNeed:
    """What a security requirement comes to. `schemes` None: nothing is said about them."""

    schemes: tuple[SecurityScheme, ...] | None = None
    scopes: tuple[str, ...] = ()
    all_scopes: bool = False


class SecurityReader:
    """Reads requirements of one document.

    Attributes:
        application: what ``x-wso2-application-security`` of the document says, or None.
        default_need: what the document's ``security`` says; None when it is not expressible.
        places: of all API key schemes that were asked for so far.
    """

    def __init__(self, document: OpenApiDocument, declared: Mapping[str, Any]) -> None:
        self._document = document
        self._declared = declared
        self._is_wso2 = any(str(key).startswith("x-wso2-") for key in document.tree)
        self.places: dict[Place, None] = {}
        self.application: tuple[SecurityScheme, ...] | None = None
        self.application = self._application_security(document.tree, "")
        self.default_need = self._requirement(document.tree, "")

    @property
    def default_schemes(self) -> tuple[SecurityScheme, ...] | None:
        """What operations take that say nothing themselves."""
        if self.application is not None:
            return self.application
        return None if self.default_need is None else self.default_need.schemes

    def read_need(self, operation: Mapping[str, Any], place: str) -> SecurityNeed | None:
        """What an operation asks for; None, and a problem, when that cannot be expressed."""
        problems = len(self._document.problems)
        need = self.default_need
        if "security" in operation:
            need = self._requirement(operation, place)
        elif need is not None:
            need = SecurityNeed(None, need.scopes, need.all_scopes)
        own = self._application_security(operation, place)
        if need is None or len(self._document.problems) > problems:
            return None
        schemes = need.schemes if own is None else own
        scopes = self._wso2_scopes(operation, place, need)
        if scopes is None:
            return None
        if scopes and (self.default_schemes if schemes is None else schemes) == PUBLIC:
            self._document.report(
                place, "scopes are asked for, but no security: remove one of them"
            )
            return None
        return SecurityNeed(schemes, scopes, need.all_scopes)

    def _requirement(self, node: Mapping[str, Any], parent: str) -> SecurityNeed | None:
        """A ``security`` field: schemes and scopes; None (and a problem) if not expressible."""
        if "security" not in node:
            return SecurityNeed()
        place = below(parent, "security")
        alternatives = node["security"]
        if not isinstance(alternatives, list | tuple):
            self._document.report(place, "security is a list of requirements; [] asks for nothing")
            return None
        if not any(alternatives) and all(isinstance(one, Mapping) for one in alternatives):
            return SecurityNeed(PUBLIC)
        before = len(self._document.problems)
        schemes: dict[SecurityScheme, None] = {}
        bearer_scopes: list[tuple[str, ...]] = []
        for position, alternative in enumerate(alternatives):
            where = f"{place}[{position}]"
            if not isinstance(alternative, Mapping):
                self._document.report(
                    where, "a requirement is a mapping from scheme names to scopes"
                )
            elif not alternative:
                self._document.report(
                    where,
                    "credentials that a caller may leave out cannot be expressed: remove {}, "
                    "or write security: [] to ask for none at all",
                )
            else:
                one = self._alternative(alternative, where)
                if one.schemes is not None:
                    schemes.update(dict.fromkeys(one.schemes))
                    if SecurityScheme.JWT in one.schemes:
                        bearer_scopes.append(one.scopes)
        if len(self._document.problems) > before:
            return None
        from_wso2 = self._is_wso2 and all(set(one) == {_WSO2_SCHEME} for one in alternatives)
        return self._any_of(tuple(schemes), bearer_scopes, place, from_wso2=from_wso2)

    def _any_of(
        self,
        schemes: tuple[SecurityScheme, ...],
        bearer_scopes: list[tuple[str, ...]],
        place: str,
        *,
        from_wso2: bool,
    ) -> SecurityNeed | None:
        """One need from several alternatives: all scopes of one, or one scope of each."""
        if len({frozenset(scopes) for scopes in bearer_scopes}) <= 1:
            scopes = bearer_scopes[0] if bearer_scopes else ()
            # API Manager takes any one of the scopes that its exports list, against the letter
            # of OpenAPI: an API that moves here asks for no more than it did.
            return SecurityNeed(schemes, scopes, all_scopes=len(scopes) > 1 and not from_wso2)
        if all(len(scopes) == 1 for scopes in bearer_scopes):
            return SecurityNeed(schemes, tuple(scopes[0] for scopes in bearer_scopes))
        self._document.report(
            place,
            "these alternatives ask for different sets of scopes, which cannot be expressed: "
            "ask for all scopes in one alternative, or for one scope in each",
        )
        return None

    def _alternative(self, alternative: Mapping[str, Any], place: str) -> SecurityNeed:
        """The schemes and scopes of one alternative; no schemes when there is a problem."""
        found: list[tuple[SecurityScheme, ...]] = []
        scopes: dict[str, None] = {}
        for name, asked in alternative.items():
            where = below(place, name)
            schemes = self._scheme(name, where)
            if schemes is None:
                continue
            found.append(schemes)
            if not isinstance(asked, list | tuple) or not all(_is_scope(one) for one in asked):
                self._document.report(where, "a list of scopes stands here; [] for none")
            elif asked and SecurityScheme.JWT not in schemes:
                self._document.report(
                    where, "roles of API keys and certificates cannot be checked; write []"
                )
            else:
                scopes.update(dict.fromkeys(asked))
        if len(found) > 1 and set(found) != {_BEARER}:
            self._document.report(
                place,
                f"{' and '.join(map(str, alternative))} together cannot be asked for: "
                "a request is known by one credential; make them alternatives, or choose one",
            )
        return SecurityNeed(found[0], tuple(scopes)) if found else SecurityNeed()

    def _scheme(self, name: str, place: str) -> tuple[SecurityScheme, ...] | None:
        if name == _WSO2_SCHEME and self.application is not None:
            return self.application
        if name not in self._declared:
            if name == _WSO2_SCHEME and self._is_wso2:
                return _BEARER
            self._document.report(place, f"security scheme {name!r} is not declared")
            return None
        declared_at = f"security scheme {name!r}"
        scheme: Any = self._declared[name]
        if isinstance(scheme, Mapping) and "$ref" in scheme:
            scheme = self._document.resolve(scheme, place)
            if scheme is None:
                return None
        if not isinstance(scheme, Mapping):
            self._document.report(place, f"{declared_at} is not a mapping")
            return None
        match scheme.get("type"), str(scheme.get("scheme", "")).lower():
            case ("oauth2" | "openIdConnect", _) | ("http", "bearer"):
                return _BEARER
            case "mutualTLS", _:
                return _MTLS
            case "apiKey", _:
                return self._api_key(scheme, place, declared_at)
            case kind, word:
                self._document.report(
                    place,
                    f"{declared_at} of type {' '.join(filter(None, (str(kind), word)))!r} cannot "
                    "be checked; use oauth2, openIdConnect, http bearer, apiKey or mutualTLS",
                )
                return None

    def _api_key(
        self, scheme: Mapping[str, Any], place: str, declared_at: str
    ) -> tuple[SecurityScheme, ...] | None:
        name, kind = scheme.get("name"), scheme.get("in")
        if kind not in ("header", "query", "cookie"):
            self._document.report(place, f"{declared_at}: in is header, query or cookie")
        elif not isinstance(name, str) or not name:
            self._document.report(place, f"{declared_at}: name says which {kind} holds the key")
        else:
            found = self._document.read_header_name(name, place) if kind == "header" else name
            if found is not None:
                self.places[Place(PlaceKind(kind), found)] = None
                return _API_KEY
        return None

    def _application_security(
        self, node: Mapping[str, Any], parent: str
    ) -> tuple[SecurityScheme, ...] | None:
        """``x-wso2-application-security``, seen together with ``x-wso2-mutual-ssl``."""
        mutual = self._document.tree.get("x-wso2-mutual-ssl")
        if mutual not in (None, "optional", "mandatory") and not parent:
            self._document.report("x-wso2-mutual-ssl", "write optional or mandatory")
        place = below(parent, "x-wso2-application-security")
        extension = node.get("x-wso2-application-security")
        if extension is None:
            if mutual == "mandatory" and not parent:
                self._document.report("x-wso2-mutual-ssl", _TWO_CREDENTIALS)
            return None
        types = extension.get("security-types") if isinstance(extension, Mapping) else None
        if not isinstance(extension, Mapping) or not isinstance(types, list | tuple):
            self._document.report(place, "security-types is a list of oauth2 and api_key")
            return None
        is_optional = self._document.read_flag(extension, "optional", place) or False
        schemes: dict[SecurityScheme, None] = {}
        for word in types:
            if word == "oauth2":
                schemes.update(dict.fromkeys(_BEARER))
            elif word == "api_key":
                schemes.update(dict.fromkeys(_API_KEY))
            else:
                self._document.report(
                    place, f"{word!r} cannot be checked; security-types are oauth2 and api_key"
                )
        if mutual in ("optional", "mandatory") and not types:
            return _MTLS
        if mutual == "mandatory" and is_optional:
            return _MTLS
        if mutual == "mandatory":
            self._document.report(place, _TWO_CREDENTIALS)
        elif mutual == "optional" and is_optional:
            schemes[SecurityScheme.MTLS] = None
        elif is_optional:
            self._document.report(
                place,
                "credentials that a caller may leave out cannot be expressed: optional: false",
            )
        elif not types:
            self._document.report(place, "no security type is named; add oauth2 or api_key")
        return tuple(schemes) or None

    def _wso2_scopes(
        self, operation: Mapping[str, Any], place: str, need: SecurityNeed
    ) -> tuple[str, ...] | None:
        """The scopes of a need, or of ``x-scope`` (comma-separated, any of them is enough)."""
        if "x-scope" not in operation:
            return need.scopes
        value = operation["x-scope"]
        scopes = [scope.strip() for scope in value.split(",")] if isinstance(value, str) else [""]
        if not all(_is_scope(scope) for scope in scopes):
            self._document.report(f"{place}.x-scope", "write scope names with commas between them")
            return None
        if not need.scopes or set(scopes) == set(need.scopes):
            return need.scopes or tuple(scopes)
        self._document.report(
            f"{place}.x-scope", "x-scope and security name different scopes; remove one"
        )
        return None


def _is_scope(value: Any) -> bool:
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None
