"""No failure of anything that a decision asks becomes an allow; no request makes one fail.

Every call to the outside is a point with a number. A first run counts the points; then each of
them fails in every way: it raises, before or after it has done its work, it lets the deadline
pass, or the caller goes away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import (
    BackendError,
    CatalogError,
    CounterStoreError,
    IntrospectionError,
    KeySourceError,
)
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog, CustomLimit
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import Secret, SecurityScheme
from extauthz.model.issuers import ApiCall, Issuer
from extauthz.model.limits import Charge, Taking
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.policy.authentication.verification_keys import read_jwks
from extauthz.ports import NO_DEADLINE, Deadline, VerificationKey
from tests.builders import (
    API_KEY,
    FakeClock,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)
from tests.deciding import OPAQUE_ENDPOINT, TWO_FAILURES, Deciding, GivenKeys, GivenTokens
from tests.keys import a_jwk, a_jwks, a_jwt, an_issuer, rsa_key

T = TypeVar("T")

ERRORS: tuple[type[Exception], ...] = (
    BackendError,
    CounterStoreError,
    KeySourceError,
    IntrospectionError,
    CatalogError,
    ValueError,
    KeyError,
    TypeError,
    OSError,
    asyncio.TimeoutError,
    RecursionError,
    MemoryError,
    StopAsyncIteration,
    AssertionError,
)


@dataclass(frozen=True)
class Fault:
    """How a point fails. Without an error it is late, or the caller goes away."""

    error: type[Exception] | None = None
    after: bool = False
    cancel: bool = False


LATE = Fault(after=True)
GONE = Fault(cancel=True)
GONE_AFTER = Fault(cancel=True, after=True)
FAULTS = (
    *(Fault(error) for error in ERRORS),
    *(Fault(error, after=True) for error in ERRORS),
    LATE,
    GONE,
    GONE_AFTER,
)


@dataclass
class Points:
    """Numbers the calls to the outside, and lets the chosen ones fail."""

    faults: Mapping[int, Fault] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)
    fired: list[tuple[str, Fault]] = field(default_factory=list)
    deadline: Deadline = field(default_factory=lambda: Deadline(time.monotonic() + 3600))

    def _arrive(self, name: str) -> Fault | None:
        fault = self.faults.get(len(self.reached))
        self.reached.append(name)
        if fault is not None:
            self.fired.append((name, fault))
        return fault

    async def ask(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer, unless this point is to fail."""
        fault = self._arrive(name)
        answer = await call() if fault is None or fault.after else None
        if fault is not None:
            await self._fail(fault)
            answer = await call() if answer is None else answer
        assert answer is not None or name == "introspector"
        return answer  # type: ignore[return-value]  # None is the introspector's answer alone

    async def _fail(self, fault: Fault) -> None:
        if fault.error is not None:
            raise fault.error("a secret detail")
        if fault.cancel:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.get_running_loop().create_future()
        object.__setattr__(self.deadline, "monotonic_s", 0.0)

    def read(self, name: str, value: T) -> T:
        """A value that is there without waiting, unless this point is to fail."""
        fault = self._arrive(name)
        if fault is not None and fault.error is not None:
            raise fault.error("a secret detail")
        if fault is not None:
            object.__setattr__(self.deadline, "monotonic_s", 0.0)
        return value


class PointedKeys(GivenKeys):
    """Keys behind a point."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self.newer = read_jwks(a_jwks(a_jwk(rsa_key("next"))).encode()).keys
        self._points = points

    async def find_keys(
        self, issuer: Issuer, key_id: str | None, *, deadline: Deadline = NO_DEADLINE
    ) -> Sequence[VerificationKey]:
        find = super().find_keys
        return await self._points.ask("keys", lambda: find(issuer, key_id, deadline=deadline))

    async def find_newer_keys(
        self,
        issuer: Issuer,
        key_id: str | None,
        than: Sequence[VerificationKey],
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[VerificationKey]:
        find = super().find_newer_keys
        return await self._points.ask(
            "newer keys", lambda: find(issuer, key_id, than, deadline=deadline)
        )


class PointedTokens(GivenTokens):
    """Tokens behind a point."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any] | Denial | None:
        ask = super().introspect
        return await self._points.ask(
            "introspector", lambda: ask(issuer, token, call=call, deadline=deadline, client=client)
        )


