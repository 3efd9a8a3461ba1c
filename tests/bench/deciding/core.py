"""What one decision costs in this process: bytes of a CheckRequest in, bytes of the answer out.

Run with ``python -m tests.bench.deciding.core``. Each request has 13 header fields and a token of about
700 bytes, and is charged to two limits. Variants run in turn, many times over; the medians
stand in one table with the budgets of a decision (CPU time of this process, in microseconds).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import Any, Final

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import rsa
from opentelemetry.sdk.trace import TracerProvider

from extauthz.app.watching import DecisionMeasures
from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.jwks import JwksKeySource
from extauthz.clock import SystemClock
from extauthz.counters.memory import MemoryCounterStore
from extauthz.envoy.authorization import AnswerStyle, AuthorizationService
from extauthz.envoy.check_request import read_check_request
from extauthz.envoy.check_response import write_allow
from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, Peer
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration
from extauthz.model.issuers import Issuer, KeyLocation
from extauthz.model.limits import Algorithm
from extauthz.model.subscriptions import Subscription
from extauthz.policy.authentication.authenticate import AuthenticationRules, Authenticator
from extauthz.policy.authentication.failed_attempts import FailedAttempts
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.steps import PipelineRules
from extauthz.ports import CounterStore
from extauthz.serving.methods import Call
from extauthz.telemetry.recent.recent_decisions import RecentDecisions
from extauthz.telemetry.trace_context import PROPAGATORS, Sampling
from extauthz.telemetry.tracing import CallTracer
from tests.builders import API_KEY, a_limit, a_resource, a_tier, sha256
from tests.keys import PrivateKey, public_pem

TITLE = "One decision, in process"
ISSUER: Final = "https://idp.example/"
DECISIONS: Final = 2_000
"""Decisions in one repeat of one variant."""
REPEATS: Final = 15
BUDGET_US: Final = 35
TELEMETRY_BUDGET_US: Final = 5
UNTRACED_BUDGET_US: Final = 2
REMEMBERING_BUDGET_US: Final = 1
READERS: Final = tuple(PROPAGATORS.values())
NOT_TRACED: Final = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
"""What a mesh that traces sends along with most calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A variant, its medians in microseconds, and its budget if it has one."""

    variant: str
    cpu_us: float
    wall_us: float
    spread_us: float
    budget_us: int | None = None


def make_catalog(
    apis: int, private_key: PrivateKey, *, requests: int = 2**40, algorithm: str = "RS256"
) -> Catalog:
    """So many APIs with 20 resources each; one application is subscribed to all of them.

    Args:
        private_key: signs tokens, with the algorithm.
        requests: how many its tier allows in a minute, on each API.
    """
    mobile = Application(name="mobile", owner="alice")
    tier = a_tier(
        "Gold",
        a_limit(requests, algorithm=Algorithm.SLIDING_WINDOW),
        burst=a_limit(10**7, per_s=1, algorithm=Algorithm.BURST),
    )
    made = [
        Api(
            name=f"api{number}",
            version="1.0.0",
            base_paths=(f"/api{number}/1.0.0",),
            resources=tuple(
                a_resource(f"/things{index}/{{id}}", scopes=("things:read",)) for index in range(20)
            ),
        )
        for number in range(apis)
    ]
    return Catalog(
        apis=made,
        applications=[mobile],
        api_keys=[ApiKey(digest=sha256(API_KEY), application=mobile)],
        consumer_keys={(ISSUER, "abc123"): ClientRegistration(application=mobile)},
        subscriptions=[
            Subscription(application="mobile", api=api.name, version=api.version, tier=tier)
            for api in made
        ],
        issuers=[
            Issuer(
                issuer=ISSUER,
                algorithms=(algorithm,),
                audiences=frozenset({"httpbin"}),
                keys=KeyLocation(pem=public_pem(private_key)),
                ttl_us=10**12,
            )
        ],
    )


def make_check_request(path: str, credential: tuple[str, str]) -> bytes:
    """A CheckRequest as Envoy sends it: 13 header fields, peers, a request id."""
    request = CheckRequest()
    attributes = request.attributes
    for field, address in (("source", "192.0.2.1"), ("destination", "192.0.2.2")):
        peer = Peer()
        peer.address.socket_address.address = address
        setattr(attributes, field, peer.SerializeToString())
    http = attributes.request.http
    http.id, http.method, http.path = "1234", "GET", path
    http.host, http.scheme, http.protocol, http.size = "api.example.com", "http", "HTTP/1.1", -1
    fields = {
        ":method": "GET",
        ":path": path,
        ":authority": "api.example.com",
        ":scheme": "http",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate, br",
        "accept-language": "en",
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0",
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-proto": "https",
        "x-request-id": "0b6a3c1c-6d2b-4a68-9c5b-0f4c2a1f9a52",
        "x-envoy-internal": "true",
        credential[0]: credential[1],
    }
    for name, value in fields.items():
        entry = http.header_map.headers.add()
        entry.key, entry.raw_value = name, value.encode()
    return request.SerializeToString()


def sign_token(private_key: PrivateKey, now_s: int, *, algorithm: str = "RS256") -> str:
    """A token with an id of its own; of about 700 bytes with RS256."""
    claims = {
        "iss": ISSUER,
        "aud": "httpbin",
        "azp": "abc123",
        "sub": "alice",
        "scope": "things:read things:write",
        "iat": now_s,
        "exp": now_s + 86_400,
        "jti": secrets.token_hex(16),
    }
    return pyjwt.encode(claims, private_key, algorithm)


class Bench:
    """A whole decision path over a catalog, with nothing replaced."""

    def __init__(
        self, catalog: Catalog, http: IssuerHttp, counters: CounterStore | None = None
    ) -> None:
        clock = SystemClock()
        self.catalog = catalog
        self.pipeline = Pipeline(
            catalog=lambda: catalog,
            authenticator=Authenticator(
                rules=AuthenticationRules(),
                keys=JwksKeySource(http, clock),
                introspector=IntrospectionClient(http, clock),
                revocations=Revocations(clock),
                failed_attempts=FailedAttempts(None, MemoryCounterStore(clock)),
                clock=clock,
            ),
            counters=counters or MemoryCounterStore(clock),
            clock=clock,
            rules=PipelineRules(),
        )
        self.service = AuthorizationService(
            decide=self.pipeline.decide, style=AnswerStyle(), clock=clock
        )


def measure() -> list[Row]:
    """Every variant, in turn, `REPEATS` times."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = sign_token(private_key, SystemClock().now_us() // 1_000_000)
    bearer = ("authorization", f"Bearer {token}")
    key = ("x-api-key", API_KEY)
    call = Call()
    async with IssuerHttp() as http:
        few = Bench(make_catalog(10, private_key), http)
        many = Bench(make_catalog(10_000, private_key), http)
        spent = Bench(make_catalog(10, private_key, requests=1), http)

        def deciding(
            bench: Bench, credential: tuple[str, str], apis: int
        ) -> Callable[[int], Coroutine[Any, Any, object]]:
            requests = [
                make_check_request(f"/api{number}/1.0.0/things7/4711", credential)
                for number in range(0, apis, max(1, apis // 100))
            ]

            async def decide(times: int) -> None:
                check = bench.service.check
                for turn in range(times):
                    await check(requests[turn % len(requests)], call)

            return decide

        check_request = make_check_request("/api3/1.0.0/things7/4711", bearer)
        neutral = read_check_request(check_request)
        writing = [await few.pipeline.decide(neutral) for _ in range(100)]

        async def null(times: int) -> None:
            for _ in range(times):
                CheckRequest.FromString(check_request)
                write_allow()

        async def decode(times: int) -> None:
            for _ in range(times):
                read_check_request(check_request)

        async def decide_only(times: int) -> None:
            for _ in range(times):
                await few.pipeline.decide(neutral)

        async def write_only(times: int) -> None:
            for turn in range(times):
                few.service.write(writing[turn % len(writing)], neutral, 0)

        observers = DecisionMeasures().list_observers()

        async def observe(times: int) -> None:
            for turn in range(times):
                for observer in observers:
                    observer.observe(neutral, writing[turn % len(writing)], 50)

        recent = RecentDecisions()

        async def remember(times: int) -> None:
            for turn in range(times):
                recent.observe(neutral, writing[turn % len(writing)], 50)

        tracer = CallTracer(TracerProvider(shutdown_on_exit=False), Sampling(0.01), READERS)

        async def look_for_trace(times: int) -> None:
            for turn in range(times):
                tracer.begin("/a.Service/Do", NOT_TRACED)
                tracer.observe(neutral, writing[turn % len(writing)], 50)

        variants: dict[str, tuple[Callable[[int], Coroutine[Any, Any, object]], int | None]] = {
            "cached JWT, 10 APIs": (deciding(few, bearer, 10), BUDGET_US),
            "cached JWT, 10,000 APIs": (deciding(many, bearer, 10_000), BUDGET_US),
            "API key, 10 APIs": (deciding(few, key, 10), BUDGET_US),
            "API key, 10,000 APIs": (deciding(many, key, 10_000), BUDGET_US),
            "of it: reading the request": (decode, None),
            "of it: deciding (cached JWT)": (decide_only, None),
            "of it: writing the answer": (write_only, None),
            "telemetry: counting it": (observe, TELEMETRY_BUDGET_US),
            "telemetry: remembering it for the admin API": (remember, REMEMBERING_BUDGET_US),
            "telemetry: finding that it is not traced": (look_for_trace, UNTRACED_BUDGET_US),
            "denied: no credential": (deciding(few, ("x-no-key", API_KEY), 10), None),
            "denied: rate limited": (deciding(spent, key, 10), None),
            "null: protobuf's parser, an empty allow": (null, None),
        }
        cpu: dict[str, list[float]] = {name: [] for name in variants}
        wall: dict[str, list[float]] = {name: [] for name in variants}
        for repeat in range(REPEATS + 1):
            for name, (run, _) in variants.items():
                began_ns, cpu_ns = perf_counter_ns(), process_time_ns()
                await run(DECISIONS)
                if repeat:  # the first one warms up
                    cpu[name].append((process_time_ns() - cpu_ns) / DECISIONS / 1000)
                    wall[name].append((perf_counter_ns() - began_ns) / DECISIONS / 1000)
        return [
            Row(
                variant=name,
                cpu_us=round(median(cpu[name]), 1),
                wall_us=round(median(wall[name]), 1),
                spread_us=round(max(cpu[name]) - min(cpu[name]), 1),
                budget_us=budget,
            )
            for name, (_, budget) in variants.items()
        ]


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("core")))
