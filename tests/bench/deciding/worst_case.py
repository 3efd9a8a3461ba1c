"""What the worst requests cost that a stranger can send, against an ordinary one, at both doors.

Run with ``python -m tests.bench.deciding.worst_case``. Envoy lets 60 KiB of header fields pass, 100 of them;
each request here fills that in another way. The CPU time is that of this process from the bytes of
a question to the bytes of its answer, the best of many turns. The goal is a ratio of 3 for each.

There are two services. The *usual* one reads an API key or a token from their usual places. The
*curious* one reads all that a catalog can want: cookies, certificates, an address behind a proxy,
conditions, keys of limits and costs by header and by parameter. Where a kind of request can be
filled with different texts, the row is of the worst of them.

A request with a token that was not seen before is compared with an ordinary one of its kind: a
signature costs more than all else. Beside that stands how many ordinary requests with a key it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import process_time_ns
from typing import Final

from google.protobuf.message import Message

from extauthz.answers.denial import DenialStyle, Profile
from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.jwks import JwksKeySource
from extauthz.clock import SystemClock
from extauthz.counters.memory import MemoryCounterStore
from extauthz.envoy.authorization import AnswerStyle, AuthorizationService
from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest
from extauthz.model.apis import Api, CostSource
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration, CustomLimit
from extauthz.model.conditions import Pattern, TextCondition, TextSource
from extauthz.model.decision import Decision, Deny
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Place, PlaceKind, SecurityScheme
from extauthz.model.issuers import Issuer, KeyLocation
from extauthz.model.limits import ConditionGroup
from extauthz.model.request import ApiRequest
from extauthz.model.subscriptions import Subscription
from extauthz.policy.authentication.authenticate import AuthenticationRules, Authenticator
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.authentication.failed_attempts import FailedAttempts, FailureLimit
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.limits.tier_quotas import TierQuotas
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.steps import PipelineRules
from extauthz.serving.methods import Call
from mixer_compat.adapter import MixerAdapter
from mixer_compat.door import MixerDoor
from mixer_compat.params import HandlerParams, ParamsReader
from tests.bench.deciding.core import ISSUER, make_check_request
from tests.bench.deciding.worst_requests import (
    FULL,
    ORDINARY,
    PATH,
    Fields,
    Kind,
    list_kinds,
    list_token_kinds,
    repeat,
)
from tests.builders import API_KEY, a_limit, a_resource, a_tier, sha256
from tests.keys import PrivateKey, public_pem, rsa_key
from tests.mixer_compat.asking import (
    APIKEY,
    AUTHORIZATION,
    LISTENTRY,
    QUOTA,
    a_listentry,
    a_quota,
    an_apikey,
    an_authorization,
)

TITLE = "The worst that a stranger can send"
GOAL: Final = 3.0
REPEATS: Final = 12
REPEAT_NS: Final = 2_000_000
"""CPU time of one repeat of one request, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a request cost, and how many ordinary ones that is."""

    door: str
    service: str
    request: str
    filled_with: str
    answer: str
    cpu_us: float
    times_ordinary: float
    times_keyed: float
    goal: str


class LastDecision:
    """A `DecisionObserver` that knows what was decided last."""

    said = ""

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        self.said = decision.reason.value if isinstance(decision, Deny) else "allowed"


class Service:
    """Both doors over one pipeline, with nothing replaced."""

    def __init__(self, catalog: Catalog, http: IssuerHttp, *, is_curious: bool = False) -> None:
        clock = SystemClock()
        places = CredentialPlaces()
        if is_curious:
            cookie = Place(PlaceKind.COOKIE, "apikey")
            places = CredentialPlaces(api_key=(*places.api_key, cookie))
        self.last = LastDecision()
        store = MemoryCounterStore(clock)
        pipeline = Pipeline(
            catalog=lambda: catalog,
            authenticator=Authenticator(
                rules=AuthenticationRules(places=places, trust_xfcc=is_curious),
                keys=JwksKeySource(http, clock),
                introspector=IntrospectionClient(http, clock),
                revocations=Revocations(clock),
                failed_attempts=FailedAttempts(
                    FailureLimit(requests=10**9, window_us=60_000_000), MemoryCounterStore(clock)
                ),
                clock=clock,
            ),
            counters=store,
            clock=clock,
            rules=PipelineRules(trusted_hops=int(is_curious), places=places),
            observers=(self.last,),
        )
        denials = DenialStyle(profile=Profile.WSO2 if is_curious else Profile.STANDARD)
        self.envoy = AuthorizationService(
            decide=pipeline.decide, style=AnswerStyle(denial=denials), clock=clock
        )
        door = MixerDoor(
            pipeline=pipeline,
            catalog=lambda: catalog,
            params=ParamsReader(HandlerParams(headers=CARRIED, quota_tiers={"rq": "Gold"})),
            clock=clock,
            style=denials,
        )
        tiers = TierQuotas(catalog=door.catalog, counters=store, clock=clock)
        self.mixer = {row.path: row.handle for row in MixerAdapter(door, tiers).methods()}


CARRIED: Final = {
    f"h-{name}": name
    for name in ("x-api-key", "cookie", "x-forwarded-for", "x-forwarded-client-cert", "x-tenant",
                 "accept", "content-type", "referer", "x-cost", "x-request-id")
}  # fmt: skip
"""Properties of a Mixer's instance that carry header fields."""


