"""Keeps revocations: of tokens, of API keys, and of all tokens of a consumer or user.

They come one by one (`revoke_*`), as whole lists of a source (`replace`), and as the orders of an
emergency, which are replaced as a whole (`standing`). A revocation in force is never dropped:
above `max_entries` all are kept and an error is logged, because a dropped one would let a stolen
token in, and only trusted sources can add any. An entry is dropped an hour after the credential
has expired (in a list, with the next list), which is longer than any leeway for clock skew.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from extauthz.model.catalog import RevokedToken
from extauthz.model.decision import Denial
from extauthz.policy.authentication.credentials import REVOKED
from extauthz.ports import Clock

_LOG: Final = logging.getLogger(__name__)

KEPT_AFTER_EXPIRY_US: Final = 3_600_000_000

_K = TypeVar("_K", str, bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An operator's order that revokes one credential, or all tokens of a consumer key or user.

    Attributes:
        token_id: ``jti`` of a token.
        digest: as for `Revocations.revoke_digest`.
        consumer_key, user: revokes tokens of these that were issued before `issued_before_us`.
        issuer: the issuer of `token_id`, `consumer_key` or `user`; empty for any issuer.
        until_us: when the order ends; None when it does not.
        source: where the order was written, for operators.
    """

    name: str
    token_id: str = ""
    digest: bytes = b""
    consumer_key: str = ""
    user: str = ""
    issuer: str = ""
    issued_before_us: int = 0
    until_us: int | None = None
    source: str = ""


_NO_ORDERS: Final[list[Revocation]] = []


class StandingOrders:
    """An immutable set of revocations, indexed for look-ups."""

    def __init__(self, orders: Iterable[Revocation] = ()) -> None:
        self._by_token: dict[tuple[str, str], list[Revocation]] = {}
        self._by_digest: dict[bytes, list[Revocation]] = {}
        self._by_consumer: dict[tuple[str, str], list[Revocation]] = {}
        self._by_user: dict[tuple[str, str], list[Revocation]] = {}
        self.count = 0
        for order in orders:
            self.count += 1
            if order.token_id:
                self._by_token.setdefault((order.issuer, order.token_id), []).append(order)
            elif order.digest:
                self._by_digest.setdefault(order.digest, []).append(order)
            elif order.consumer_key:
                self._by_consumer.setdefault((order.issuer, order.consumer_key), []).append(order)
            else:
                self._by_user.setdefault((order.issuer, order.user), []).append(order)

    def find(
        self,
        *,
        now_us: int,
        token_id: str,
        digest: bytes,
        consumer_key: str,
        user: str,
        issuer: str,
        issued_at_us: int | None,
    ) -> Revocation | None:
        """The order that revokes a credential. A token without an issue time counts as old."""
        for its_issuer in (issuer, ""):
            for order in (
                *self._by_token.get((its_issuer, token_id), _NO_ORDERS),
                *self._by_consumer.get((its_issuer, consumer_key), _NO_ORDERS),
                *self._by_user.get((its_issuer, user), _NO_ORDERS),
            ):
                is_older = order.token_id != "" or (
                    issued_at_us is None or issued_at_us < order.issued_before_us
                )
                if is_older and (order.until_us is None or now_us < order.until_us):
                    return order
        for order in self._by_digest.get(digest, _NO_ORDERS):
            if order.until_us is None or now_us < order.until_us:
                return order
        return None


class _Entries(Generic[_K]):
    """Keys that each stay until a time, or forever (None)."""

    __slots__ = ("_ends", "_next")

    def __init__(self) -> None:
        self._ends: dict[_K, int | None] = {}
        self._next: list[tuple[int, _K]] = []
        """A heap of ends. An entry that differs from `_ends` is out of date and ignored."""

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, key: _K) -> bool:
        return key in self._ends

    def add(self, key: _K, expires_at_us: int | None) -> None:
        """Adds a key, or extends its time; never shortens it."""
        if key in self._ends:
            known_us = self._ends[key]
            if known_us is None or (expires_at_us is not None and expires_at_us <= known_us):
                return
        self._ends[key] = expires_at_us
        if expires_at_us is not None:
            heapq.heappush(self._next, (expires_at_us, key))

    def drop_expired(self, now_us: int) -> None:
        """Removes the keys whose time is over."""
        while self._next and self._next[0][0] + KEPT_AFTER_EXPIRY_US <= now_us:
            expires_at_us, key = heapq.heappop(self._next)
            if self._ends.get(key) == expires_at_us:
                del self._ends[key]


