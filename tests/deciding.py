"""A whole pipeline in memory, with doubles where it asks the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import IntrospectionError, KeySourceError
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Allow, Decision, Denial, Deny
from extauthz.model.identity import Secret
from extauthz.model.issuers import ApiCall, IntrospectionEndpoint, Issuer
from extauthz.model.request import ApiRequest
from extauthz.policy.authentication.authenticate import AuthenticationRules, Authenticator
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.authentication.failed_attempts import FailedAttempts, FailureLimit
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.authentication.verification_keys import KeySet, read_jwks
from extauthz.policy.limits.most_used import MostUsed
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.steps import PipelineRules
from extauthz.ports import NO_DEADLINE, CounterStore, Deadline, VerificationKey
from tests.builders import FakeClock, S, a_catalog

OPAQUE_ENDPOINT = IntrospectionEndpoint(
    url="http://127.0.0.1:1/introspect", client_id="gw", client_secret=Secret("pass")
)


class GivenKeys:
    """A `KeySource` that reads the JWK Set in the catalog, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.newer: Sequence[VerificationKey] = ()
        self.asked_for_newer = 0
        self.error: Exception | None = None
        self._sets: dict[str, KeySet] = {}

    async def find_keys(
        self, issuer: Issuer, key_id: str | None, *, deadline: Deadline = NO_DEADLINE
    ) -> Sequence[VerificationKey]:
        self.asked.append(key_id)
        if self.error is not None:
            raise self.error
        if issuer.keys is None:
            raise KeySourceError(f"issuer {issuer.issuer} has no keys")
        assert issuer.keys.jwks is not None
        text = issuer.keys.jwks
        if text not in self._sets:
            self._sets[text] = read_jwks(text.encode())
        return self._sets[text].find(key_id)

    async def find_newer_keys(
        self,
        issuer: Issuer,
        key_id: str | None,
        than: Sequence[VerificationKey],
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[VerificationKey]:
        self.asked_for_newer += 1
        return self.newer


class GivenTokens:
    """A `TokenIntrospector` that knows some tokens, and counts how often it is asked."""

    def __init__(self) -> None:
        self.active: dict[str, Mapping[str, Any]] = {}
        self.calls: dict[tuple[str, ApiCall | None], Denial] = {}
        """Denials, by token and call."""
        self.asked = 0
        self.asked_issuers: list[str] = []
        self.error: Exception | None = None
        self.known_to: dict[str, str] = {}
        """By token: the only issuer that knows it."""
        self.errors: dict[str, Exception] = {}
        """By issuer."""

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any] | Denial | None:
        self.asked += 1
        self.asked_issuers.append(issuer.issuer)
        error = self.errors.get(issuer.issuer, self.error)
        if error is not None:
            raise error
        if issuer.introspection is None and issuer.key_validation is None:
            raise IntrospectionError(f"issuer {issuer.issuer} has no introspection endpoint")
        if self.known_to.get(token.reveal(), issuer.issuer) != issuer.issuer:
            return None
        return self.calls.get((token.reveal(), call)) or self.active.get(token.reveal())


class Remembering:
    """A `DecisionObserver` that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[ApiRequest, Decision, int]] = []

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        self.told.append((request, decision, duration_us))


class Deciding:
    """A pipeline and everything round it. `catalog` can be swapped at any time."""

    def __init__(
        self,
        catalog: Catalog | None = None,
        *,
        counters: CounterStore | None = None,
        failure_limit: FailureLimit | None = None,
        max_failures: int = 1000,
        trusted_hops: int = 0,
        **rules: Any,
    ) -> None:
        self.catalog = catalog or a_catalog()
        self.clock = FakeClock()
        self.keys = GivenKeys()
        self.introspector = GivenTokens()
        self.memory = MemoryCounterStore(self.clock)
        self.failures = MemoryCounterStore(self.clock, max_keys=max_failures)
        self.revocations = Revocations(self.clock)
        self.observer = Remembering()
        self.most_used = MostUsed()
        places = rules.setdefault("places", CredentialPlaces())
        self.authenticator = Authenticator(
            rules=AuthenticationRules(**rules),
            keys=self.keys,
            introspector=self.introspector,
            revocations=self.revocations,
            failed_attempts=FailedAttempts(failure_limit, self.failures),
            clock=self.clock,
        )
        self.pipeline = Pipeline(
            catalog=lambda: self.catalog,
            authenticator=self.authenticator,
            counters=self.memory if counters is None else counters,
            clock=self.clock,
            rules=PipelineRules(trusted_hops=trusted_hops, places=places),
            observers=[self.observer],
            most_used=self.most_used,
        )

    async def decide(self, request: ApiRequest, **how: Any) -> Decision:
        return await self.pipeline.decide(request, **how)

    async def allow(self, request: ApiRequest, **how: Any) -> Allow:
        """The decision, which must be an allow."""
        decision = await self.decide(request, **how)
        assert isinstance(decision, Allow), decision
        return decision

    async def deny(self, request: ApiRequest, **how: Any) -> Deny:
        """The decision, which must be a denial."""
        decision = await self.decide(request, **how)
        assert isinstance(decision, Deny), decision
        return decision

    async def reason(self, request: ApiRequest, **how: Any) -> str:
        """The reason of a denial, or "allowed"."""
        decision = await self.decide(request, **how)
        return decision.reason.value if isinstance(decision, Deny) else "allowed"

    def counted(self) -> dict[str, object]:
        """Every counter, as it stands now."""
        return dict(self.memory._states)


TWO_FAILURES = FailureLimit(requests=2, window_us=60 * S)
