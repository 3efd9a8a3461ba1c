"""Verifies signed API keys: JWTs that WSO2 API Manager's portals give out.

Such a key says whose application it is of and, unless it is a lightweight one, which APIs that has
subscribed to. Its ``kid`` names the certificate that verifies it. An internal key (header
``Internal-Key``) lets a publisher try one API, without an application. Neither is an access token,
and no access token is taken for one: both may be signed with the same key.

The keys that verify are in the catalog, so nothing here waits for the network. Source: WSO2
carbon-apimgt, ApiKeyAuthenticator, InternalAPIKeyAuthenticator and ApiKeyGenerator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Network, ip_network
from typing import Any, Final, TypeVar

from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.deny_rules import Network
from extauthz.model.identity import Identity, KeyType, SecurityScheme
from extauthz.model.issuers import ApiKeySigner, SignedKeyKind
from extauthz.model.referers import RefererPattern, read_referer_pattern
from extauthz.policy.authentication.claim_checks import (
    VerifiedClaims,
    check_key_claims,
    list_some,
    show_text,
)
from extauthz.policy.authentication.claims import TokenIdentity, read_identity_claims
from extauthz.policy.authentication.credentials import INVALID
from extauthz.policy.authentication.recently_used import RecentlyUsed
from extauthz.policy.authentication.tokens import (
    BAD_SIGNATURE,
    UnverifiedToken,
    check_algorithm,
    check_signature,
    read_claims,
    token_digest,
)
from extauthz.ports import Clock, Deadline, KeySource

MAX_PLACES: Final = 100
"""Addresses or pages that one key may be restricted to."""
_ONLY_ACCESS_TOKENS_HAVE: Final = ("azp", "client_id", "consumerKey", "scope", "aut")
_INTERNAL: Final = "InternalKey"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SignedKey:
    """A key that was verified.

    Attributes:
        digest, signature: what revocations know it by, as a bearer token.
        until_us: when it has to be verified again.
    """

    signer: ApiKeySigner
    token: TokenIdentity
    identity: Identity
    networks: tuple[Network, ...]
    patterns: tuple[RefererPattern, ...]
    digest: bytes
    signature: bytes
    since_us: int
    until_us: int


class SignedKeys:
    """Verifies signed keys; at most `cache_size` good ones are kept, until the catalog changes."""

    def __init__(self, *, keys: KeySource, clock: Clock, cache_size: int) -> None:
        self._keys = keys
        self._clock = clock
        self._cache_size = cache_size
        self._catalog: Catalog | None = None
        self._good: RecentlyUsed[SignedKey] = RecentlyUsed(cache_size)

    def find(self, digest: bytes, catalog: Catalog) -> SignedKey | None:
        """A good key that was verified with this catalog, by the digest of its text."""
        if catalog is not self._catalog:
            self._catalog = catalog
            self._good = RecentlyUsed(self._cache_size)
        known = self._good.find(digest)
        if known is None or known.since_us <= self._clock.now_us() < known.until_us:
            return known
        self._good.drop(digest)
        return None

    async def verify(
        self,
        text: str,
        token: UnverifiedToken,
        kind: SignedKeyKind,
        catalog: Catalog,
        deadline: Deadline,
    ) -> SignedKey | Denial:
        """Verifies a key by the signers of its kind."""
        signers = [
            it for it in catalog.api_key_signers if it.kind is kind and it.may_sign(token.key_id)
        ]
        denial = replace(INVALID, found=_say_no_signer(token, kind, catalog))
        for signer in signers:
            issuer = signer.issuer
            keys = await self._keys.find_keys(issuer, token.key_id, deadline=deadline)
            refused = check_algorithm(token, issuer) or check_signature(token, keys)
            if refused is None:
                return self._believe(text, token, signer, catalog)
            denial = refused
            if refused is not BAD_SIGNATURE:
                continue
            found = f"its kid is {show_text(token.key_id)}, and {len(keys)} keys were tried"
            denial = replace(BAD_SIGNATURE, found=found)
        return denial

    def _believe(
        self, text: str, token: UnverifiedToken, signer: ApiKeySigner, catalog: Catalog
    ) -> SignedKey | Denial:
        now_us = self._clock.now_us()
        read = read_claims(token)
        claims = read if isinstance(read, Denial) else check_key_claims(read, signer.issuer, now_us)
        if isinstance(claims, Denial):
            return claims
        refused = _judge_kind(claims, signer.kind)
        if refused is not None:
            return refused
        said = read_identity_claims(claims, signer.issuer)
        if isinstance(said, Denial):
            return said
        networks = _read_places("permittedIP", claims, _read_network)
        patterns = _read_places("permittedReferer", claims, read_referer_pattern)
        if isinstance(networks, Denial):
            return networks
        if isinstance(patterns, Denial):
            return patterns
        until_us = now_us + signer.issuer.ttl_us
        if said.expires_at_us is not None:
            until_us = min(until_us, said.expires_at_us + signer.issuer.leeway_s * 1_000_000)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        key = SignedKey(
            signer=signer,
            token=said,
            identity=_identify(said, claims, signer.kind, catalog),
            networks=networks,
            patterns=patterns,
            digest=token_digest(text),
            signature=hashlib.sha256(token.signature).digest(),
            since_us=now_us,
            until_us=until_us,
        )
        self.find(digest, catalog)  # makes the cache this catalog's
        self._good.keep(digest, key)
        return key


def _say_no_signer(token: UnverifiedToken, kind: SignedKeyKind, catalog: Catalog) -> str:
    of_kind = [it for it in catalog.api_key_signers if it.kind is kind]
    if not of_kind:
        return f"it is a JWT, and the catalog has no api_key_issuers of kind {kind.value}"
    known = sorted({name for it in of_kind for name in it.key_ids})
    return (
        f"its kid is {show_text(token.key_id)}, and those of api_key_issuers are {list_some(known)}"
    )


def _judge_kind(claims: Mapping[str, Any], kind: SignedKeyKind) -> Denial | None:
    is_internal = claims.get("token_type") == _INTERNAL
    if is_internal is not (kind is SignedKeyKind.INTERNAL):
        found = f"its token_type is {show_text(claims.get('token_type'))}"
    elif not is_internal and not isinstance(claims.get("application"), Mapping):
        found = "it has no application"
    else:
        extra = [name for name in _ONLY_ACCESS_TOKENS_HAVE if name in claims]
        if not extra:
            return None
        found = f"it has {list_some(extra)}, as access tokens have"
    return Denial(
        reason=Reason.INVALID_CREDENTIALS, detail="The token is not an API key.", found=found
    )


def _identify(
    said: TokenIdentity, claims: VerifiedClaims, kind: SignedKeyKind, catalog: Catalog
) -> Identity:
    subscribed = said.subscribed
    application = None
    if kind is SignedKeyKind.INTERNAL:
        subscribed = dict.fromkeys(subscribed or {}, "")
    else:
        application = _find_application(said, claims, catalog)
    return Identity(
        scheme=SecurityScheme.API_KEY,
        application=application,
        key_type=said.key_type or KeyType.PRODUCTION,
        user=said.user,
        claims=said.claims,
        subscribed=subscribed,
        expires_at_us=said.expires_at_us,
        token_id=said.token_id,
        application_name="" if application is not None else said.application_name,
    )


def _find_application(
    said: TokenIdentity, claims: VerifiedClaims, catalog: Catalog
) -> Application | None:
    """The application by its UUID, else by owner and name."""
    uuid = claims["application"].get("uuid")
    found = catalog.applications_by_uuid.get(uuid) if isinstance(uuid, str) else None
    if found is not None:
        return found
    owner, name = said.application_owner, said.application_name
    found = catalog.applications.get(f"{owner}:{name}")
    if found is None:
        found = catalog.applications.get(name)
    return found if found is not None and found.owner == owner else None


def _read_places(
    name: str, claims: Mapping[str, Any], read: Callable[[str], _T]
) -> tuple[_T, ...] | Denial:
    """The addresses or pages of a claim; those that cannot be read fit nothing."""
    text = claims.get(name, "")
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    parts = [part for part in parts if part]
    places: list[_T] = []
    for part in parts[:MAX_PLACES]:
        try:
            places.append(read(part))
        except ValueError:
            continue
    if (parts and not places) or len(parts) > MAX_PLACES or not isinstance(text, str):
        return Denial(
            reason=Reason.INVALID_CREDENTIALS,
            detail="A claim of the key cannot be used.",
            found=f"its {name} is {show_text(text)}",
        )
    return tuple(places)


def _read_network(text: str) -> Network:
    """A network that may have bits set behind its prefix, or an address. Raises ValueError."""
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        if network.prefixlen < 96:
            raise ValueError("reaches beyond IPv4")
        return ip_network((int(network.network_address.ipv4_mapped), network.prefixlen - 96))
    return network