class _OlderTokens:
    """Names whose tokens are revoked when they were issued before a time."""

    __slots__ = ("_names", "issued_before_us")

    def __init__(self) -> None:
        self._names: _Entries[str] = _Entries()
        self.issued_before_us: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, issued_before_us: int, expires_at_us: int | None) -> None:
        """Adds a name, or moves its times on; never back."""
        known_us = self.issued_before_us.get(name, issued_before_us)
        self.issued_before_us[name] = max(known_us, issued_before_us)
        self._names.add(name, expires_at_us)

    def has(self, name: str, issued_at_us: int | None) -> bool:
        """Whether a token of the name is revoked; one without an issue time counts as old."""
        issued_before_us = self.issued_before_us.get(name) if name else None
        return issued_before_us is not None and (
            issued_at_us is None or issued_at_us < issued_before_us
        )

    def drop_expired(self, now_us: int) -> None:
        """Removes the names whose time is over."""
        self._names.drop_expired(now_us)
        if len(self.issued_before_us) > len(self._names):
            self.issued_before_us = {
                name: before_us
                for name, before_us in self.issued_before_us.items()
                if name in self._names
            }


@dataclass(frozen=True, slots=True)
class _Listed:
    """The revocations of a source's list."""

    tokens: frozenset[str] = frozenset()
    digests: frozenset[bytes] = frozenset()
    orders: tuple[Revocation, ...] = ()


def _list(source: str, entries: Iterable[RevokedToken], gone_us: int) -> _Listed:
    """The entries of a list whose tokens did not expire before `gone_us`."""
    tokens: set[str] = set()
    digests: set[bytes] = set()
    orders: list[Revocation] = []
    for entry in entries:
        if entry.expires_at_us is not None and entry.expires_at_us <= gone_us:
            continue
        if entry.token_id:
            tokens.add(entry.token_id)
        elif entry.digest:
            digests.add(entry.digest)
        else:
            orders.append(
                Revocation(
                    name="revoked_tokens",
                    consumer_key=entry.consumer_key,
                    user=entry.user,
                    issuer=entry.issuer,
                    issued_before_us=entry.issued_before_us,
                    source=source,
                )
            )
    return _Listed(frozenset(tokens), frozenset(digests), tuple(orders))


