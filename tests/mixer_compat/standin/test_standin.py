"""The stand-in does what a Mixer and a proxy do: figures that were seen at real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.duration_pb2 import Duration

from mixer_compat.manifests.objects import Manifest, ManifestOptions, MeshService, make_manifests
from mixer_compat.manifests.parts import RequestParts
from mixer_compat.proto.authorization_pb2 import HandleAuthorizationRequest
from mixer_compat.proto.metric_pb2 import HandleMetricRequest
from mixer_compat.proto.model_pb2 import CheckResult, QuotaResult, ReportResult
from mixer_compat.proto.policy_pb2 import DirectHttpResponse
from mixer_compat.proto.quota_pb2 import HandleQuotaRequest
from mixer_compat.proto.status_pb2 import Status
from tests.mixer_compat.standin.adapter import (
    CHECK,
    QUOTA,
    REPORT,
    Refused,
    ToldAdapter,
    listening,
)
from tests.mixer_compat.standin.config import read_snapshot
from tests.mixer_compat.standin.mixer import (
    Combined,
    DirectResponse,
    Mixer,
    Precondition,
    QuotaAsk,
    QuotaGrant,
    RpcError,
    read_result,
)
from tests.mixer_compat.standin.proxy import CheckCache, Prefetch, Proxy, http_of_rpc

ADDRESS = "adapter.test:44225"
HANDLER = "extauthz.handler.istio-system"
QUOTA_NAME = "extauthz-quota.instance.istio-system"
OBJECTS = make_manifests(
    ManifestOptions(
        address=ADDRESS,
        services=(MeshService(name="httpbin", namespace="default"),),
        with_quota=True,
    ),
    RequestParts(headers=("x-api-key",)),
)
REQUEST: dict[str, Any] = {
    "context.reporter.kind": "inbound",
    "context.protocol": "http",
    "destination.namespace": "default",
    "destination.service.name": "httpbin",
    "destination.service.namespace": "default",
    "destination.service.host": "httpbin.default.svc.cluster.local",
    "request.headers": {"authorization": "Bearer t"},
    "request.method": "GET",
    "request.host": "api.example.com",
    "request.url_path": "/ip",
    "source.ip": bytes([10, 0, 0, 1]),
}
RESPONSE = {
    **REQUEST,
    "request.time": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
    "response.time": datetime(2020, 1, 2, 3, 4, 6, 500_000, tzinfo=UTC),
    "response.code": 200,
    "response.size": 42,
    "response.duration": timedelta(milliseconds=1500),
}


def result(
    code: int = 0,
    message: str = "",
    *,
    valid_s: float | None = 0.0,
    uses: int = 0,
    details: tuple[WireAny, ...] = (),
) -> CheckResult:
    duration = None
    if valid_s is not None:
        duration = Duration()
        duration.FromTimedelta(timedelta(seconds=valid_s))
    status = Status(code=code, message=message, details=details)
    return CheckResult(status=status, valid_duration=duration, valid_use_count=uses)


def packed(response: DirectHttpResponse) -> WireAny:
    found = WireAny()
    found.Pack(response)
    return found


def grant(amount: int, valid_s: int = 2, *, name: str = QUOTA_NAME, code: int = 0) -> QuotaResult:
    status = Status(code=code) if code else None
    found = QuotaResult.Result(
        granted_amount=amount, valid_duration=Duration(seconds=valid_s), status=status
    )
    return QuotaResult(quotas={name: found})


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Mesh:
    """A Mixer with an adapter that does as it is told."""

    def __init__(self, mixer: Mixer, adapter: ToldAdapter) -> None:
        self.mixer, self.adapter, self.clock = mixer, adapter, Clock()

    def tell(self, path: str, answer: CheckResult | QuotaResult | ReportResult) -> None:
        data = answer.SerializeToString()
        self.adapter.answers[path] = lambda _: data

    def refuse(self, path: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        def answer(_: bytes) -> bytes:
            raise Refused(code)

        self.adapter.answers[path] = answer

    def proxy(self, *, quotas: Mapping[str, int] | None = None, fail_open: bool = False) -> Proxy:
        return Proxy(self.mixer, clock=self.clock, quotas=quotas, fail_open=fail_open)

    @property
    def checks(self) -> int:
        return len(self.adapter.calls(CHECK))


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    adapter = ToldAdapter()
    async with listening(adapter) as address:
        mixer = Mixer(read_snapshot(OBJECTS), addresses={ADDRESS: address})
        yield Mesh(mixer, adapter)
        await mixer.close()


# What answers come to


@pytest.mark.parametrize(
    ("answer", "valid_s", "uses"),
    [
        (result(), 60, 10_000),
        (result(valid_s=None), 60, 10_000),
        (result(valid_s=0, uses=1), 0, 1),
        (result(valid_s=0, uses=-1), 0, -1),
        (result(valid_s=5, uses=3), 5, 3),
        (result(valid_s=5, uses=0), 5, 0),
        (result(7, "no way"), 0, 0),
        (result(99, "odd"), 0, 0),
    ],
)
async def test_only_an_answer_of_nothing_but_zeros_becomes_reusable(
    answer: CheckResult, valid_s: float, uses: int, mesh: Mesh
) -> None:
    mesh.tell(CHECK, answer)
    found = (await mesh.mixer.check(REQUEST)).precondition
    assert (found.code, found.valid_s, found.uses) == (answer.status.code, valid_s, uses)


@pytest.mark.parametrize(
    ("first", "second", "least"),
    [
        (Combined(valid_s=10, uses=5), Combined(valid_s=3, uses=100), (3, 5)),
        (Combined(), Combined(valid_s=10, uses=5), (10, 5)),
        (Combined(valid_s=10, uses=5), Combined(), (0, 0)),
        (Combined(valid_s=10, uses=5), Combined(code=7), (0, 0)),
    ],
)
def test_of_several_answers_the_least_counts(
    first: Combined, second: Combined, least: tuple[float, int]
) -> None:
    found = first.combine(second)
    assert (found.valid_s, found.uses) == least


def test_of_two_denials_the_first_one_counts_and_both_are_told() -> None:
    direct = DirectResponse(code=401, body="", headers=())
    found = Combined(7, ("a:no",), direct=direct).combine(Combined(16, ("b:never",)))
    assert (found.code, found.messages, found.direct) == (7, ("a:no", "b:never"), direct)


async def test_a_denial_is_told_with_the_name_of_its_handler(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(7, "no way"))
    assert (await mesh.mixer.check(REQUEST)).precondition.message == f"{HANDLER}:no way"


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED])
async def test_an_adapter_that_fails_fails_the_check(code: grpc.StatusCode, mesh: Mesh) -> None:
    mesh.refuse(CHECK, code)
    with pytest.raises(RpcError, match="performing check operation failed") as failed:
        await mesh.mixer.check(REQUEST)
    assert failed.value.code == 13


async def test_no_rule_that_matches_is_an_allow_that_is_kept(mesh: Mesh) -> None:
    other = {**REQUEST, "destination.service.name": "other"}
    found = (await mesh.mixer.check(other)).precondition
    assert (found.code, found.valid_s, found.uses) == (0, 60, 10_000)
    assert mesh.adapter.asked == []


@pytest.mark.parametrize(
    ("namespace", "destination", "asked"),
    [("istio-system", "default", 1), ("default", "default", 1), ("other", "default", 0)],
)
async def test_a_rule_counts_where_it_stands_or_everywhere(
    namespace: str, destination: str, asked: int
) -> None:
    options = ManifestOptions(address=ADDRESS, namespace=namespace)
    adapter = ToldAdapter({CHECK: lambda _: result().SerializeToString()})
    async with listening(adapter) as address:
        snapshot = read_snapshot(make_manifests(options, RequestParts()))
        mixer = Mixer(snapshot, addresses={ADDRESS: address})
        await mixer.check({**REQUEST, "destination.namespace": destination})
        await mixer.close()
    assert len(adapter.asked) == asked


async def test_an_attribute_that_is_missing_without_a_default_fails_the_check() -> None:
    objects: list[Manifest] = [dict(each) for each in OBJECTS]
    for each in objects:
        if each["metadata"]["name"] == "extauthz-check":
            properties = {"when": "request.time"}
            each["spec"] = {
                "template": "extauthz-authorization",
                "params": {"subject": {"properties": properties}},
            }
    mixer = Mixer(read_snapshot(objects))
    assert mixer.snapshot.errors == []
    with pytest.raises(RpcError, match=r"lookup failed: 'request\.time'") as failed:
        await mixer.check(REQUEST)
    assert failed.value.code == 13
    await mixer.close()


# Direct responses


def test_a_direct_response_says_all_that_the_client_gets() -> None:
    said = DirectHttpResponse(code=418, body="tea", headers={"x-a": "1", "Set-Cookie": "a=1,b=2"})
    found = read_result("h", result(7, details=(packed(said),))).direct
    assert found is not None and (found.code, found.body) == (418, "tea")
    assert sorted(found.headers) == [
        ("Set-Cookie", "a=1", True),
        ("Set-Cookie", "b=2", True),
        ("x-a", "1", False),
    ]


def test_an_allow_has_no_direct_response() -> None:
    assert read_result("h", result(details=(packed(DirectHttpResponse()),))).direct is None


def test_other_details_are_passed_over() -> None:
    other = WireAny(type_url="type.googleapis.com/google.rpc.ErrorInfo")
    first, second = DirectHttpResponse(body="first"), DirectHttpResponse(body="second")
    found = read_result("h", result(7, details=(other, packed(first), packed(second)))).direct
    assert found is not None and found.body == "first"


@pytest.mark.parametrize(
    ("code", "mixers", "proxys"),
    [
        (1, 408, 499), (2, 500, 500), (3, 400, 400), (4, 504, 504), (5, 404, 404), (6, 409, 409),
        (7, 403, 403), (8, 429, 429), (9, 412, 400), (10, 409, 409), (11, 400, 400),
        (12, 501, 501), (13, 500, 500), (14, 503, 503), (15, 500, 500), (16, 401, 401),
        (99, 500, 500),
    ],
)  # fmt: skip
async def test_mixer_and_proxy_have_two_tables(
    code: int, mixers: int, proxys: int, mesh: Mesh
) -> None:
    assert http_of_rpc(code) == proxys
    found = read_result("h", result(code, details=(packed(DirectHttpResponse()),))).direct
    assert found is not None and found.code == mixers
    mesh.tell(CHECK, result(code, "why"))
    answer = await mesh.proxy().request(REQUEST)
    assert answer.status == proxys and answer.body.endswith(f":{HANDLER}:why")


# What adapters are asked


async def test_a_check_arrives_as_the_instance_says(mesh: Mesh) -> None:
    mesh.tell(CHECK, result())
    await mesh.mixer.check(REQUEST)
    await mesh.mixer.check(REQUEST)
    first, second = map(HandleAuthorizationRequest.FromString, mesh.adapter.calls(CHECK))
    assert first.instance.name == "extauthz-check.instance.istio-system"
    properties = first.instance.subject.properties
    assert properties["credential"].string_value == "Bearer t"
    assert properties["header_x-api-key"].string_value == ""
    assert properties["client_ip"].ip_address_value.value == bytes([10, 0, 0, 1])
    assert first.adapter_config.type_url == "type.googleapis.com/extauthz.mixer.v1.Params"
    assert int(second.dedup_id) == int(first.dedup_id) + 1


async def test_lengths_on_the_wire_are_not_the_shortest(mesh: Mesh) -> None:
    """As a real Mixer's: who compares bytes with what it would write itself is wrong."""
    mesh.tell(CHECK, result())
    await mesh.mixer.check(REQUEST)
    (sent,) = mesh.adapter.calls(CHECK)
    assert HandleAuthorizationRequest.FromString(sent).SerializeToString() != sent


