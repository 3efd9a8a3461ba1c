"""Turns what a caller presents into who it is.

The resource says which schemes it takes, in order of preference; the first that the caller
presents counts. Only two things here may wait: an issuer's keys and its introspection
endpoint. A token that was verified is believed until it ends, as long as the same issuer's
rules hold; whether it was revoked is asked each time.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final

from extauthz.model.catalog import ApiKey, ApiState, Catalog, ClientRegistration, Issuer
from extauthz.model.decision import Denial, Reason
from extauthz.model.deny_rules import contains, read_address
from extauthz.model.identity import ANONYMOUS, Credential, Identity, Secret, SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.model.routes import Route
from extauthz.policy.claims import TokenIdentity, read_identity_claims
from extauthz.policy.credentials import CredentialPlaces, find_api_key, find_bearer
from extauthz.policy.failed_attempts import FailedAttempts
from extauthz.policy.revocations import Revocations
from extauthz.policy.tokens import (
    UnverifiedToken,
    VerifiedClaims,
    check_introspected,
    looks_like_jwt,
    read_token,
    token_digest,
    verify_token,
)
from extauthz.policy.xfcc import read_xfcc
from extauthz.ports import Clock, Deadline, KeySource, TokenIntrospector

_MISSING: Final = Denial(
    reason=Reason.MISSING_CREDENTIALS, detail="Send a credential that this resource takes."
)
_INVALID: Final = Denial(
    reason=Reason.INVALID_CREDENTIALS, detail="The credential is not known here."
)
_UNKNOWN_CERTIFICATE: Final = Denial(
    reason=Reason.INVALID_CREDENTIALS, detail="The client certificate is not known here."
)
_EXPIRED: Final = Denial(reason=Reason.TOKEN_EXPIRED, detail="The credential has expired.")
_INACTIVE: Final = Denial(
    reason=Reason.TOKEN_INACTIVE, detail="The token's issuer says that it is not active."
)
_REVOKED: Final = Denial(reason=Reason.TOKEN_REVOKED, detail="The credential was revoked.")
_WRONG_KEY_TYPE: Final = Denial(
    reason=Reason.WRONG_KEY_TYPE, detail="The API does not take keys of this type."
)
_NOT_PERMITTED: Final = Denial(
    reason=Reason.CREDENTIAL_NOT_PERMITTED,
    detail="The credential may not be used from this address or referer.",
)
_BEARER: Final = frozenset({SecurityScheme.JWT, SecurityScheme.OPAQUE})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationRules:
    """What an installation says about credentials, whatever the API.

    Attributes:
        pepper: the key of API keys that are stored as HMAC-SHA-256.
        trust_xfcc: read client certificates from ``x-forwarded-client-cert`` too. Only
            where the proxy in front sets that field itself (Envoy's SANITIZE_SET).
        cache_size: verified credentials that are kept.
    """

    places: CredentialPlaces = CredentialPlaces()
    pepper: Secret | None = None
    trust_xfcc: bool = False
    cache_size: int = 50_000


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was good, what it says, and under which catalog it was looked up.

    `digest` is what revocations know it by.
    """

    issuer: Issuer
    token: TokenIdentity
    catalog: Catalog
    identity: Identity
    until_us: int
    digest: bytes


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
        self._keys = keys
        self._introspector = introspector
        self._revocations = revocations
        self._failed_attempts = failed_attempts
        self._clock = clock
        self._tokens: OrderedDict[bytes, _Verified] = OrderedDict()
        self._good_keys: OrderedDict[bytes, None] = OrderedDict()

    async def identify(
        self,
        request: ApiRequest,
        route: Route,
        catalog: Catalog,
        client_address: str,
        deadline: Deadline,
    ) -> Identity | Denial:
        """Who asks, as far as this resource wants to know.

        Raises:
            KeySourceError, IntrospectionError: it could not be found out in time.
        """
        security = route.resource.security
        if SecurityScheme.NONE in security or route.api.state is ApiState.PROTOTYPED:
            return ANONYMOUS
        outcome: Identity | Denial = _MISSING
        bearer_was_tried = False
        for scheme in security:
            if scheme is SecurityScheme.MTLS:
                tried = self._identify_certificate(request, catalog)
            elif scheme is SecurityScheme.API_KEY:
                tried = await self._try_api_key(request, route, catalog, client_address, deadline)
            elif bearer_was_tried:
                continue
            else:
                bearer_was_tried = True
                tried = await self._try_bearer(request, route, catalog, client_address, deadline)
            if tried is _MISSING:
                continue
            outcome = tried
            # A mesh gives every workload a certificate: one that means nothing to this
            # catalog does not stand in the way of a key or token.
            if tried is not _UNKNOWN_CERTIFICATE:
                break
        if isinstance(outcome, Denial):
            return outcome
        if outcome.key_type is not None and outcome.key_type not in route.api.key_types:
            return _WRONG_KEY_TYPE
        return outcome

    def _identify_certificate(self, request: ApiRequest, catalog: Catalog) -> Identity | Denial:
        names: tuple[str, ...] = (request.source.principal,) if request.source.principal else ()
        if self._rules.trust_xfcc:
            for value in request.headers.get_all("x-forwarded-client-cert")[-1:]:
                names += read_xfcc(value) or ()
        if not names:
            return _MISSING
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
    ) -> Identity | Denial:
        credential = find_api_key(request, self._rules.places.of_api_key(route.api))
        if credential is None:
            return _MISSING
        if isinstance(credential, Denial):
            return credential
        digest = credential.secret.digest()
        if digest not in self._good_keys:
            refused = await self._failed_attempts.check(client_address, deadline)
            if refused is not None:
                return refused
        key = self._find_api_key(credential.secret, digest, catalog)
        if key is None:
            self._good_keys.pop(digest, None)
            await self._failed_attempts.record(client_address, deadline)
            return _INVALID
        if self._revocations.is_revoked(digest=digest):
            return _REVOKED
        if key.expires_at_us is not None and key.expires_at_us <= self._clock.now_us():
            return _EXPIRED
        if not _is_permitted(key, request, client_address):
            return _NOT_PERMITTED
        _remember(self._good_keys, digest, None, self._rules.cache_size)
        return Identity(
            scheme=SecurityScheme.API_KEY,
            application=key.application,
            key_type=key.key_type,
            scopes=key.scopes,
            user=key.application.owner,
            expires_at_us=key.expires_at_us,
        )

    def _find_api_key(self, secret: Secret, digest: bytes, catalog: Catalog) -> ApiKey | None:
        digests = [digest]
        if self._rules.pepper is not None:
            pepper = self._rules.pepper.reveal().encode()
            digests.append(hmac.digest(pepper, secret.reveal().encode(), "sha256"))
        for candidate in digests:
            key = catalog.api_keys.get(candidate)
            # The look-up goes by a hash of a hash; this comparison does not leak its place.
            if key is not None and hmac.compare_digest(key.digest, candidate):
                return key
        return None

    async def _try_bearer(
        self,
        request: ApiRequest,
        route: Route,
        catalog: Catalog,
        client_address: str,
        deadline: Deadline,
    ) -> Identity | Denial:
        credential = find_bearer(request, self._rules.places.of_bearer(route.api))
        if credential is None:
            return _MISSING
        if isinstance(credential, Denial):
            return credential
        digest = credential.secret.digest()
        verified = self._find_verified(digest, route, catalog)
        if verified is None:
            refused = await self._failed_attempts.check(client_address, deadline)
            if refused is not None:
                return refused
            outcome = await self._verify(credential, route, catalog, deadline)
            if isinstance(outcome, Denial):
                if outcome.reason is Reason.INVALID_CREDENTIALS:
                    await self._failed_attempts.record(client_address, deadline)
                return outcome
            verified = outcome
            _remember(self._tokens, digest, verified, self._rules.cache_size)
        token = verified.token
        if self._revocations.is_revoked(
            token_id=token.token_id,
            digest=verified.digest,
            consumer_key=token.consumer_key,
            issued_at_us=token.issued_at_us,
        ):
            self._tokens.pop(digest, None)
            return _REVOKED
        return verified.identity

    def _find_verified(self, digest: bytes, route: Route, catalog: Catalog) -> _Verified | None:
        verified = self._tokens.get(digest)
        if verified is None:
            return None
        if verified.until_us <= self._clock.now_us():
            del self._tokens[digest]
            return None
        scheme = verified.identity.scheme
        if scheme not in route.resource.security:
            return None
        if verified.catalog is not catalog:
            issuer = catalog.issuers.get(verified.issuer.issuer)
            if issuer is None or issuer != verified.issuer:
                del self._tokens[digest]
                return None
            identity = _resolve(verified.token, issuer, catalog, scheme)
            verified = replace(verified, issuer=issuer, catalog=catalog, identity=identity)
            self._tokens[digest] = verified
        return verified

    async def _verify(
        self, credential: Credential, route: Route, catalog: Catalog, deadline: Deadline
    ) -> _Verified | Denial:
        security = route.resource.security
        text = credential.secret.reveal()
        if SecurityScheme.JWT in security and looks_like_jwt(text):
            token = read_token(text)
            if isinstance(token, Denial):
                return token
            issuer = catalog.issuers.get(token.issuer or "")
            if issuer is not None and issuer.keys is not None:
                return await self._verify_jwt(token, text, issuer, catalog, deadline)
        if SecurityScheme.OPAQUE in security and catalog.opaque_issuer is not None:
            return await self._introspect(
                credential.secret, catalog.opaque_issuer, catalog, deadline
            )
        return _INVALID

    async def _verify_jwt(
        self,
        token: UnverifiedToken,
        text: str,
        issuer: Issuer,
        catalog: Catalog,
        deadline: Deadline,
    ) -> _Verified | Denial:
        keys = await self._keys.find_keys(issuer, token.key_id, deadline=deadline)
        verified = verify_token(token, issuer, keys, self._clock.now_us())
        if isinstance(verified, Denial):
            return verified
        digest = token_digest(text)
        return self._believe(verified, issuer, catalog, SecurityScheme.JWT, issuer.ttl_us, digest)

    async def _introspect(
        self, secret: Secret, issuer: Issuer, catalog: Catalog, deadline: Deadline
    ) -> _Verified | Denial:
        assert issuer.introspection is not None
        claims = await self._introspector.introspect(issuer, secret, deadline=deadline)
        if claims is None:
            return _INACTIVE
        verified = check_introspected(claims, issuer, self._clock.now_us())
        if isinstance(verified, Denial):
            return verified
        ttl_us = issuer.introspection.ttl_us
        return self._believe(
            verified, issuer, catalog, SecurityScheme.OPAQUE, ttl_us, secret.digest()
        )

    def _believe(
        self,
        claims: VerifiedClaims,
        issuer: Issuer,
        catalog: Catalog,
        scheme: SecurityScheme,
        ttl_us: int,
        digest: bytes,
    ) -> _Verified | Denial:
        token = read_identity_claims(claims, issuer)
        if isinstance(token, Denial):
            return token
        until_us = self._clock.now_us() + ttl_us
        if token.expires_at_us is not None:
            until_us = min(until_us, token.expires_at_us + issuer.leeway_s * 1_000_000)
        identity = _resolve(token, issuer, catalog, scheme)
        return _Verified(issuer, token, catalog, identity, until_us, digest)