class PointedStore(MemoryCounterStore):
    """Counters behind a point."""

    def __init__(self, points: Points, name: str) -> None:
        super().__init__(FakeClock())
        self._points = points
        self._name = name

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        take = super().take
        return await self._points.ask(
            self._name, lambda: take(charges, dedup_id=dedup_id, deadline=deadline)
        )

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        give_back = super().give_back

        async def give() -> bool:
            await give_back(charges, at_us=at_us, dedup_id=dedup_id)
            return True

        await self._points.ask(f"{self._name} back", give)


class PointedClock(FakeClock):
    """A clock behind a point: it stands for anything that is asked without waiting."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def now_us(self) -> int:
        return self._points.read("clock", super().now_us())


CATALOG = a_catalog(
    an_api(
        a_resource("/ip", security=(SecurityScheme.JWT, SecurityScheme.OPAQUE)),
        a_resource("/key", security=(SecurityScheme.API_KEY,)),
        a_resource("/public", security=(SecurityScheme.NONE,)),
    ),
    application=Application(name="mobile", tier=a_tier("App", a_limit(50))),
    issuers=(an_issuer(introspection=OPAQUE_ENDPOINT),),
    subscription_fields={"tier": a_tier("Gold", a_limit(3))},
    tiers=[a_tier("Unauthenticated", a_limit(3))],
    custom_limits=[CustomLimit(name="all", template="all", tier=a_tier("C", a_limit(9)))],
)


def bearer(token: str) -> ApiRequest:
    return a_request(headers={"authorization": f"Bearer {token}"})


REQUESTS = {
    "jwt": bearer(a_jwt()),
    "jwt of a replaced key": bearer(a_jwt(key=rsa_key("next"))),
    "opaque": bearer("opaque"),
    "api key": a_request("/httpbin/1.0.0/key", headers={"x-api-key": API_KEY}),
    "public": a_request("/httpbin/1.0.0/public"),
}
GUESSES = {
    "jwt": bearer(a_jwt(aud="other")),
    "opaque": bearer("unknown"),
    "api key": a_request("/httpbin/1.0.0/key", headers={"x-api-key": "guess"}),
}


def decide(request: ApiRequest, points: Points) -> tuple[Decision | None, int]:
    """The decision, or None when the caller went away; and how many counters are charged."""
    counters = PointedStore(points, "counters")
    deciding = Deciding(CATALOG, counters=counters, failure_limit=TWO_FAILURES)
    authenticator, pipeline = deciding.authenticator, deciding.pipeline
    clock = PointedClock(points)
    tokens = PointedTokens(points)
    tokens.active["opaque"] = {"client_id": "abc123", "aud": "httpbin"}
    authenticator.tokens._keys = PointedKeys(points)
    authenticator.tokens._introspector = tokens
    authenticator.tokens._clock = authenticator.api_keys._clock = pipeline._charger._clock = clock
    authenticator._failed_attempts._counters = PointedStore(points, "failures")
    pipeline._catalog = lambda: points.read("catalog", CATALOG)

    async def ask() -> Decision | None:
        task = asyncio.create_task(pipeline.decide(request, deadline=points.deadline))
        try:
            return await task
        except asyncio.CancelledError:
            assert task.cancelled()
            return None

    decision = asyncio.run(ask())
    return decision, sum(state[2] > 0 for state in counters._states.values())


def may_still_be_allowed(points: Points) -> bool:
    """Whether all that failed only slows guessing down: every credential is still checked."""
    return all(
        name == "failures" and fault.error is CounterStoreError for name, fault in points.fired
    )


def check_outcome(decision: Decision | None, charged: int, points: Points) -> None:
    went_away = any(fault.cancel and name not in SYNC for name, fault in points.fired)
    assert (decision is None) is went_away
    if decision is None:
        return
    if not may_still_be_allowed(points):
        assert isinstance(decision, Deny)
    if isinstance(decision, Deny):
        assert "secret detail" not in repr(decision)
        if not any(name.startswith("counters") and fault.after for name, fault in points.fired) or (
            [name for name, _ in points.fired] == ["counters"] and points.fired[0][1] == LATE
        ):
            assert charged == 0


SYNC = {"clock", "catalog"}


@pytest.mark.parametrize("name", REQUESTS)
def test_without_a_fault_it_is_allowed(name: str) -> None:
    points = Points()
    decision, charged = decide(REQUESTS[name], points)
    assert isinstance(decision, Allow)
    assert charged > 0
    asked = {
        "jwt": {"keys"},
        "jwt of a replaced key": {"keys", "newer keys"},
        "opaque": {"introspector"},
    }.get(name, set())
    guarded = {"failures"} if name != "public" else set()
    assert set(points.reached) >= {"catalog", "clock", "counters"} | asked | guarded


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_failure_anywhere_is_no_allow(name: str, fault: Fault) -> None:
    clean = Points()
    decide(REQUESTS[name], clean)
    for number in range(len(clean.reached)):
        points = Points({number: fault})
        decision, charged = decide(REQUESTS[name], points)
        assert len(points.fired) == 1
        check_outcome(decision, charged, points)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(REQUESTS)),
    faults=st.dictionaries(st.integers(0, 12), st.sampled_from(FAULTS), max_size=4),
)
def test_several_failures_are_no_allow(name: str, faults: dict[int, Fault]) -> None:
    points = Points(faults)
    decision, charged = decide(REQUESTS[name], points)
    check_outcome(decision, charged, points)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(GUESSES)),
    faults=st.dictionaries(st.integers(0, 8), st.sampled_from(FAULTS), max_size=3),
)
def test_no_failure_makes_a_guess_good(name: str, faults: dict[int, Fault]) -> None:
    points = Points(faults)
    decision, charged = decide(GUESSES[name], points)
    assert not isinstance(decision, Allow)
    assert charged == 0


# No request makes a decision fail while all that it needs is there: a failed call may be let
# through by the proxy.

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
LIKELY = st.sampled_from(
    [
        "Bearer opaque",
        "Bearer x.y.z",
        "Bearer e30.e30.",
        f"Bearer {a_jwt()}",
        API_KEY,
        "apikey=1; apikey=2",
        'URI=spiffe://a;Subject="',
        ",,,",
        "192.0.2.1:99, [::1]:5, x",
    ]
)
NAMES = st.sampled_from(
    [
        "authorization",
        "x-api-key",
        "apikey",
        "cookie",
        "referer",
        "origin",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "access-control-request-method",
    ]
)
PATHS = st.text(alphabet="/.%2Fe5cC0aip;", max_size=30).map(lambda rest: f"/httpbin/1.0.0/{rest}")


@settings(max_examples=200)
@given(
    path=PATHS | ANY_TEXT | st.sampled_from([request.path for request in REQUESTS.values()]),
    query=ANY_TEXT | st.text(alphabet="apikey=&%+,", max_size=30),
    method=st.sampled_from(["GET", "OPTIONS", "HEAD"]) | ANY_TEXT,
    host=ANY_TEXT,
    headers=st.lists(st.tuples(NAMES | ANY_TEXT, LIKELY | ANY_TEXT), max_size=6),
    address=st.sampled_from(["192.0.2.1", "2001:db8::1%eth0", "", "x"]) | ANY_TEXT,
    hops=st.integers(0, 3),
)
def test_no_request_makes_a_decision_fail(
    path: str,
    query: str,
    method: str,
    host: str,
    headers: list[tuple[str, str]],
    address: str,
    hops: int,
) -> None:
    deciding = Deciding(
        everything(),
        failure_limit=TWO_FAILURES,
        trusted_hops=hops,
        trust_xfcc=True,
        pepper=Secret("pepper"),
    )
    request = ApiRequest(
        method=method,
        host=host,
        path=path,
        query=query,
        headers=Headers(headers),
        source=Peer(address=address, principal="spiffe://mesh/x"),
    )
    decision = asyncio.run(deciding.decide(request))
    assert not isinstance(decision, Deny) or decision.reason is not Reason.UNAVAILABLE


def everything() -> Catalog:
    """Every scheme on every path, and limits by whatever the client sends."""
    schemes = tuple(scheme for scheme in SecurityScheme if scheme is not SecurityScheme.NONE)
    return a_catalog(
        an_api(a_resource("/*", "GET", security=schemes), allow_preflight=True),
        issuers=(an_issuer(introspection=OPAQUE_ENDPOINT),),
        tiers=[a_tier("Unauthenticated", a_limit(100))],
        custom_limits=[
            CustomLimit(name=name, template=template, tier=a_tier("C", a_limit(9)))
            for name, template in (("ip", "$clientIp"), ("referer", "${header.referer}"))
        ],
    )
