"""Verifies bearer tokens, and caches those that were valid.

A JWT is verified with its issuer's keys; any other token is introspected at the issuers of opaque
tokens, one after the other, unless it cannot be a token of theirs. Only these two steps may wait. A valid
token is cached until it expires or its time in the cache is over, as long as the issuer's configuration
stays the same. Its application is looked up again in every new catalog, and revocations are
checked with every request.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from extauthz.errors import IntrospectionError, IntrospectionShareError, KeySourceError
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity, Secret, SecurityScheme
from extauthz.model.issuers import ApiCall, Issuer
from extauthz.model.limits import US_PER_S, LimitLevel
from extauthz.policy.authentication.claim_checks import (
    VerifiedClaims,
    check_introspected,
    check_validated,
    list_some,
    say_no_client,
    show_text,
)
from extauthz.policy.authentication.claims import (
    TokenIdentity,
    read_identity_claims,
    resolve_identity,
)
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
"""Not UNAVAILABLE: a client that sends many tokens must not turn denials into an outage."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """A valid token and its identity.

    Attributes:
        identity: as the catalog of `generation` has it.
        digest, signature: what revocations know the token by: `tokens.token_digest`, and the
            SHA-256 of a JWT's signature.
        until_us: when it has to be verified again.
    """

    issuer: Issuer
    token: TokenIdentity
    identity: Identity
    generation: int
    since_us: int
    until_us: int
    digest: bytes
    signature: bytes


class BearerTokens:
    """Verifies bearer tokens; at most `cache_size` valid ones are cached."""

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
        self.hits = 0
        """Tokens that had been verified before, since the start."""
        self.misses = 0
        """Tokens that had to be verified, since the start."""
        self._catalog: Catalog | None = None
        self._generation = 0
        self._without_client: set[str] = set()
        """Issuers for which this catalog's warning about tokens without a client was logged."""

    def find_identity(
        self,
        secret: Secret,
        security: tuple[SecurityScheme, ...],
        catalog: Catalog,
        call: ApiCall | None = None,
    ) -> Identity | Denial | None:
        """The identity of a cached token, or its revocation; None when it has to be verified.

        Args:
            call: where an issuer decides about calls; a token may be cached for this one only.
        """
        known = self._find_identity(secret.digest(), security, catalog)
        if known is None and call is not None:
            known = self._find_identity(call.digest(secret), security, catalog)
        if known is None:
            self.misses += 1
        else:
            self.hits += 1
        return known

    def _find_identity(
        self, digest: bytes, security: tuple[SecurityScheme, ...], catalog: Catalog
    ) -> Identity | Denial | None:
        verified = self._verified.find(digest)
        if verified is None or verified.identity.scheme not in security:
            return None
        # When the clock was set back, the token is verified again: it must not last longer.
        if not verified.since_us <= self._clock.now_us() < verified.until_us:
            self._verified.drop(digest)
            return None
        generation = self._generation_of(catalog)
        if verified.generation != generation:
            issuer = catalog.issuers.get(verified.issuer.issuer)
            if issuer is None or issuer != verified.issuer:
                self._verified.drop(digest)
                return None
            identity = resolve_identity(verified.token, issuer, catalog, verified.identity.scheme)
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
        call: ApiCall | None = None,
    ) -> Identity | Denial:
        """Verifies a token by its signature or its issuer, and caches it when it is valid.

        Args:
            client_address: the sender's IP address; empty when it is not known.
            call: what the token is shown for; needed where an issuer decides about calls.

        Raises:
            KeySourceError, IntrospectionError: the issuer's keys or answer did not come in time.
        """
        outcome = await self._verify(secret, security, catalog, deadline, client_address, call)
        if isinstance(outcome, Denial):
            return outcome
        is_for_call = (
            outcome.issuer.key_validation is not None
            and outcome.identity.scheme is SecurityScheme.OPAQUE
        )
        digest = call.digest(secret) if is_for_call and call is not None else secret.digest()
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
            signature=verified.signature,
        )
        if revoked is not None:
            self._verified.drop(digest)
            return revoked
        return verified.identity

    def _generation_of(self, catalog: Catalog) -> int:
        """The catalog's number. Cached tokens hold it, so they do not keep an old catalog alive."""
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
        call: ApiCall | None,
    ) -> _Verified | Denial:
        text = secret.reveal()
        token = read_if_jwt(text)
        if isinstance(token, Denial):
            return token
        if token is not None and SecurityScheme.JWT in security:
            issuer = _find_signer(token, catalog)
            if issuer is not None:
                return await self._verify_jwt(token, text, issuer, catalog, deadline)
        asked = catalog.opaque_issuers if SecurityScheme.OPAQUE in security else ()
        if token is not None:
            asked = tuple(issuer for issuer in asked if may_be_explained(token, issuer))
        if asked:
            # Text that cannot be a token is never sent to an issuer.
            if has_bearer_form(text):
                return await self._ask_issuers(
                    secret, asked, catalog, deadline, client_address, call
                )
            return INVALID
        return INVALID if token is None else _unknown_issuer(token, catalog)

    def is_guessable(
        self, secret: Secret, security: tuple[SecurityScheme, ...], catalog: Catalog
    ) -> bool:
        """Whether the token can be guessed: it is not a JWT whose signature is verified here."""
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
        # Before keys are fetched: a token that no key can make valid must not wait for them.
        denial = check_algorithm(token, issuer)
        if denial is not None:
            return denial
        try:
            keys = await self._keys.find_keys(issuer, token.key_id, deadline=deadline)
        except KeySourceError:
            # A token that is invalid in any case is denied although the keys are not available.
            claims = check_unsigned(token, issuer, self._clock.now_us())
            if isinstance(claims, Denial):
                return claims
            raise
        claims = verify_token(token, issuer, keys, self._clock.now_us())
        if claims is BAD_SIGNATURE:
            # The issuer may have replaced its key and kept the kid, or may use none.
            newer = await self._keys.find_newer_keys(issuer, token.key_id, keys, deadline=deadline)
            if newer:
                claims = verify_token(token, issuer, newer, self._clock.now_us())
        if claims is BAD_SIGNATURE:
            named = "no kid" if token.key_id is None else f"the kid {show_text(token.key_id)}"
            found = f"it has {named}, and {len(keys)} of the issuer's keys were tried"
            return replace(BAD_SIGNATURE, found=found)
        if isinstance(claims, Denial):
            return claims
        if issuer.suspended:
            raise KeySourceError(
                f"tokens of {issuer.issuer} are not decided on: what was revoked is not known"
            )
        digest = token_digest(text)
        signature = hashlib.sha256(token.signature).digest()
        return self._believe(
            claims, issuer, catalog, SecurityScheme.JWT, issuer.ttl_us, digest, signature
        )

    async def _ask_issuers(
        self,
        secret: Secret,
        asked: Sequence[Issuer],
        catalog: Catalog,
        deadline: Deadline,
        client_address: str,
        call: ApiCall | None,
    ) -> _Verified | Denial:
        """Asks one issuer after the other, until one calls the token active.

        Each gets an equal part of the time that is left, so that one that is away does not keep the
        others from being asked. When none knows the token and one did not answer, there is no
        decision, unless another has called it active and its claims refuse it.
        """
        outcome: Denial = _INACTIVE
        failure: IntrospectionError | None = None
        for number, issuer in enumerate(asked):
            part = deadline.share(len(asked) - number)
            try:
                answer = await self._introspect(secret, issuer, catalog, part, client_address, call)
            except IntrospectionError as error:
                failure = failure or error
                continue
            if not isinstance(answer, Denial) or answer is _TOO_MANY:
                return answer
            if outcome is _INACTIVE:
                outcome = answer
        if failure is not None and outcome is _INACTIVE:
            raise failure
        return outcome

    async def _introspect(
        self,
        secret: Secret,
        issuer: Issuer,
        catalog: Catalog,
        deadline: Deadline,
        client_address: str,
        call: ApiCall | None,
    ) -> _Verified | Denial:
        endpoint = issuer.key_validation or issuer.introspection
        assert endpoint is not None
        client = write_client(client_address)
        try:
            answer = await self._introspector.introspect(
                issuer, secret, call=call, deadline=deadline, client=client
            )
        except IntrospectionShareError:
            return _TOO_MANY
        if answer is None:
            return _INACTIVE
        if isinstance(answer, Denial):
            return answer
        check = check_introspected if issuer.key_validation is None else check_validated
        claims = check(answer, issuer, self._clock.now_us())
        if isinstance(claims, Denial):
            return claims
        digest = token_digest(secret.reveal())
        return self._believe(
            claims, issuer, catalog, SecurityScheme.OPAQUE, endpoint.ttl_us, digest
        )

    def _believe(
        self,
        claims: VerifiedClaims,
        issuer: Issuer,
        catalog: Catalog,
        scheme: SecurityScheme,
        ttl_us: int,
        digest: bytes,
        signature: bytes = b"",
    ) -> _Verified | Denial:
        token = read_identity_claims(claims, issuer)
        if isinstance(token, Denial):
            return token
        since_us = self._clock.now_us()
        until_us = since_us + ttl_us
        if token.expires_at_us is not None:
            until_us = min(until_us, token.expires_at_us + issuer.leeway_s * 1_000_000)
        identity = resolve_identity(token, issuer, catalog, scheme)
        generation = self._generation_of(catalog)
        if not token.consumer_key and issuer.issuer not in self._without_client:
            self._without_client.add(issuer.issuer)
            _LOG.info(
                "a valid token of %s belongs to no application: %s; if another claim "
                "names the client, set claims.consumer_key of the issuer to it",
                issuer.issuer,
                say_no_client(claims, issuer),
            )
        return _Verified(issuer, token, identity, generation, since_us, until_us, digest, signature)


def _find_signer(token: UnverifiedToken, catalog: Catalog) -> Issuer | None:
    """The issuer whose keys verify a JWT; None when the catalog has no such issuer."""
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
