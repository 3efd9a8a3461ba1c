"""Asks WSO2 API Manager 2.6 about an opaque token: the SOAP operation ``validateKey``.

What is asked and answered is that of carbon-apimgt 6, APIKeyValidationService and
APIKeyValidationInfoDTO. API Manager decides about the token, the subscription and the scopes for one
API, resource and method; ``validationStatus`` says why it refuses. Its answer is written as claims
that tokens of API Manager have, so that applications and tiers are found as for those.

A SOAP fault and whatever cannot be read say nothing about the token.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn
from xml.parsers import expat
from xml.sax.saxutils import escape

from extauthz.errors import IntrospectionError
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Secret
from extauthz.model.issuers import ApiCall, KeyValidationEndpoint

HEADERS: Final = {
    "content-type": "application/soap+xml;charset=UTF-8",
    "accept": "application/soap+xml",
    "soapaction": "urn:validateKey",
}
_MAX_DEPTH: Final = 16
_MAX_ELEMENTS: Final = 2000
_NEVER_MS: Final = 10**15
"""Lifetimes as long as this mean that the token does not expire, as Java's largest long does."""

_PATH: Final = ("Envelope", "Body", "validateKeyResponse", "return")
_FAULT: Final = ("Envelope", "Body", "Fault")
_NIL: Final = "http://www.w3.org/2001/XMLSchema-instance nil"
_LISTS: Final = frozenset(("scopes", "throttlingDataList", "authorizedDomains"))

_GENERAL_ERROR: Final = 900900
_INACTIVE: Final = 900904
_INVALID: Final = 900901
_REFUSALS: Final[Mapping[int, tuple[Reason, str]]] = {
    900901: (Reason.INVALID_CREDENTIALS, "The token is not valid."),
    900902: (Reason.MISSING_CREDENTIALS, "No token was sent."),
    900903: (Reason.TOKEN_EXPIRED, "The token has expired."),
    900905: (Reason.WRONG_KEY_TYPE, "The token is for another environment."),
    900906: (Reason.RESOURCE_NOT_FOUND, "The API has no such resource."),
    900907: (Reason.SUBSCRIPTION_BLOCKED, "The subscription is blocked."),
    900908: (Reason.SUBSCRIPTION_NOT_FOUND, "The application has not subscribed to the API."),
    900909: (Reason.SUBSCRIPTION_INACTIVE, "The subscription is not active."),
    900910: (Reason.INSUFFICIENT_SCOPE, "The token lacks a scope that the resource requires."),
}
"""What a ``validationStatus`` denies (carbon-apimgt, APIConstants.KeyValidationStatus)."""

_Answer = dict[str, "str | list[str]"]


def write_basic(endpoint: KeyValidationEndpoint) -> str:
    """HTTP Basic, with the name and password as they are: API Manager decodes no form."""
    pair = f"{endpoint.username}:{endpoint.password.reveal()}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def write_question(token: Secret, call: ApiCall) -> bytes:
    """The SOAP 1.2 envelope that asks about a token for a call."""
    fields = {
        "context": call.context or "/",
        "version": call.version,
        "accessToken": token.reveal(),
        "requiredAuthenticationLevel": "Any",
        "clientDomain": "?",
        "matchingResource": call.resource,
        "httpVerb": call.method,
    }
    body = "".join(f"<xsd:{name}>{escape(text)}</xsd:{name}>" for name, text in fields.items())
    return (
        '<soap:Envelope xmlns:soap="http://www.w3.org/2003/05/soap-envelope"'
        ' xmlns:xsd="http://org.apache.axis2/xsd"><soap:Header/><soap:Body>'
        f"<xsd:validateKey>{body}</xsd:validateKey></soap:Body></soap:Envelope>"
    ).encode()


def read_validation(
    status: int, body: bytes, endpoint: KeyValidationEndpoint, call: ApiCall
) -> Mapping[str, Any] | Denial | None:
    """The claims of a token that may make the call, or why it may not; None when it is inactive.

    Raises:
        IntrospectionError: the answer says nothing about the token. The text quotes nothing of it.
    """
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise IntrospectionError(
            f"it refused our name and password ({status}): check username "
            f"({endpoint.username!r}) and password_file below key_validation",
            transient=False,
        )
    if status != HTTPStatus.OK:
        raise IntrospectionError(
            f"it answered {status} and not 200: check key_validation.url, and that it is API "
            "Manager 2.6; later ones have no validateKey with these arguments"
        )
    answer = _read_envelope(body)
    authorized = _text(answer, "authorized").strip().lower()
    code = _number(answer, "validationStatus")
    if authorized in ("true", "1"):
        return _write_claims(answer, call)
    if authorized not in ("false", "0"):
        raise IntrospectionError('the answer does not say "authorized": true or false')
    if code == _GENERAL_ERROR:
        raise IntrospectionError("it could not validate the token (900900)")
    if code == _INACTIVE:
        return None
    # Refused for a reason that is not known here: by the token, as WSO2's own adapter took it.
    reason, detail = _REFUSALS.get(_INVALID if code is None else code, _REFUSALS[_INVALID])
    return Denial(reason=reason, detail=detail, found=f"the validationStatus is {code}")