def make_catalog(private_key: PrivateKey, *, is_curious: bool = False) -> Catalog:
    """One API, one application, one issuer."""
    mobile = Application(name="mobile", owner="alice")
    security: tuple[SecurityScheme, ...] = (SecurityScheme.JWT, SecurityScheme.API_KEY)
    tier = a_tier("Gold", a_limit(2**40))
    cost = by_header = None
    custom_limits: list[CustomLimit] = []
    if is_curious:
        security = (SecurityScheme.MTLS, *security)
        tier = a_tier("Gold", a_limit(2**40), conditions=_make_groups())
        cost = CostSource(place=Place(PlaceKind.QUERY, "items"), maximum=500)
        by_header = CostSource(place=Place(PlaceKind.HEADER, "x-cost"), maximum=500)
        custom_limits = [
            CustomLimit(name=name, template=template, tier=a_tier(name, a_limit(2**40)))
            for name, template in (
                ("tenants", "$header.x-tenant:$query.tenant"),
                ("clients", "$clientIp"),
            )
        ]
    resources = (
        a_resource("/things/{id}", security=security, cost_from=cost),
        a_resource("/costly/{id}", security=security, cost_from=by_header),
        *(
            a_resource(f"/deep/{template}", security=security)
            for template in ("a/{a}/a/{b}/z", "{a}/a/{b}/a/y", "{a}/**", "@me/{a}/$count", "x{a}:z")
        ),
    )
    api = Api(name="Worst", version="1.0.0", base_paths=("/worst/1.0.0",), resources=resources)
    return Catalog(
        apis=[api],
        applications=[mobile],
        api_keys=[ApiKey(digest=sha256(API_KEY), application=mobile)],
        consumer_keys={(ISSUER, "abc123"): ClientRegistration(application=mobile)},
        subscriptions=[Subscription(application="mobile", api="Worst", version="1.0.0", tier=tier)],
        tiers=[tier],
        custom_limits=custom_limits,
        deny_rules=[DenyRule(name="rogue", application="rogue")],
        issuers=[
            Issuer(
                issuer=ISSUER,
                algorithms=("RS256",),
                audiences=frozenset({"httpbin"}),
                keys=KeyLocation(pem=public_pem(private_key)),
                ttl_us=10**12,
            )
        ],
    )


def _make_groups() -> tuple[ConditionGroup, ...]:
    patterns = ("^Mozilla/.*Firefox", "(?i)bot|crawler|spider", "^blue$")
    return tuple(
        ConditionGroup(
            name=f"g{number}",
            when=(
                TextCondition(source=TextSource.HEADER, name="x-tenant", pattern=Pattern(pattern)),
                TextCondition(source=TextSource.QUERY, name="tenant", pattern=Pattern(pattern)),
            ),
            limits=(a_limit(2**40),),
        )
        for number, pattern in enumerate(patterns)
    )


Ask = Callable[[], Awaitable[bytes]]


def ask_envoy(service: Service, kind: Kind) -> Ask:
    """Asks as Envoy does, with raw headers."""
    return _ask(kind, partial(_write_check, kind), service.envoy.check)


def ask_mixer(service: Service, kind: Kind) -> Ask:
    """Asks as Mixer does, with an authorization instance."""
    return _ask(kind, partial(_write_instance, kind), service.mixer[AUTHORIZATION])


def _ask(
    kind: Kind,
    write: Callable[[tuple[str, str]], bytes],
    handle: Callable[[bytes, Call], Awaitable[bytes]],
) -> Ask:
    call, tokens = Call(), kind.tokens
    if tokens is None:
        data = write(kind.credential)
        return lambda: handle(data, call)
    made = _make_ahead(lambda: write(("authorization", f"Bearer {tokens()}")))
    return lambda: handle(next(made), call)


def _make_ahead(make: Callable[[], bytes]) -> Iterator[bytes]:
    """So that making them is not measured, but for the first of each batch."""
    while True:
        yield from [make() for _ in range(256)]


_BESIDE: Final[Fields] = (
    # Two proxies of our own have written here.
    ("x-forwarded-for", "198.51.100.7, 192.0.2.1"),
    ("cookie", "session=1; theme=dark"),
)


def _add_beside(kind: Kind) -> Fields:
    named = {name for name, _ in kind.fields}
    return (*(one for one in _BESIDE if one[0] not in named), *kind.fields)


