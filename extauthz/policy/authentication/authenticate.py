"""Authenticates a caller: turns the credential that it presents into an identity.

The resource says which schemes it accepts, in order of preference; the first one that the caller
presents counts. Where "none" stands beside other schemes, a caller is anonymous only when it
presents no credential at all: one that is presented must be valid, and a certificate without a
readable name is not. Certificates are looked up in the catalog; API keys are checked by
`extauthz.policy.authentication.api_keys`, and bearer tokens by
`extauthz.policy.authentication.bearer_tokens`. Invalid credentials are limited for each
client address, whatever their kind (`failed_attempts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from extauthz.model.apis import Api, ApiState
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import ANONYMOUS, Identity, Secret, SecurityScheme
from extauthz.model.issuers import ApiCall
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.policy.authentication.api_keys.authenticator import ApiKeys, Presented
from extauthz.policy.authentication.bearer_tokens import BearerTokens
from extauthz.policy.authentication.credentials import (
    BLANK,
    CredentialPlaces,
    find_api_key,
    find_bearer,
    find_internal_key,
)
from extauthz.policy.authentication.failed_attempts import FailedAttempts
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.authentication.xfcc import read_xfcc
from extauthz.ports import Clock, Deadline, KeySource, TokenIntrospector

_MISSING: Final = Denial(
    reason=Reason.MISSING_CREDENTIALS, detail="Send a credential that this resource takes."
)
_UNKNOWN_CERTIFICATE: Final = Denial(
    reason=Reason.INVALID_CREDENTIALS, detail="The client certificate is not known here."
)
_WRONG_KEY_TYPE: Final = Denial(
    reason=Reason.WRONG_KEY_TYPE, detail="The API does not take keys of this type."
)
_WRONG_AUDIENCE: Final = Denial(
    reason=Reason.AUDIENCE_NOT_ALLOWED, detail="The token was not made for this API."
)
GUESSES: Final = frozenset({Reason.INVALID_CREDENTIALS, Reason.TOKEN_INACTIVE})
"""Reasons that count as a failed attempt. An issuer calls a token that it never issued inactive."""

# Module constants, because reading a member of an enum takes 40 ns longer.
_NONE: Final = SecurityScheme.NONE
_MTLS: Final = SecurityScheme.MTLS
_API_KEY: Final = SecurityScheme.API_KEY
_WITHOUT_AUDIENCE: Final = (SecurityScheme.API_KEY, SecurityScheme.MTLS, SecurityScheme.NONE)
_PROTOTYPED: Final = ApiState.PROTOTYPED


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationRules:
    """Settings of an installation that concern the credentials of every API.

    Attributes:
        pepper: the key of API keys that are stored as HMAC-SHA-256.
        trust_xfcc: also read client certificates from ``x-forwarded-client-cert``. Only safe
                where the proxy in front sets that field itself (Envoy's SANITIZE_SET).
            cache_size: number of verified credentials that are kept.
    """

    places: CredentialPlaces = CredentialPlaces()
    pepper: Secret | None = None
    trust_xfcc: bool = False
    cache_size: int = 50_000


class Authenticator:
    """Finds and checks credentials."""

    def __init__(
        self,
        *,
        rules: AuthenticationRules,
        keys: KeySource,
        introspector: TokenIntrospector,
        revocations: Revocations,
        failed_attempts: FailedAttempts,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._failed_attempts = failed_attempts
        self.tokens: Final = BearerTokens(
            keys=keys,
            introspector=introspector,
            revocations=revocations,
            clock=clock,
            cache_size=rules.cache_size,
        )
        self.api_keys: Final = ApiKeys(
            keys=keys,
            pepper=rules.pepper,
            revocations=revocations,
            failed_attempts=failed_attempts,
            clock=clock,
            cache_size=rules.cache_size,
        )

    async def identify(
        self,
        request: ApiRequest,
        route: Route,
        catalog: Catalog,
        client_address: str,
        deadline: Deadline,
        *,
        count_failures: bool = True,
    ) -> Identity | Denial:
        """Finds the caller's identity by the schemes of the resource.

        Args:
            count_failures: False when nothing may be counted, as in a peek.

        Raises:
            KeySourceError, IntrospectionError: the issuer's keys or answer did not come in time.
        """
        if takes_everybody(route):
            return ANONYMOUS
        security = route.resource.security
        if catalog.takes_internal_keys:
            internal = await self._try_internal_key(
                request, route, catalog, client_address, deadline, count_failures=count_failures
            )
            if internal is not None:
                return check_key_type(internal, route.api)
        outcome: Identity | Denial = _MISSING
        bearer_was_tried = False
        for scheme in security:
            if scheme is _NONE:
                continue
            if scheme is _MTLS:
                tried = self._identify_certificate(request, catalog)
            elif scheme is _API_KEY:
                tried = await self._try_api_key(
                    request,
                    route,
                    catalog,
                    client_address,
                    deadline,
                    count_failures=count_failures,
                )
            elif bearer_was_tried:
                continue
            else:
                bearer_was_tried = True
                tried = await self._try_bearer(
                    request,
                    route,
                    catalog,
                    client_address,
                    deadline,
                    count_failures=count_failures,
                )
            if tried is _MISSING:
                continue
            if tried is BLANK:
                if outcome is _MISSING:
                    outcome = BLANK
                continue
            outcome = tried
            # A mesh gives every workload a certificate: one that the catalog does not know
            # must not prevent the use of a key or token.
            if tried is not _UNKNOWN_CERTIFICATE:
                break
        if isinstance(outcome, Denial):
            return ANONYMOUS if outcome is _MISSING and _NONE in security else outcome
        return check_audience(check_key_type(outcome, route.api), route.api)

    def _identify_certificate(self, request: ApiRequest, catalog: Catalog) -> Identity | Denial:
        names: tuple[str, ...] = (request.source.principal,) if request.source.principal else ()
        is_presented = bool(names or request.source.certificate)
        if self._rules.trust_xfcc:
            for value in request.headers.get_all("x-forwarded-client-cert")[-1:]:
                is_presented = True
                names += read_xfcc(value) or ()
        if not names:
            return BLANK if is_presented else _MISSING
        for name in names:
            registration = catalog.certificates.get(name)
            if registration is not None:
                return Identity(
                    scheme=SecurityScheme.MTLS,
                    application=registration.application,
                    key_type=registration.key_type,
                    user=name,
                )
        return _UNKNOWN_CERTIFICATE

    async def _try_api_key(
        self,
        request: ApiRequest,
        route: Route,
        catalog: Catalog,
        client_address: str,
        deadline: Deadline,
        *,
        count_failures: bool,
    ) -> Identity | Denial:
        credential = find_api_key(request, self._rules.places.of_api_key(route.api))
        if credential is None:
            return _MISSING
        if isinstance(credential, Denial):
            return credential
        return await self.api_keys.identify(
            Presented(
                secret=credential.secret,
                request=request,
                route=route,
                catalog=catalog,
                client_address=client_address,
                deadline=deadline,
                count_failures=count_failures,
            )
        )

    async def _try_internal_key(
        self,
        request: ApiRequest,
        route: Route,
        catalog: Catalog,
        client_address: str,
        deadline: Deadline,
        *,
        count_failures: bool,
    ) -> Identity | Denial | None:
        """What an internal key proves, whatever else is presented; None when there is none."""
        credential = find_internal_key(request)
        if credential is None or isinstance(credential, Denial):
            return credential
        return await self.api_keys.identify_internal(
            Presented(
                secret=credential.secret,
                request=request,
                route=route,
                catalog=catalog,
                client_address=client_address,
                deadline=deadline,
                count_failures=count_failures,
            )
        )

    async def _try_bearer(
        self,
        request: ApiRequest,
        route: Route,
        catalog: Catalog,
        client_address: str,
        deadline: Deadline,
        *,
        count_failures: bool,
    ) -> Identity | Denial:
        credential = find_bearer(request, self._rules.places.of_bearer(route.api))
        if credential is None:
            return _MISSING
        if isinstance(credential, Denial):
            return credential
        security = route.resource.security
        call = _name_call(request, route) if catalog.validates_calls else None
        known = self.tokens.find_identity(credential.secret, security, catalog, call)
        if known is not None:
            return known
        refused = await self._failed_attempts.check(client_address, deadline)
        # A valid JWT is let through all the same: its sender may share the address with a guesser.
        if refused is not None and self.tokens.is_guessable(credential.secret, security, catalog):
            return refused
        outcome = await self.tokens.verify(
            credential.secret, security, catalog, deadline, client_address, call
        )
        if isinstance(outcome, Denial) and outcome.reason in GUESSES:
            if count_failures:
                await self._failed_attempts.record(client_address, deadline)
            return refused or outcome
        return outcome


def _name_call(request: ApiRequest, route: Route) -> ApiCall:
    api = route.api
    return ApiCall(
        api=api.name,
        version=api.version,
        context=api.base_paths[0],
        resource=route.resource.template,
        method=request.method,
    )


def takes_everybody(route: Route) -> bool:
    """Whether a resource asks for no credential, and looks at none."""
    security = route.resource.security
    return (_NONE in security and len(security) == 1) or route.api.state is _PROTOTYPED


def check_key_type(identity: Identity | Denial, api: Api) -> Identity | Denial:
    """The same, or the denial when the API does not take keys of the identity's type."""
    if isinstance(identity, Denial):
        return identity
    if identity.key_type is not None and identity.key_type not in api.key_types:
        return _WRONG_KEY_TYPE
    return identity


def check_audience(found: Identity | Denial, api: Api) -> Identity | Denial:
    """The same, or the denial when a bearer token was not made for the API."""
    if not api.audiences or isinstance(found, Denial) or found.scheme in _WITHOUT_AUDIENCE:
        return found
    audience = found.claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if isinstance(named, list) and any(
        isinstance(one, str) and one in api.audiences for one in named
    ):
        return found
    return _WRONG_AUDIENCE
