"""Authenticates a caller by its API key.

A key is looked up by its digest. One that is not known and has the form of a JWT is verified as a
signed key (`extauthz.policy.authentication.api_keys.signed`). The digest may be the SHA-256 of the key or its HMAC-SHA-256 under
the settings' pepper. A key may be good for one API only, and may belong to no application; its
callers are then counted by the key.
"""

from __future__ import annotations

import hmac
from typing import Final

from extauthz.model.catalog import ApiKey, Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity, Secret, SecurityScheme
from extauthz.model.issuers import SignedKeyKind
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.values import request_value
from extauthz.policy.authentication.api_keys.restrictions import check_restrictions
from extauthz.policy.authentication.api_keys.signed import SignedKey, SignedKeys
from extauthz.policy.authentication.credentials import INVALID
from extauthz.policy.authentication.failed_attempts import FailedAttempts
from extauthz.policy.authentication.recently_used import RecentlyUsed
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.authentication.tokens import UnverifiedToken, read_if_jwt
from extauthz.ports import Clock, Deadline, KeySource

_EXPIRED: Final = Denial(reason=Reason.TOKEN_EXPIRED, detail="The credential has expired.")
_OTHER_API: Final = Denial(
    reason=Reason.SUBSCRIPTION_NOT_FOUND, detail="The key is for another API."
)
_ID_DIGITS: Final = 16
"""Hexadecimal digits of a key's digest that identify a caller without an application."""


@request_value(frozen=True, slots=True, kw_only=True)
class Presented:
    """An API key as it was presented.

    Attributes:
        count_failures: False when nothing may be counted, as in a peek.
    """

    secret: Secret
    request: ApiRequest
    route: Route
    catalog: Catalog
    client_address: str
    deadline: Deadline
    count_failures: bool = True


class ApiKeys:
    """Checks API keys.

    Args:
        keys: the keys that verify signed ones.
        pepper: the key of API keys that are stored as HMAC-SHA-256.
        cache_size: number of good keys whose identities are kept.
    """

    def __init__(
        self,
        *,
        keys: KeySource,
        pepper: Secret | None,
        revocations: Revocations,
        failed_attempts: FailedAttempts,
        clock: Clock,
        cache_size: int,
    ) -> None:
        self._pepper = pepper
        self._revocations = revocations
        self._failed_attempts = failed_attempts
        self._clock = clock
        self.signed: Final = SignedKeys(keys=keys, clock=clock, cache_size=cache_size)
        self._good_keys: RecentlyUsed[tuple[ApiKey, Identity]] = RecentlyUsed(cache_size)
        """Valid keys with their identities, which hold while the catalog has the same key."""

    async def identify(self, presented: Presented) -> Identity | Denial:
        """The identity that a key proves, or the denial."""
        digest = presented.secret.digest()
        catalog = presented.catalog
        known = self._good_keys.find(digest)
        if known is None and catalog.api_key_signers and digest not in catalog.api_keys:
            token = read_if_jwt(presented.secret.reveal())
            if token is not None:
                return await self._identify_signed(presented, digest, token, SignedKeyKind.API_KEY)
        if known is None:
            refused = await self._failed_attempts.check(
                presented.client_address, presented.deadline
            )
            if refused is not None:
                return refused
        key = self._find(presented.secret, digest, catalog)
        if key is None:
            self._good_keys.drop(digest)
            if presented.count_failures:
                await self._failed_attempts.record(presented.client_address, presented.deadline)
            return INVALID
        # Either digest may be revoked: an operator with a pepper may know only the peppered one.
        revoked = self._revocations.judge(digest=digest)
        if revoked is None and key.digest != digest:
            revoked = self._revocations.judge(digest=key.digest)
        if revoked is not None:
            return revoked
        if key.expires_at_us is not None and key.expires_at_us <= self._clock.now_us():
            return _EXPIRED
        api = presented.route.api
        if key.api is not None and key.api != (api.name, api.version):
            return INVALID
        if key.is_restricted:
            denial = check_restrictions(
                presented.request,
                presented.client_address,
                networks=key.networks,
                referers=key.referers,
                patterns=key.referer_patterns,
            )
            if denial is not None:
                return denial
        if known is not None and known[0] is key:
            return known[1]
        identity = _identify(key)
        self._good_keys.keep(digest, (key, identity))
        return identity

    async def identify_internal(self, presented: Presented) -> Identity | Denial:
        """The identity that an internal key proves for the API that it is for, or the denial."""
        token = read_if_jwt(presented.secret.reveal()) or INVALID
        kind = SignedKeyKind.INTERNAL
        found = await self._identify_signed(presented, presented.secret.digest(), token, kind)
        if isinstance(found, Denial):
            return found
        api = presented.route.api
        is_for_api = (api.name, api.version) in (found.subscribed or {})
        return found if is_for_api else _OTHER_API

    async def _identify_signed(
        self,
        presented: Presented,
        digest: bytes,
        token: UnverifiedToken | Denial,
        kind: SignedKeyKind,
    ) -> Identity | Denial:
        catalog, address = presented.catalog, presented.client_address
        key = self.signed.find(digest, catalog)
        if key is None or key.signer.kind is not kind:
            refused = await self._failed_attempts.check(address, presented.deadline)
            # Also when the address is refused: a signature cannot be guessed, and the sender of a
            # good key may share the address with a guesser.
            verified: SignedKey | Denial = INVALID
            if isinstance(token, Denial):
                verified = token
            else:
                text = presented.secret.reveal()
                verified = await self.signed.verify(text, token, kind, catalog, presented.deadline)
            if isinstance(verified, Denial):
                if verified.reason is Reason.INVALID_CREDENTIALS and presented.count_failures:
                    await self._failed_attempts.record(address, presented.deadline)
                return refused or verified
            key = verified
        revoked = self._revocations.judge(
            token_id=key.token.token_id,
            digest=key.digest,
            issuer=key.signer.issuer.issuer,
            issued_at_us=key.token.issued_at_us,
            signature=key.signature,
        ) or self._revocations.judge(digest=digest)
        if revoked is not None:
            return revoked
        if key.networks or key.patterns:
            denial = check_restrictions(
                presented.request, address, networks=key.networks, patterns=key.patterns
            )
            if denial is not None:
                return denial
        return key.identity

    def _find(self, secret: Secret, digest: bytes, catalog: Catalog) -> ApiKey | None:
        digests = [digest]
        if self._pepper is not None:
            pepper = self._pepper.reveal().encode()
            digests.append(
                hmac.digest(pepper, secret.reveal().encode("utf-8", "surrogatepass"), "sha256")
            )
        for candidate in digests:
            key = catalog.api_keys.get(candidate)
            # The look-up's time depends on a hash of the digest; this takes constant time.
            if key is not None and hmac.compare_digest(key.digest, candidate):
                return key
        return None


def _identify(key: ApiKey) -> Identity:
    application = key.application
    return Identity(
        scheme=SecurityScheme.API_KEY,
        application=application,
        key_type=key.key_type,
        scopes=key.scopes,
        user=key.user or ("" if application is None else application.owner),
        expires_at_us=key.expires_at_us,
        token_id=key.digest.hex()[:_ID_DIGITS] if application is None else "",
    )
