"""Finds the credential in a request. It is not verified here.

There must be one only. A credential that arrives twice, comma-joined (the way in which a proxy
folds two fields into one), or in two places with different values, is ambiguous: the next reader
might use the other one. An API key may contain a comma where no proxy can have joined two keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from extauthz.model.apis import Api
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Credential, Place, PlaceKind, Secret, SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.policy.request.parameters import find_parameters, read_values

MAX_CREDENTIAL: Final = 16_384
"""Characters that a credential may have. A longer one is refused before it is hashed."""

INVALID: Final = Denial(
    reason=Reason.INVALID_CREDENTIALS, detail="The credential is not known here."
)
REVOKED: Final = Denial(reason=Reason.TOKEN_REVOKED, detail="The credential was revoked.")
BLANK: Final = Denial(
    reason=Reason.MISSING_CREDENTIALS,
    detail="Where the credential should stand is something else, or nothing; send a credential "
    "that this resource takes.",
)
"""Not the same as no credential: a resource that needs no credential refuses this one."""
AMBIGUOUS: Final = Denial(
    reason=Reason.AMBIGUOUS_CREDENTIALS,
    detail="The credential was sent more than once; send it once, in one place.",
)

# Module constants, because reading a member of an enum takes 40 ns longer.
_HEADER: Final = PlaceKind.HEADER
_QUERY: Final = PlaceKind.QUERY
_JWT: Final = SecurityScheme.JWT
_OPAQUE: Final = SecurityScheme.OPAQUE
_API_KEY: Final = SecurityScheme.API_KEY

INTERNAL_KEY_PLACE: Final = Place(PlaceKind.HEADER, "internal-key")
"""Where an internal key stands, when the catalog takes such keys."""
_UNKNOWN_PLACE: Final = Place(PlaceKind.CONNECTION, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialPlaces:
    """Where credentials may be in a request, unless an API says otherwise.

    Attributes:
        bearer: places of bearer tokens. The value of a header may begin with "Bearer"; that of
            ``authorization`` must.
        api_key: places of API keys. In ``authorization`` the key follows "Bearer"; elsewhere it
            is the whole value.
    """

    bearer: tuple[Place, ...] = (Place(PlaceKind.HEADER, "authorization"),)
    api_key: tuple[Place, ...] = (
        Place(PlaceKind.HEADER, "x-api-key"),
        Place(PlaceKind.HEADER, "apikey"),
        Place(PlaceKind.QUERY, "apikey"),
    )

    def of_bearer(self, api: Api) -> tuple[Place, ...]:
        """The places of this API's bearer tokens."""
        if api.bearer_header is None:
            return self.bearer
        return (Place(PlaceKind.HEADER, api.bearer_header),)

    def of_api_key(self, api: Api) -> tuple[Place, ...]:
        """The places of this API's keys."""
        return self.api_key if api.api_key_places is None else api.api_key_places

    def of_api(self, api: Api) -> tuple[Place, ...]:
        """Every place that may hold a credential for one of the API's resources."""
        security = api.schemes
        places: tuple[Place, ...] = ()
        if _JWT in security or _OPAQUE in security:
            places = self.of_bearer(api)
        if _API_KEY in security:
            places += self.of_api_key(api)
        return places

    def find_removed(
        self, request: ApiRequest, api: Api, *, takes_internal_keys: bool = False
    ) -> tuple[Place, ...]:
        """The places whose content must be removed before the request goes upstream.

        These are the places of the whole API: a client may send its key to a public resource too,
        and the upstream must not see it.

        Raises:
            MalformedRequest: a place holds more than can be searched, so it could not be removed.
        """
        if api.forward_credentials:
            return ()
        places = self.of_api(api)
        if takes_internal_keys:
            places += (INTERNAL_KEY_PLACE,)
        for place in places:
            find_parameters(request, place)
        return places


def find_bearer(request: ApiRequest, places: tuple[Place, ...]) -> Credential | Denial | None:
    """The bearer token (RFC 6750 section 2.1, scheme in any case), or None.

    BLANK when a place holds something else, like the credentials of another scheme.
    """
    return _find(request, places, _JWT)


def find_api_key(request: ApiRequest, places: tuple[Place, ...]) -> Credential | Denial | None:
    """The API key, or None; BLANK when a place holds something that is no key."""
    found = _find(request, places, _API_KEY)
    key = request.api_key
    if key is not None and found is BLANK:
        found = None
    if key is None or isinstance(found, Denial):
        return found
    if len(key.reveal()) > MAX_CREDENTIAL:
        return INVALID
    if found is not None and found.secret != key:
        return AMBIGUOUS
    return found or Credential(scheme=_API_KEY, secret=key, place=_UNKNOWN_PLACE)


def find_internal_key(request: ApiRequest) -> Credential | Denial | None:
    """The internal key of WSO2 API Manager's publisher, or None; BLANK for an empty header."""
    return _find(request, (INTERNAL_KEY_PLACE,), _API_KEY)


def _find(
    request: ApiRequest, places: tuple[Place, ...], scheme: SecurityScheme
) -> Credential | Denial | None:
    found: tuple[str, Place] | None = None
    is_blank = False
    for place in places:
        values: Sequence[str]
        if place.kind is _HEADER:
            values = request.headers.get_all(place.name)
        else:
            if not all(one.is_plain for one in find_parameters(request, place)):
                return AMBIGUOUS
            values = read_values(request, place)
        if not values:
            continue
        if len(values) > 1:
            return AMBIGUOUS
        value = values[0]
        if place.kind is _HEADER:
            value = value.strip()
            is_authorization = place.name == "authorization"
            if scheme is _JWT or is_authorization:
                value = _strip_bearer(value, required=is_authorization)
        if "," in value and (scheme is _JWT or _may_be_joined(request, place)):
            return AMBIGUOUS
        if len(value) > MAX_CREDENTIAL:
            return INVALID
        if not value:
            is_blank = True
            continue
        if found is not None and found[0] != value:
            return AMBIGUOUS
        found = found or (value, place)
    if found is None:
        return BLANK if is_blank else None
    return Credential(scheme=scheme, secret=Secret(found[0]), place=found[1])


def _may_be_joined(request: ApiRequest, place: Place) -> bool:
    """Whether a value with a comma may be two values that a proxy joined."""
    return place.kind is not _QUERY and not request.headers.are_apart


def _strip_bearer(value: str, *, required: bool) -> str:
    scheme, _, token = value.partition(" ")
    if len(scheme) == len("bearer") and scheme.lower() == "bearer":
        return token.strip()
    return "" if required else value