async def test_an_ip_literal_has_sixteen_bytes(mesh: Mesh) -> None:
    mesh.tell(CHECK, result())
    await mesh.mixer.check({name: each for name, each in REQUEST.items() if name != "source.ip"})
    (sent,) = mesh.adapter.calls(CHECK)
    properties = HandleAuthorizationRequest.FromString(sent).instance.subject.properties
    assert properties["client_ip"].ip_address_value.value == bytes(10) + b"\xff\xff" + bytes(4)


async def test_reports_come_in_one_call(mesh: Mesh) -> None:
    mesh.tell(REPORT, ReportResult())
    await mesh.mixer.report([RESPONSE, {**RESPONSE, "response.code": 404}])
    (sent,) = mesh.adapter.calls(REPORT)
    instances = HandleMetricRequest.FromString(sent).instances
    assert [each.dimensions["response_code"].int64_value for each in instances] == [200, 404]
    moment = instances[0].dimensions["response_time"].timestamp_value.value
    assert (moment.seconds, moment.nanos) == (1_577_934_246, 500_000_000)
    duration = instances[0].dimensions["duration"].duration_value.value
    assert (duration.seconds, duration.nanos) == (1, 500_000_000)
    assert instances[0].value.int64_value == 42


async def test_a_report_that_fails_is_unknown(mesh: Mesh) -> None:
    mesh.refuse(REPORT)
    with pytest.raises(RpcError) as failed:
        await mesh.mixer.report([RESPONSE])
    assert failed.value.code == 2


