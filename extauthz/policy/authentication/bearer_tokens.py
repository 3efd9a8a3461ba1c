"""Says whom a bearer token speaks for, and remembers it for a while.

A JWT is verified with its issuer's keys; any other token is shown to the issuer that answers
for opaque ones, unless it cannot be a token of that issuer. Only these two may wait. A token
that was good is believed until it ends, as long as the same issuer's rules hold. Which
application it stands for is looked up anew in every new catalog, and whether it was revoked is
asked each time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final

from extauthz.errors import IntrospectionShareError, KeySourceError
from extauthz.model.catalog import Catalog, ClientRegistration
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity, Secret, SecurityScheme
from extauthz.model.issuers import Issuer
from extauthz.model.limits import US_PER_S, LimitLevel
from extauthz.policy.authentication.claim_checks import (
    VerifiedClaims,
    check_introspected,
    list_some,
    say_no_client,
    show_text,
)
from extauthz.policy.authentication.claims import TokenIdentity, read_identity_claims
from extauthz.policy.authentication.credentials import INVALID
from extauthz.policy.authentication.recently_used import RecentlyUsed
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.authentication.tokens import (
    BAD_SIGNATURE,
    UnverifiedToken,
    check_algorithm,
    check_unsigned,
    has_bearer_form,
    may_be_explained,
    read_if_jwt,
    token_digest,
    verify_token,
)
from extauthz.policy.limits.keys import write_client
from extauthz.ports import Clock, Deadline, KeySource, TokenIntrospector

_LOG: Final = logging.getLogger(__name__)

_INACTIVE: Final = Denial(
    reason=Reason.TOKEN_INACTIVE, detail="The token's issuer does not call it active."
)
_TOO_MANY: Final = Denial(
    reason=Reason.RATE_LIMITED,
    detail="Too many unknown tokens came from this address at once.",
    level=LimitLevel.CLIENT,
    retry_after_us=US_PER_S,
)
"""Not UNAVAILABLE: whoever sends many tokens must not make an outage of denials."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was good, and what it says.

    Attributes:
        identity: as the catalog of `generation` knows it.
        digest: what revocations know the token by.
    """

    issuer: Issuer
    token: TokenIdentity
    identity: Identity
    generation: int
    since_us: int
    until_us: int
    digest: bytes


class BearerTokens:
    """Verifies bearer tokens."""

    def __init__(
        self,
        *,
        keys: KeySource,
        introspector: TokenIntrospector,
        revocations: Revocations,
        clock: Clock,
        cache_size: int,
    ) -> None:
        self._keys = keys
        self._introspector = introspector
        self._revocations = revocations
        self._clock = clock
        self._verified: RecentlyUsed[_Verified] = RecentlyUsed(cache_size)
        self._catalog: Catalog | None = None
        self._generation = 0
        self._without_client: set[str] = set()
        """Issuers of whom it was said, under this catalog, that a token names no client."""

    def find_identity(
        self, secret: Secret, security: tuple[SecurityScheme, ...], catalog: Catalog
    ) -> Identity | Denial | None:
        """Whom a token speaks for that was good a moment ago. None: it has to be verified."""
        digest = secret.digest()
        verified = self._verified.find(digest)
        if verified is None or verified.identity.scheme not in security:
            return None
        # A clock that was set back makes nothing last longer.
        if not verified.since_us <= self._clock.now_us() < verified.until_us:
            self._verified.drop(digest)
            return None
        generation = self._generation_of(catalog)
        if verified.generation != generation:
            issuer = catalog.issuers.get(verified.issuer.issuer)
            if issuer is None or issuer != verified.issuer:
                self._verified.drop(digest)
                return None
            identity = _resolve(verified.token, issuer, catalog, verified.identity.scheme)
            verified = replace(verified, issuer=issuer, generation=generation, identity=identity)
            self._verified.keep(digest, verified)
        return self._check_revoked(verified, digest)

    async def verify(
        self,
        secret: Secret,
        security: tuple[SecurityScheme, ...],
        catalog: Catalog,
        deadline: Deadline,
        client_address: str = "",
    ) -> Identity | Denial:
        """Whom a token speaks for, found out from its signature or its issuer.

        client_address: where it came from; empty when that is not known.

        Raises:
            KeySourceError, IntrospectionError: it could not be found out in time.
        """
        outcome = await self._verify(secret, security, catalog, deadline, client_address)
        if isinstance(outcome, Denial):
            return outcome
        digest = secret.digest()
        self._verified.keep(digest, outcome)
        return self._check_revoked(outcome, digest)

    def _check_revoked(self, verified: _Verified, digest: bytes) -> Identity | Denial:
        token = verified.token
        revoked = self._revocations.judge(
            token_id=token.token_id,
            digest=verified.digest,
            consumer_key=token.consumer_key,
            user=token.user,
            issuer=verified.issuer.issuer,
            issued_at_us=token.issued_at_us,
        )
        if revoked is not None:
            self._verified.drop(digest)
            return revoked
        return verified.identity

    def _generation_of(self, catalog: Catalog) -> int:
        """A number for the catalog, so that no token keeps a catalog alive that was replaced."""
        if catalog is not self._catalog:
            self._catalog = catalog
            self._generation += 1
            self._without_client.clear()
        return self._generation

    async def _verify(
        self,
        secret: Secret,
        security: tuple[SecurityScheme, ...],
        catalog: Catalog,
        deadline: Deadline,
        client_address: str,
    ) -> _Verified | Denial:
        text = secret.reveal()
        token = read_if_jwt(text)
        if isinstance(token, Denial):
            return token
        if token is not None and SecurityScheme.JWT in security:
            issuer = _find_signer(token, catalog)
            if issuer is not None:
                return await self._verify_jwt(token, text, issuer, catalog, deadline)
        issuer = catalog.opaque_issuer if SecurityScheme.OPAQUE in security else None
        if issuer is not None and (token is None or may_be_explained(token, issuer)):
            # Nothing else goes out: what is no token at all may upset who is asked.
            if has_bearer_form(text):
                return await self._introspect(secret, issuer, catalog, deadline, client_address)
            return INVALID
        return INVALID if token is None else _unknown_issuer(token, catalog)

    def is_guessable(
        self, secret: Secret, security: tuple[SecurityScheme, ...], catalog: Catalog
    ) -> bool:
        """Whether a token is one that somebody has to be asked about.

        Nobody guesses a signature: a token with one is checked here.
        """
        token = read_if_jwt(secret.reveal()) if SecurityScheme.JWT in security else None
        if token is None or isinstance(token, Denial):
            return token is None
        return SecurityScheme.OPAQUE in security and _find_signer(token, catalog) is None

    async def _verify_jwt(
        self,
        token: UnverifiedToken,
        text: str,
        issuer: Issuer,
        catalog: Catalog,
        deadline: Deadline,
    ) -> _Verified | Denial:
        # Before anything is fetched: what no key makes good must not wait for one.
        denial = check_algorithm(token, issuer)
        if denial is not None:
            return denial
        try:
            keys = await self._keys.find_keys(issuer, token.key_id, deadline=deadline)
        except KeySourceError:
            # Nor may it profit from an outage of the keys.
            claims = check_unsigned(token, issuer, self._clock.now_us())
            if isinstance(claims, Denial):
                return claims
            raise
        claims = verify_token(token, issuer, keys, self._clock.now_us())
        if claims is BAD_SIGNATURE:
            # The issuer may have replaced the key under the same name, or without any name.
            newer = await self._keys.find_newer_keys(issuer, token.key_id, keys, deadline=deadline)
            if newer:
                claims = verify_token(token, issuer, newer, self._clock.now_us())
        if claims is BAD_SIGNATURE:
            named = "no kid" if token.key_id is None else f"the kid {show_text(token.key_id)}"
            found = f"it has {named}, and {len(keys)} of the issuer's keys were tried"
            return replace(BAD_SIGNATURE, found=found)
        if isinstance(claims, Denial):
            return claims
        digest = token_digest(text)
        return self._believe(claims, issuer, catalog, SecurityScheme.JWT, issuer.ttl_us, digest)

    async def _introspect(
        self,
        secret: Secret,
        issuer: Issuer,
        catalog: Catalog,
        deadline: Deadline,
        client_address: str,
    ) -> _Verified | Denial:
        assert issuer.introspection is not None
        client = write_client(client_address)
        try:
            answer = await self._introspector.introspect(
                issuer, secret, deadline=deadline, client=client
            )
        except IntrospectionShareError:
            return _TOO_MANY
        if answer is None:
            return _INACTIVE
        claims = check_introspected(answer, issuer, self._clock.now_us())
        if isinstance(claims, Denial):
            return claims
        ttl_us = issuer.introspection.ttl_us
        digest = token_digest(secret.reveal())
        return self._believe(claims, issuer, catalog, SecurityScheme.OPAQUE, ttl_us, digest)

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
        since_us = self._clock.now_us()
        until_us = since_us + ttl_us
        if token.expires_at_us is not None:
            until_us = min(until_us, token.expires_at_us + issuer.leeway_s * 1_000_000)
        identity = _resolve(token, issuer, catalog, scheme)
        generation = self._generation_of(catalog)
        if not token.consumer_key and issuer.issuer not in self._without_client:
            self._without_client.add(issuer.issuer)
            _LOG.info(
                "a good token of %s belongs to no application: %s; where another claim names the "
                "client, name that in claims.consumer_key of the issuer",
                issuer.issuer,
                say_no_client(claims, issuer),
            )
        return _Verified(issuer, token, identity, generation, since_us, until_us, digest)


def _find_signer(token: UnverifiedToken, catalog: Catalog) -> Issuer | None:
    """The issuer whose keys tell whether a JWT is genuine."""
    issuer = catalog.issuers.get(token.issuer)
    return None if issuer is None or issuer.keys is None else issuer


def _unknown_issuer(token: UnverifiedToken, catalog: Catalog) -> Denial:
    if token.issuer in catalog.issuers:
        found = (
            "it can be checked neither by keys (that needs jwt among the resource's schemes, and "
            "keys of its issuer) nor by asking (opaque, introspection of its issuer, a signature)"
        )
    else:
        iss = show_text(token.issuer) if token.issuer else "missing"
        found = f"its iss is {iss}, and the catalog's issuers are {list_some(catalog.issuers)}"
    return replace(INVALID, found=found)


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
        application_name="" if registration is not None else token.application_name,
    )
