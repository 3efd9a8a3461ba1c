"""Defines the core's ports.

Every implementation of a store, a source or an introspector passes the contract tests of its port
(`tests/contracts`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from extauthz.model.limits import Charge, Taking

if TYPE_CHECKING:
    from extauthz.model.catalog import Catalog
    from extauthz.model.decision import Decision, Denial
    from extauthz.model.identity import Secret
    from extauthz.model.issuers import ApiCall, Issuer
    from extauthz.model.request import ApiRequest
    from extauthz.model.usage import UsageRecord


class Clock(Protocol):
    """Tells the time."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the caller stops waiting, in seconds of `time.monotonic`; None when it never does."""

    monotonic_s: float | None = None

    def share(self, parts: int) -> Deadline:
        """The end of an equal part of the time that is left."""
        if self.monotonic_s is None or parts == 1:
            return self
        now_s = time.monotonic()
        return Deadline(now_s + (self.monotonic_s - now_s) / parts)


NO_DEADLINE = Deadline()


class CounterStore(Protocol):
    """Counts requests. All charges of a request are taken, or none."""

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """Takes every charge's cost, or nothing at all.

        An unenforced charge is taken together with the enforced ones and never refuses them. A
        repeated `dedup_id` with the same keys gets the same answer and is charged once. Cost 0
        always fits. A key must always be used with the same algorithm and window.

        Raises:
            CounterStoreError: the store did not answer by the deadline; what was charged is
                then not known.
            ValueError: a key stands twice, or a cost is negative.
        """

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """Undoes a charged taking of these charges, as far as it still counts.

        Each cost goes back only to the window that it was taken from, and no counter falls
        below zero. With `dedup_id` the taking remembered under it is undone once and forgotten;
        when none is remembered as charged, nothing is given back.

        Args:
            charges: as they were taken.
            at_us: `Taking.at_us`; None for a taking of this moment. Not used with `dedup_id`.

        Raises:
            CounterStoreError: the store did not answer; the charges may then stay charged.
        """

    async def close(self) -> None:
        """Closes connections."""


class VerificationKey(Protocol):
    """A public key (or shared secret) that verifies signatures."""

    @property
    def key(self) -> Any:
        """An object of `cryptography`, or the bytes of a shared secret."""

    @property
    def algorithm_name(self) -> str | None:
        """The only algorithm that the key may be used with, when its issuer says so (JWK "alg")."""


class KeySource(Protocol):
    """Gives the keys that verify an issuer's tokens."""

    async def find_keys(
        self, issuer: Issuer, key_id: str | None, *, deadline: Deadline = NO_DEADLINE
    ) -> Sequence[VerificationKey]:
        """Keys that the token may be signed with: those named `key_id`, or all when it is None.

        Empty when the issuer has no such key (and, after a cool-down, still has none).

        Raises:
            KeySourceError: no keys are known, and they could not be fetched by the deadline.
        """

    async def find_newer_keys(
        self,
        issuer: Issuer,
        key_id: str | None,
        than: Sequence[VerificationKey],
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[VerificationKey]:
        """Keys as in `find_keys`, but fetched after `than`, which did not verify a signature.

        Empty when there is nothing newer: the keys are the same, the cool-down lasts, or a fetch
        fails or takes longer than the deadline. Never raises a `KeySourceError`.
        """


class TokenIntrospector(Protocol):
    """Asks an issuer about an opaque token."""

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any] | Denial | None:
        """The claims of an active token; None when the issuer calls it inactive.

        An issuer with `key_validation` decides about the call, too, and its denial is given.

        Args:
            call: what the token is shown for; an issuer with `key_validation` needs it.
            client: the sender, as `extauthz.policy.limits.keys.write_client` writes it. The calls
                of
                one client never prevent calls for the others.

        Raises:
            IntrospectionShareError: too many other tokens of the client are being asked about.
            IntrospectionError: there was no usable answer by the deadline.
        """


class CatalogSource(Protocol):
    """Loads catalogs."""

    async def load(self) -> Catalog:
        """A whole new catalog.

        Raises:
            ConfigError: it was read, and is not usable; every problem is named.
            CatalogError: it could not be read.
        """

    async def wait_for_change(self) -> None:
        """Returns when a new load may give another catalog. May return without a change."""


class DecisionObserver(Protocol):
    """Is told of every decision. Must be quick, must not raise, must not keep the request."""

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """Called once for each decision, after it is made."""


class UsageObserver(Protocol):
    """Is told of every request that a proxy reported. Must be quick, and must not raise."""

    def observe_usage(self, record: UsageRecord) -> None:
        """Called once for each report of a request."""


class UsageSink(Protocol):
    """Takes finished requests, for a sink that is not one of ours (`usage.plugin`).

    All calls come from one thread, which has nothing else to do. docs/reference/usage.md describes
    the lines.
    """

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes some requests, at most 16: each is a line of JSON, without its end.

        Raises:
            Exception: they are not written; the same come again after a pause.
        """

    def close(self) -> None:
        """Is called once, after the last line."""