class Revocations:
    """All revocations, in memory. A check costs a few dictionary look-ups, and none when empty.

    Attributes:
        standing: the orders of an emergency; replaced by the code that reads them.
    """

    def __init__(self, clock: Clock, max_entries: int = 1_000_000) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._is_over = False
        self._tokens: _Entries[str] = _Entries()
        self._digests: _Entries[bytes] = _Entries()
        self._consumers = _OlderTokens()
        self._users = _OlderTokens()
        self._lists: dict[str, _Listed] = {}
        self._listed = _Listed()
        self._listed_orders = StandingOrders()
        self.standing = StandingOrders()

    def __len__(self) -> int:
        told = len(self._tokens) + len(self._digests) + len(self._consumers) + len(self._users)
        listed = self._listed
        return told + len(listed.tokens) + len(listed.digests) + len(listed.orders)

    def revoke_token(self, token_id: str, expires_at_us: int | None = None) -> None:
        """Revokes the token with this ``jti``, until it expires; None when that is not known."""
        self._tokens.add(token_id, expires_at_us)
        self._tidy()

    def revoke_digest(self, digest: bytes, expires_at_us: int | None = None) -> None:
        """Revokes an API key or token by its digest.

        The digest is `Secret.digest` of an API key,
        `extauthz.policy.authentication.tokens.token_digest` of a bearer token, or the SHA-256 of
        the decoded signature of a JWT.
        """
        self._digests.add(digest, expires_at_us)
        self._tidy()

    def revoke_consumer(
        self, consumer_key: str, issued_before_us: int, expires_at_us: int | None = None
    ) -> None:
        """Revokes every token of a consumer that was issued before a time.

        `expires_at_us` is when the last of those tokens expires; None when that is not known.
        """
        self._consumers.add(consumer_key, issued_before_us, expires_at_us)
        self._tidy()

    def revoke_user(
        self, user: str, issued_before_us: int, expires_at_us: int | None = None
    ) -> None:
        """Revokes every token of a user, of any issuer, as `revoke_consumer` does."""
        self._users.add(user, issued_before_us, expires_at_us)
        self._tidy()

    def replace(self, source_name: str, entries: Iterable[RevokedToken]) -> None:
        """Replaces a source's last list by this one. An empty list removes it."""
        gone_us = self._clock.now_us() - KEPT_AFTER_EXPIRY_US
        listed = _list(source_name, entries, gone_us)
        self._lists.pop(source_name, None)
        if listed != _Listed():
            self._lists[source_name] = listed
        lists = tuple(self._lists.values())
        # A single list is not copied: it may be long, and no decision is made meanwhile.
        if len(lists) == 1:
            self._listed = lists[0]
        else:
            self._listed = _Listed(
                tokens=frozenset().union(*(one.tokens for one in lists)),
                digests=frozenset().union(*(one.digests for one in lists)),
                orders=tuple(order for one in lists for order in one.orders),
            )
        self._listed_orders = StandingOrders(self._listed.orders)
        self._tidy()

    def judge(
        self,
        *,
        token_id: str = "",
        digest: bytes = b"",
        consumer_key: str = "",
        user: str = "",
        issuer: str = "",
        issued_at_us: int | None = None,
        signature: bytes = b"",
    ) -> Denial | None:
        """The denial when any of these is revoked; None when none is.

        Args:
            signature: the SHA-256 of the decoded signature of a JWT.
        """
        for orders in self._orders_in_force():
            order = orders.find(
                now_us=self._clock.now_us(),
                token_id=token_id,
                digest=digest,
                consumer_key=consumer_key,
                user=user,
                issuer=issuer,
                issued_at_us=issued_at_us,
            )
            if order is not None:
                found = f"{order.name} of {order.source}"
                return replace(REVOKED, rule=order.name, found=found)
        is_revoked = self.is_revoked(
            token_id=token_id,
            digest=digest,
            consumer_key=consumer_key,
            user=user,
            issued_at_us=issued_at_us,
            signature=signature,
        )
        return REVOKED if is_revoked else None

    def _orders_in_force(self) -> tuple[StandingOrders, ...]:
        if not self.standing.count and not self._listed_orders.count:
            return ()
        return tuple(it for it in (self.standing, self._listed_orders) if it.count)

    def is_revoked(
        self,
        *,
        token_id: str = "",
        digest: bytes = b"",
        consumer_key: str = "",
        user: str = "",
        issued_at_us: int | None = None,
        signature: bytes = b"",
    ) -> bool:
        """Whether any of these is revoked; does not look at orders about consumers and users.

        A token without an issue time counts as old.
        """
        listed = self._listed
        if token_id and (token_id in self._tokens or token_id in listed.tokens):
            return True
        if digest and (digest in self._digests or digest in listed.digests):
            return True
        if signature and (signature in self._digests or signature in listed.digests):
            return True
        # Most of the time both are empty, and a call would cost more than the look.
        if self._consumers.issued_before_us and self._consumers.has(consumer_key, issued_at_us):
            return True
        return bool(self._users.issued_before_us) and self._users.has(user, issued_at_us)

    def _tidy(self) -> None:
        now_us = self._clock.now_us()
        self._tokens.drop_expired(now_us)
        self._digests.drop_expired(now_us)
        self._consumers.drop_expired(now_us)
        self._users.drop_expired(now_us)
        is_over = len(self) > self._max_entries
        if is_over and not self._is_over:
            _LOG.error(
                "%d revocations are more than the %d expected; all are kept. Give them an "
                "expiry, or raise the limit.",
                len(self),
                self._max_entries,
            )
        self._is_over = is_over