# Quotas


@pytest.mark.parametrize(
    ("answer", "granted"),
    [
        (grant(3), (3, 2)),
        (grant(0, code=8), (0, 2)),
        (grant(3, name="extauthz-quota"), (0, 0)),
        (QuotaResult(), (0, 0)),
    ],
)
async def test_of_a_quota_only_the_asked_entry_counts(
    answer: QuotaResult, granted: tuple[int, float], mesh: Mesh
) -> None:
    mesh.tell(CHECK, result(valid_s=0, uses=1))
    mesh.tell(QUOTA, answer)
    asks = {"Extauthz-Quota": QuotaAsk(amount=3, best_effort=True)}
    found = (await mesh.mixer.check(REQUEST, asks, "DEDUP-9")).quotas["Extauthz-Quota"]
    assert (found.granted, found.valid_s) == granted
    (sent,) = mesh.adapter.calls(QUOTA)
    read = HandleQuotaRequest.FromString(sent)
    assert read.dedup_id == "DEDUP-9Extauthz-Quota"
    asked = read.quota_request.quotas[QUOTA_NAME]
    assert (asked.amount, asked.best_effort) == (3, True)


async def test_a_quota_that_fails_grants_nothing_and_leaves_the_check(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=0, uses=1))
    mesh.refuse(QUOTA)
    found = await mesh.mixer.check(REQUEST, {"extauthz-quota": QuotaAsk(amount=1)})
    assert found.precondition.code == 0
    assert found.quotas["extauthz-quota"].granted == 0
    answer = await mesh.proxy(quotas={"extauthz-quota": 1}).request(REQUEST)
    assert answer.status == 429
    assert answer.body == "RESOURCE_EXHAUSTED:Quota is exhausted for: extauthz-quota"


