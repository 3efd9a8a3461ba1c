"""Reports: answered at once, read behind, and bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from extauthz.model.limits import US_PER_S, QuotaUnit
from extauthz.model.usage import UNKNOWN, UsageRecord, UsageSource
from extauthz.policy.authentication.failed_attempts import FailureLimit
from extauthz.serving.methods import Call
from mixer_compat.params import HandlerParams
from mixer_compat.proto import edge_pb2, logentry_pb2, metric_pb2, policy_pb2, tracespan_pb2
from mixer_compat.reports import Reports
from mixer_compat.usage import read_edge, read_logentry, read_metric, read_tracespan
from tests.builders import API_KEY, START_US, S, a_catalog, a_limit, a_request, a_tier
from tests.deciding import Deciding
from tests.mixer_compat.asking import (
    METRIC,
    REPORTNOTHING,
    Asking,
    RememberingUsage,
    a_metric,
    params_of,
    values,
)

PARAMS = HandlerParams()
GOOD: dict[str, object] = {
    "method": "GET",
    "path": "/httpbin/1.0.0/ip?q=x",
    "api_key": API_KEY,
    "client_ip": bytes([192, 0, 2, 1]),
    "response_code": 200,
    "request_size": 100,
    "response_size": 200,
}


def a_time(us: int) -> policy_pb2.Value:
    return policy_pb2.Value(timestamp_value=a_stamp(us))


def a_stamp(us: int) -> policy_pb2.TimeStamp:
    stamp = policy_pb2.TimeStamp()
    stamp.value.FromMicroseconds(us)
    return stamp


def a_duration(us: int) -> policy_pb2.Value:
    value = policy_pb2.Value()
    value.duration_value.value.FromMicroseconds(us)
    return value


# What they tell


def test_a_metrics_dimensions_are_read() -> None:
    told = {
        **GOOD,
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "operation": '"/ip"',
        "host": "API.example.com:443",
        "user_agent": "curl/8",
        "protocol": "http",
        "destination": "httpbin.default.svc.cluster.local",
        "request_id": "r-1",
        "request_time": a_time(START_US),
        "response_time": a_time(START_US + 7),
    }
    instance = metric_pb2.InstanceMsg(dimensions=values(told))
    assert read_metric(instance, PARAMS) == UsageRecord(
        source=UsageSource.MIXER_METRIC,
        at_us=START_US,
        duration_us=7,
        api="HttpbinAPI",
        version="1.0.0",
        resource="/ip",
        method="GET",
        host="api.example.com",
        path="/httpbin/1.0.0/ip",
        protocol="http",
        client_address="192.0.2.1",
        user_agent="curl/8",
        destination="httpbin.default.svc.cluster.local",
        response_code=200,
        request_bytes=100,
        response_bytes=200,
        request_id="r-1",
    )


@pytest.mark.parametrize("told", ['"', '/a"', '"/a', '/"a"'])
def test_only_a_pair_of_quotes_around_an_operation_is_taken_off(told: str) -> None:
    for operation, resource in ((told, told), (f'"{told}"', told)):
        instance = metric_pb2.InstanceMsg(dimensions=values({"operation": operation}))
        assert read_metric(instance, PARAMS).resource == resource


def test_what_a_metric_does_not_tell_is_not_guessed() -> None:
    record = read_metric(metric_pb2.InstanceMsg(), PARAMS)
    assert record == UsageRecord(source=UsageSource.MIXER_METRIC)


@pytest.mark.parametrize(
    ("told", "duration_us"),
    [
        ({"duration": a_duration(9), "request_time": a_time(S), "response_time": a_time(S)}, 9),
        ({"request_time": a_time(S), "response_time": a_time(S + 5)}, 5),
        ({"request_time": a_time(S), "response_time": a_time(S - 5)}, UNKNOWN),
        ({"response_time": a_time(S)}, UNKNOWN),
    ],
)
def test_a_duration_is_told_or_lies_between_two_times(
    told: dict[str, object], duration_us: int
) -> None:
    instance = metric_pb2.InstanceMsg(dimensions=values(told))
    assert read_metric(instance, PARAMS).duration_us == duration_us


@pytest.mark.parametrize(
    ("as_wso2_adapter", "value", "size"),
    [(True, 12, 12), (True, -3, UNKNOWN), (False, 12, UNKNOWN), (True, "12", UNKNOWN)],
)
def test_the_value_of_wso2s_metric_is_the_requests_size(
    *, as_wso2_adapter: bool, value: object, size: int
) -> None:
    instance = metric_pb2.InstanceMsg(value=values({"v": value})["v"])
    params = HandlerParams(as_wso2_adapter=as_wso2_adapter)
    assert read_metric(instance, params).request_bytes == size


def test_a_log_entrys_variables_are_read() -> None:
    instance = logentry_pb2.InstanceMsg(
        variables=values({"method": "GET", "path": "/x", "response_code": 404}),
        timestamp=a_stamp(START_US),
    )
    record = read_logentry(instance, PARAMS)
    assert record.source is UsageSource.MIXER_LOGENTRY
    assert (record.at_us, record.method, record.path) == (START_US, "GET", "/x")
    assert record.response_code == 404


def test_a_span_is_read() -> None:
    instance = tracespan_pb2.InstanceMsg(
        trace_id="t",
        start_time=a_stamp(START_US),
        end_time=a_stamp(START_US + 3),
        span_tags=values({"method": "PUT", "api": "Pets"}),
        httpStatusCode=201,
        source_name="web",
        source_ip=policy_pb2.IPAddress(value=bytes([10, 0, 0, 1])),
        destination_name="pets",
        request_size=5,
        response_size=6,
        api_protocol="grpc",
    )
    assert read_tracespan(instance, PARAMS) == UsageRecord(
        source=UsageSource.MIXER_TRACESPAN,
        at_us=START_US,
        duration_us=3,
        api="Pets",
        method="PUT",
        protocol="grpc",
        client_address="10.0.0.1",
        caller="web",
        destination="pets",
        response_code=201,
        request_bytes=5,
        response_bytes=6,
        trace_id="t",
    )


@pytest.mark.parametrize(
    ("told", "destination"),
    [
        ({"destination_service_name": "s", "destination_service_namespace": "n"}, "s.n"),
        ({"destination_workload_name": "w", "destination_workload_namespace": "n"}, "w.n"),
        ({"destination_workload_name": "w"}, "w"),
        ({}, ""),
    ],
)
def test_an_edge_is_read(told: dict[str, str], destination: str) -> None:
    instance = edge_pb2.InstanceMsg(
        timestamp=a_stamp(START_US),
        source_workload_name="web",
        source_workload_namespace="shop",
        context_protocol="http",
        **told,
    )
    assert read_edge(instance, PARAMS) == UsageRecord(
        source=UsageSource.MIXER_EDGE,
        at_us=START_US,
        caller="web.shop",
        destination=destination,
        protocol="http",
    )


# What the catalog and the credential add


async def test_a_record_says_who_called_what() -> None:
    tier = a_tier("Gold")
    asking = Asking(Deciding(a_catalog(subscription_fields={"tier": tier})))
    (record,) = await asking.report(GOOD)
    assert (record.api, record.version, record.resource) == ("HttpbinAPI", "1.0.0", "/ip")
    assert (record.application, record.user, record.tier) == ("mobile", "alice", "Gold")
    assert record.key_type == "PRODUCTION"
    assert API_KEY not in repr(record)


async def test_a_record_of_an_unknown_caller_says_what_is_known() -> None:
    (record,) = await Asking().report({**GOOD, "api_key": "guessed"})
    assert (record.api, record.resource, record.application) == ("HttpbinAPI", "/ip", "")


@pytest.mark.parametrize("code", [401, 403, 429])
async def test_a_refused_requests_credential_is_not_tried_again(code: int) -> None:
    limit = FailureLimit(requests=2, window_us=60 * US_PER_S)
    asking = Asking(Deciding(failure_limit=limit))
    bad = {**GOOD, "api_key": "guessed", "response_code": code}
    records = await asking.report(*[bad] * 5)
    assert [record.response_code for record in records] == [code] * 5
    assert len(asking.deciding.failures) == 0


async def test_a_credential_that_ended_since_is_no_guess() -> None:
    asking = Asking(Deciding(failure_limit=FailureLimit(requests=2, window_us=60 * US_PER_S)))
    await asking.report(*[{**GOOD, "api_key": "taken away"}] * 5)
    assert len(asking.deciding.failures) == 0


async def test_reports_are_no_decisions() -> None:
    asking = Asking()
    await asking.report(GOOD, {**GOOD, "path": "/else"})
    assert asking.deciding.observer.told == []


# Bytes


def in_bytes(limit: int) -> Asking:
    size = a_limit(limit, quota_unit=QuotaUnit.BYTES)
    return Asking(Deciding(a_catalog(subscription_fields={"tier": a_tier("T", size)})))


async def test_a_metric_charges_the_limits_in_bytes() -> None:
    asking = in_bytes(1000)
    request = a_request(headers={"x-api-key": API_KEY})
    await asking.report(GOOD)
    allow = await asking.deciding.allow(request)
    assert [status.reading.remaining for status in allow.limits] == [700]
    await asking.report(GOOD, GOOD, GOOD)
    assert await asking.deciding.reason(request) == "rate_limited"


@pytest.mark.parametrize(
    "changes",
    [
        {"response_code": 401},
        {"response_code": 403},
        {"response_code": 429},
        {"api_key": "guessed"},
        {"path": "/else"},
        {"method": ""},
        {"request_size": 0, "response_size": 0},
        {"request_size": -5, "response_size": -5},
    ],
)
async def test_what_was_not_used_is_not_charged(changes: dict[str, object]) -> None:
    asking = in_bytes(1000)
    assert len(await asking.report({**GOOD, **changes})) == 1
    assert asking.deciding.counted() == {}


async def test_in_shadow_nothing_is_charged() -> None:
    asking = in_bytes(1000)
    assert len(await asking.report(GOOD, params=params_of(shadow=True))) == 1
    assert asking.deciding.counted() == {}


@pytest.mark.parametrize("method", ["logentry.HandleLogEntryService/HandleLogEntry"])
async def test_other_reports_only_tell(method: str) -> None:
    asking = in_bytes(1000)
    asked = logentry_pb2.HandleLogEntryRequest(
        instances=[logentry_pb2.InstanceMsg(variables=values(GOOD))]
    )
    await asking.ask(f"/{method}", asked)
    await asking.adapter.reports.finish()
    assert [record.response_bytes for record in asking.usage.told] == [200]
    assert asking.deciding.counted() == {}


# The queue


async def test_a_report_is_answered_before_it_is_read() -> None:
    asking, told = Asking(), asyncio.Event()

    class Waking(RememberingUsage):
        def observe_usage(self, record: UsageRecord) -> None:
            super().observe_usage(record)
            if len(self.told) == 2:
                told.set()

    usage = Waking()
    reports = Reports(asking.door, (usage,))
    (row,) = [row for row in reports.methods() if row.path == METRIC]
    assert await row.handle(a_metric([GOOD, GOOD]).SerializeToString(), Call()) == b""
    assert (reports.waiting, reports.records, usage.told) == (1, 0, [])
    running = asyncio.create_task(reports.run())
    await told.wait()
    assert (reports.waiting, len(usage.told)) == (0, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_report_of_nothing_is_answered() -> None:
    assert await Asking().ask(REPORTNOTHING, b"\xff") == b""


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [({"max_waiting": 3}, 3), ({"max_waiting_bytes": 250}, 2), ({"max_waiting_bytes": 1}, 0)],
)
async def test_what_does_not_fit_is_dropped_and_counted(bounds: dict[str, int], kept: int) -> None:
    asking, usage = Asking(), RememberingUsage()
    reports = Reports(asking.door, (usage,), **bounds)
    (row,) = [row for row in reports.methods() if row.path == METRIC]
    message = a_metric([{"user_agent": "x" * 70}]).SerializeToString()
    assert 100 < len(message) <= 125
    for _ in range(5):
        assert await row.handle(message, Call()) == b""
    assert (reports.waiting, reports.dropped) == (kept, 5 - kept)
    await reports.finish()
    assert (len(usage.told), reports.waiting) == (kept, 0)
    assert await row.handle(message, Call()) == b""
    assert reports.waiting == min(kept, 1)


@pytest.mark.parametrize("params", [params_of(compat="nothing")])
async def test_what_cannot_be_read_is_counted_and_the_next_is_read(params: Any) -> None:
    asking = Asking()
    reports = asking.adapter.reports
    await asking.ask(METRIC, b"\xff")
    await asking.ask(METRIC, a_metric([GOOD], params))
    assert len(await asking.report(GOOD)) == 1
    assert (reports.unreadable, reports.records) == (2, 1)


async def test_a_defect_in_one_report_does_not_stop_the_next() -> None:
    class Failing(RememberingUsage):
        def observe_usage(self, record: UsageRecord) -> None:
            super().observe_usage(record)
            if len(self.told) == 1:
                raise RuntimeError("a defect")

    asking, usage = Asking(), Failing()
    reports = Reports(asking.door, (usage,))
    (row,) = [row for row in reports.methods() if row.path == METRIC]
    for _ in range(2):
        await row.handle(a_metric([GOOD]).SerializeToString(), Call())
    await reports.finish()
    assert (reports.unreadable, len(usage.told)) == (1, 2)


async def test_a_defect_in_one_request_does_not_keep_the_others_from_being_charged() -> None:
    class Failing(RememberingUsage):
        def observe_usage(self, record: UsageRecord) -> None:
            super().observe_usage(record)
            if len(self.told) == 1:
                raise RuntimeError("a defect")

    asking, usage = in_bytes(1000), Failing()
    reports = Reports(asking.door, (usage,))
    (row,) = [row for row in reports.methods() if row.path == METRIC]
    await row.handle(a_metric([GOOD] * 3).SerializeToString(), Call())
    await reports.finish()
    assert (reports.unreadable, len(usage.told)) == (1, 3)
    allow = await asking.deciding.allow(a_request(headers={"x-api-key": API_KEY}))
    assert [status.reading.remaining for status in allow.limits] == [100]


async def test_an_end_waits_for_the_report_that_is_being_read() -> None:
    asking, began = Asking(), asyncio.Event()

    class Waking(RememberingUsage):
        def observe_usage(self, record: UsageRecord) -> None:
            super().observe_usage(record)
            began.set()

    usage = Waking()
    reports = Reports(asking.door, (usage,))
    (row,) = [row for row in reports.methods() if row.path == METRIC]
    await row.handle(a_metric([GOOD] * 50).SerializeToString(), Call())
    running = asyncio.create_task(reports.run())
    await began.wait()
    assert len(usage.told) < 50
    reports.end()
    await asyncio.wait_for(running, 30)
    assert len(usage.told) == 50