def _resolve(
    token: TokenIdentity, issuer: Issuer, catalog: Catalog, scheme: SecurityScheme
) -> Identity:
    """Who a verified token speaks for, among the applications of one catalog."""
    registration: ClientRegistration | None = None
    if token.consumer_key:
        registration = catalog.consumer_keys.get(
            (issuer.issuer, token.consumer_key)
        ) or catalog.consumer_keys.get(("", token.consumer_key))
    return Identity(
        scheme=scheme,
        application=None if registration is None else registration.application,
        key_type=token.key_type or (None if registration is None else registration.key_type),
        user=token.user,
        consumer_key=token.consumer_key,
        issuer=issuer.issuer,
        scopes=token.scopes,
        claims=token.claims,
        subscribed=token.subscribed,
        expires_at_us=token.expires_at_us,
        token_id=token.token_id,
    )


def _is_permitted(key: ApiKey, request: ApiRequest, client_address: str) -> bool:
    if key.networks:
        family, number = read_address(client_address)
        if not any(contains(network, family, number) for network in key.networks):
            return False
    if not key.referers:
        return True
    # With its slash, so that https://a.example does not let https://a.example.evil in.
    referer = (request.headers.get("referer") or "").rstrip("/") + "/"
    return any(referer.startswith(prefix.rstrip("/") + "/") for prefix in key.referers)


def _remember(cache: OrderedDict[bytes, Any], key: bytes, value: Any, size: int) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > size:
        cache.popitem(last=False)