async def test_a_quota_that_nobody_knows_is_granted(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=0, uses=1))
    found = (await mesh.mixer.check(REQUEST, {"other": QuotaAsk(amount=7)})).quotas["other"]
    assert (found.granted, found.valid_s) == (7, 60)


async def test_a_denied_check_asks_for_no_quota(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(16, "no"))
    found = await mesh.mixer.check(REQUEST, {"extauthz-quota": QuotaAsk(amount=1)})
    assert found.quotas == {} and mesh.adapter.calls(QUOTA) == []


# The proxy's cache


@pytest.mark.parametrize(
    ("uses", "asked"),
    [(0, 60), (1, 30), (2, 20), (-1, 1), (10_000, 1)],
)
async def test_an_answer_is_used_as_often_as_it_says(uses: int, asked: int, mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=60, uses=uses))
    proxy = mesh.proxy()
    for _ in range(60):
        assert (await proxy.request(REQUEST)).status == 200
    assert mesh.checks == asked


async def test_an_answer_is_used_as_long_as_it_says(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=5, uses=-1))
    proxy = mesh.proxy()
    found = []
    for later_s in (0, 5.0, 0.001, 5.0):
        mesh.clock.now_s += later_s
        found.append((await proxy.request(REQUEST)).from_cache)
    assert found == [False, True, False, True]


def test_no_duration_is_for_ever() -> None:
    """What Mixer never says, but the proxy would understand."""
    answer, cache = Precondition(valid_s=None, uses=-1), CheckCache()
    cache.keep(REQUEST, answer, 0.0)
    assert cache.find(REQUEST, 1e12) is answer


async def test_zero_seconds_are_the_same_moment_only(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=0, uses=-1))
    proxy = mesh.proxy()
    await proxy.request(REQUEST)
    assert (await proxy.request(REQUEST)).from_cache
    mesh.clock.now_s += 0.001
    assert not (await proxy.request(REQUEST)).from_cache