def _write_claims(answer: _Answer, call: ApiCall) -> Mapping[str, Any]:
    scopes = answer.get("scopes", [])
    assert isinstance(scopes, list)
    if any(len(scope.split()) != 1 for scope in scopes):
        raise IntrospectionError("a scope of the answer is empty or has blanks")
    consumer_key, user = _text(answer, "consumerKey"), _text(answer, "endUserName")
    claims: dict[str, Any] = {
        "active": True,
        "client_id": consumer_key,
        "consumerKey": consumer_key,
        "username": user,
        "sub": user,
        "scope": " ".join(scopes),
        "keytype": _text(answer, "type"),
        "application": {
            "id": _text(answer, "applicationId"),
            "name": _text(answer, "applicationName"),
            "tier": _text(answer, "applicationTier"),
            "owner": _text(answer, "subscriber"),
        },
        "subscribedAPIs": [
            {
                "name": call.api,
                "version": call.version,
                "context": call.context,
                "publisher": _text(answer, "apiPublisher"),
                "subscriptionTier": _text(answer, "tier"),
                "subscriberTenantDomain": _text(answer, "subscriberTenantDomain"),
            }
        ],
    }
    issued_ms, lifetime_ms = _number(answer, "issuedTime"), _number(answer, "validityPeriod")
    if issued_ms is not None and issued_ms > 0:
        claims["iat"] = issued_ms // 1000
        if lifetime_ms is not None and 0 <= lifetime_ms < _NEVER_MS:
            claims["exp"] = (issued_ms + lifetime_ms) // 1000
    # What is empty was not said.
    return {name: value for name, value in claims.items() if value != ""}


def _text(answer: _Answer, name: str) -> str:
    value = answer.get(name, "")
    assert isinstance(value, str)
    return value


def _number(answer: _Answer, name: str) -> int | None:
    text = _text(answer, name).strip()
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise IntrospectionError(f"{name} of the answer is no whole number")
    return int(text)


class _Unusable(ValueError):
    """The answer is not read any further."""


class _EnvelopeReader:
    """Collects the members of ``return``; local names only, as servers vary in prefixes."""

    def __init__(self) -> None:
        self.answer: _Answer = {}
        self.has_return = self.is_fault = False
        self._path: list[str] = []
        self._elements = 0
        self._text: list[str] = []
        self._is_nil = False

    def begin(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        self._path.append(name.rpartition(" ")[2])
        if len(self._path) > _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            raise _Unusable("larger than an answer is")
        path = tuple(self._path)
        if path == _FAULT:
            self.is_fault = True
        elif path == _PATH:
            if self.has_return:
                raise _Unusable("ambiguous: it has two returns")
            self.has_return = True
        self._text.clear()
        self._is_nil = attributes.get(_NIL, "") in ("1", "true")

    def add(self, text: str) -> None:
        self._text.append(text)

    def end(self, _name: str) -> None:
        if len(self._path) == len(_PATH) + 1 and tuple(self._path[:-1]) == _PATH:
            self._keep(self._path[-1], "".join(self._text))
        self._path.pop()
        self._text.clear()

    def _keep(self, name: str, text: str) -> None:
        if name in _LISTS:
            values = self.answer.setdefault(name, [])
            assert isinstance(values, list)
            if not self._is_nil:
                values.append(text)
        elif name in self.answer:
            raise _Unusable("ambiguous: a member is there twice")
        else:
            self.answer[name] = "" if self._is_nil else text


def _refuse(*_: Any) -> NoReturn:
    raise _Unusable("XML with a document type, which SOAP does not allow")


def _read_envelope(body: bytes) -> _Answer:
    reader, parser = _EnvelopeReader(), expat.ParserCreate(namespace_separator=" ")
    # Without a document type there are no entities, neither inner nor outer ones.
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = reader.begin
    parser.CharacterDataHandler = reader.add
    parser.EndElementHandler = reader.end
    failure = ""
    try:
        parser.Parse(body, True)
    except expat.ExpatError:
        failure = "no XML"
    except _Unusable as error:
        failure = str(error)
    except ValueError:
        failure = "in an encoding that is not known"
    if failure:
        raise IntrospectionError(f"the answer is {failure}; check key_validation.url")
    if reader.is_fault:
        raise IntrospectionError("it answered with a SOAP fault")
    if not reader.has_return:
        raise IntrospectionError("the answer is no validateKeyResponse; check key_validation.url")
    return reader.answer