def _write_check(kind: Kind, credential: tuple[str, str]) -> bytes:
    request = CheckRequest.FromString(make_check_request(kind.path, credential))
    http = request.attributes.request.http
    kept = [one for one in http.header_map.headers if one.key not in dict(_add_beside(kind))]
    fields = [(one.key, one.raw_value) for one in kept]
    fields += [(name, value.encode()) for name, value in _add_beside(kind)]
    del http.header_map.headers[:]
    for name, raw_value in fields:
        http.header_map.headers.add(key=name, raw_value=raw_value)
    http.raw_body = kind.body.encode()
    for name, value in (kind.context or {}).items():
        request.attributes.context_extensions[name] = value
    return request.SerializeToString()


def _write_instance(kind: Kind, credential: tuple[str, str]) -> bytes:
    properties: dict[str, object] = {
        "method": "GET",
        "path": kind.path,
        "host": "api.example.com",
        "client_ip": bytes([192, 0, 2, 1]),
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0",
    }
    names = {"authorization": "credential", "user-agent": "user_agent"}
    for name, value in (credential, *_add_beside(kind)):
        properties[names.get(name, f"h-{name}")] = value
    properties |= kind.context or {}
    return an_authorization(properties).SerializeToString()


def list_other_calls(service: Service) -> list[tuple[str, str, Ask]]:
    """What else a Mixer asks for. The first is the ordinary one."""
    call = Call()

    def ask(path: str, message: Message) -> Ask:
        data = message.SerializeToString()
        return lambda: service.mixer[path](data, call)

    return [
        ("an ordinary apikey instance", "", ask(APIKEY, an_apikey(f"GET {PATH}", API_KEY, "Worst"))),
        *(
            ("an API key of 58,000 bytes", text,
             ask(APIKEY, an_apikey(f"GET {PATH}", repeat(text, FULL), "Worst")))
            for text in ("k", "é", ",")
        ),
        *(
            ("an operation of 58,000 bytes", text,
             ask(APIKEY, an_apikey("GET /" + repeat(text, FULL), API_KEY)))
            for text in ("{", "{a}", "*", " ", "?", "#", '"')
        ),
        *(
            ("a list entry of 58,000 bytes", text, ask(LISTENTRY, a_listentry(repeat(text, FULL))))
            for text in ("1", ":", "1.", " ", "a", "%")
        ),
        ("a quota of a dimension of 58,000 bytes", "", ask(QUOTA, a_quota({"a": "v" * FULL}))),
    ]  # fmt: skip


async def _measure() -> list[Row]:
    private_key = rsa_key("worst")
    rows: list[Row] = []
    async with IssuerHttp() as http:
        for name, is_curious in (("usual", False), ("curious", True)):
            catalog = make_catalog(private_key, is_curious=is_curious)
            service = Service(catalog, http, is_curious=is_curious)
            for door, ask in (("envoy", ask_envoy), ("mixer", ask_mixer)):
                for kinds, ordinary in (
                    (list_kinds(), 0),
                    ([ORDINARY, *list_token_kinds(private_key)], 1),
                ):
                    asks = [(one.title, one.filled_with, ask(service, one)) for one in kinds]
                    rows += await _measure_group(door, name, asks, service.last, ordinary)
            asks = list_other_calls(service)
            rows += await _measure_group("mixer", name, asks, service.last)
    return rows


async def _measure_group(
    door: str,
    service: str,
    asks: list[tuple[str, str, Ask]],
    last: LastDecision,
    ordinary: int = 0,
) -> list[Row]:
    """All of a group in turn, many times over.

    ordinary: which one the others are compared with. The first one has a key.
    """
    best_us = [float("inf")] * len(asks)
    turns = [1] * len(asks)
    answers: list[str] = []
    for _, _, ask in asks:
        last.said = "not a decision"
        await ask()
        answers.append(last.said)
    for repetition in range(REPEATS + 1):
        for number, (_, _, ask) in enumerate(asks):
            began_ns = process_time_ns()
            for _ in range(turns[number]):
                await ask()
            took_ns = process_time_ns() - began_ns
            if repetition:
                best_us[number] = min(best_us[number], took_ns / turns[number] / 1000)
            else:
                turns[number] = max(1, min(64, REPEAT_NS // max(1, took_ns)))
    worst: dict[str, Row] = {}
    for number, (title, filled_with, _) in enumerate(asks):
        times = best_us[number] / best_us[ordinary]
        if title not in worst or times > worst[title].times_ordinary:
            worst[title] = Row(
                door=door,
                service=service,
                request=title,
                filled_with=filled_with if len(filled_with) <= 16 else f"{filled_with[:15]}…",
                answer=answers[number],
                cpu_us=round(best_us[number], 1),
                times_ordinary=round(times, 2),
                times_keyed=round(best_us[number] / best_us[0], 2),
                goal="" if number in (0, ordinary) else "met" if times <= GOAL else "missed",
            )
    return list(worst.values())


def measure() -> list[Row]:
    """Every kind at both doors of both services, the dearest first."""
    rows = asyncio.run(_measure())
    return sorted(rows, key=lambda row: (row.door, row.service, -row.times_ordinary))


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("worst_case")))