async def test_a_denial_without_validity_is_not_kept_and_one_with_is(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(7, "no"))
    proxy = mesh.proxy()
    for _ in range(2):
        assert (await proxy.request(REQUEST)).status == 403
    assert mesh.checks == 2
    mesh.tell(CHECK, result(7, "no", valid_s=5, uses=1))
    for _ in range(2):
        assert (await proxy.request(REQUEST)).status == 403
    assert mesh.checks == 3


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({"request.id": "another"}, 1),  # no part of the instance
        ({"request.headers": {"authorization": "Bearer t", "x-other": "1"}}, 1),
        ({"request.headers": {"authorization": "Bearer u"}}, 2),
        ({"request.headers": {"authorization": "Bearer t", "x-api-key": "k"}}, 2),
        ({"request.url_path": "/other"}, 2),
        ({"destination.namespace": "other"}, 2),  # the rule's look-up
    ],
)
async def test_an_answer_is_used_where_all_that_was_looked_at_is_the_same(
    changed: dict[str, Any], asked: int, mesh: Mesh
) -> None:
    mesh.tell(CHECK, result(valid_s=60, uses=10))
    proxy = mesh.proxy()
    await proxy.request(REQUEST)
    await proxy.request({**REQUEST, **changed})
    assert mesh.checks == asked


@pytest.mark.parametrize(("fail_open", "status"), [(False, 500), (True, 200)])
async def test_a_check_that_fails_follows_the_mesh(
    fail_open: bool,  # noqa: FBT001  (a row of the table)
    status: int,
    mesh: Mesh,
) -> None:
    mesh.refuse(CHECK)
    assert (await mesh.proxy(fail_open=fail_open).request(REQUEST)).status == status
    mesh.tell(CHECK, result(13, "told"))  # INTERNAL in an answer is as good as a failure
    assert (await mesh.proxy(fail_open=fail_open).request(REQUEST)).status == status


# Quota that is taken ahead


async def test_quota_is_asked_for_strictly_until_checks_come_from_the_cache(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=60, uses=1000))
    mesh.tell(QUOTA, grant(10, valid_s=60))
    proxy = mesh.proxy(quotas={"extauthz-quota": 1})
    for _ in range(7):
        assert (await proxy.request(REQUEST)).status == 200
    asked = [
        HandleQuotaRequest.FromString(sent).quota_request.quotas[QUOTA_NAME]
        for sent in mesh.adapter.calls(QUOTA)
    ]
    assert [(each.amount, each.best_effort) for each in asked] == [(1, False), (10, True)]
    # Below half of what is wanted, more is taken.
    await proxy.request(REQUEST)
    assert proxy.prefetches == [10, 10]


async def test_a_refused_prefetch_denies_and_then_waits(mesh: Mesh) -> None:
    mesh.tell(CHECK, result(valid_s=60, uses=1000))
    mesh.tell(QUOTA, grant(1, valid_s=60))
    proxy = mesh.proxy(quotas={"extauthz-quota": 1})
    await proxy.request(REQUEST)
    mesh.tell(QUOTA, grant(0))
    assert (await proxy.request(REQUEST)).status == 200  # spent before it was known
    assert (await proxy.request(REQUEST)).status == 429
    assert proxy.prefetches == [10]
    mesh.clock.now_s += 0.6
    mesh.tell(QUOTA, grant(10))
    assert (await proxy.request(REQUEST)).status == 429  # asked again, behind this answer
    assert (await proxy.request(REQUEST)).status == 200
    assert proxy.prefetches == [10, 10]


def test_a_pool_asks_for_what_the_last_second_needed() -> None:
    pool = Prefetch()
    asked = []
    for number in range(40):
        _, ask, slot = pool.check(1, number / 100)
        if ask is not None:
            asked.append(ask)
            pool.answered(ask, slot, QuotaGrant(granted=ask, valid_s=60), number / 100)
    assert asked[0] == 10 and max(asked) > 20


def test_what_was_taken_ahead_runs_out_in_time() -> None:
    pool = Prefetch()
    _, ask, slot = pool.check(1, 0.0)
    assert ask == 10
    pool.answered(ask, slot, QuotaGrant(granted=10, valid_s=2), 0.0)
    granted, ask, _ = pool.check(1, 1.9)
    assert granted and ask is None
    granted, ask, _ = pool.check(1, 2.0)
    assert granted and ask == 10
