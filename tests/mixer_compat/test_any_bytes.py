"""Whatever bytes come, every call is answered, and nobody gets in by them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.errors import CounterStoreError
from extauthz.model.limits import Taking
from mixer_compat.instances import read_authorization
from mixer_compat.params import HandlerParams, ParamsError, ParamsReader
from mixer_compat.proto import authorization_pb2, model_pb2, policy_pb2, quota_pb2
from mixer_compat.values import find_duration_us, find_number, find_text, find_time_us
from tests.builders import API_KEY, a_catalog, a_limit, a_tier
from tests.deciding import Deciding
from tests.mixer_compat.asking import (
    APIKEY,
    AUTHORIZATION,
    BACKEND,
    CHECKNOTHING,
    LISTENTRY,
    METRIC,
    QUOTA,
    Asking,
    reason_of,
)

CATALOG = a_catalog(subscription_fields={"tier": a_tier("T", a_limit(5))})
PARTS = ("method", "path", "api", "version", "host", "credential", "api_key", "scope", "client_ip")

text = st.text(max_size=40)
wire_times: st.SearchStrategy[dict[str, int]] = st.builds(
    dict, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1)
)
wire_values = st.one_of(
    st.just({}),
    st.builds(lambda it: {"string_value": it}, text),
    st.builds(lambda it: {"int64_value": it}, st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda it: {"double_value": it}, st.floats()),
    st.builds(lambda it: {"bool_value": it}, st.booleans()),
    st.builds(lambda it: {"ip_address_value": {"value": it}}, st.binary(max_size=20)),
    st.builds(lambda it: {"timestamp_value": {"value": it}}, wire_times),
    st.builds(lambda it: {"duration_value": {"value": it}}, wire_times),
    st.builds(lambda it: {"email_address_value": {"value": it}}, text),
    st.builds(lambda it: {"dns_name_value": {"value": it}}, text),
    st.builds(lambda it: {"uri_value": {"value": it}}, text),
    st.builds(lambda it: {"string_map_value": {"value": it}}, st.dictionaries(text, text)),
).map(lambda fields: policy_pb2.Value(**fields))


@given(data=st.binary(max_size=200))
@settings(deadline=None)
async def test_no_bytes_are_let_in(data: bytes) -> None:
    asking = Asking(Deciding(CATALOG))
    for path in (AUTHORIZATION, APIKEY, CHECKNOTHING):
        result = model_pb2.CheckResult.FromString(await asking.ask(path, data))
        assert result.status.code != 0
    for entry in model_pb2.QuotaResult.FromString(await asking.ask(QUOTA, data)).quotas.values():
        assert entry.granted_amount == 0
    for name in ("Validate", "CreateSession", "CloseSession"):
        # All three have their status as field 1 or 2, and it is always there.
        assert await asking.ask(f"{BACKEND}/{name}", data)
    assert await asking.ask(METRIC, data) == b""
    await asking.adapter.reports.finish()


@given(data=st.binary(max_size=100))
@settings(deadline=None)
async def test_no_bytes_make_a_listentry_fail(data: bytes) -> None:
    result = model_pb2.CheckResult.FromString(await Asking().ask(LISTENTRY, data))
    assert reason_of(result) in ("allowed", "malformed_request", "unavailable")


@given(
    properties=st.dictionaries(st.one_of(st.sampled_from(PARTS), text), wire_values, max_size=6),
    user=text,
    method=text,
    path=text,
)
@settings(deadline=None)
async def test_no_properties_without_a_good_key_are_let_in(
    properties: dict[str, policy_pb2.Value], user: str, method: str, path: str
) -> None:
    instance = authorization_pb2.InstanceMsg(
        subject=authorization_pb2.SubjectMsg(user=user, properties=properties),
        action=authorization_pb2.ActionMsg(method=method, path=path),
    )
    asked = authorization_pb2.HandleAuthorizationRequest(instance=instance)
    asking = Asking(Deciding(CATALOG))
    result = model_pb2.CheckResult.FromString(await asking.ask(AUTHORIZATION, asked))
    assert result.status.code not in (0, 13)
    quota = quota_pb2.HandleQuotaRequest(
        instance=quota_pb2.InstanceMsg(name="q.instance.x", dimensions=properties)
    )
    quota.quota_request.quotas["q.instance.x"].amount = 1
    answer = model_pb2.QuotaResult.FromString(await asking.ask(QUOTA, quota))
    assert answer.quotas["q.instance.x"].granted_amount == 0
    assert asking.deciding.counted() == {}


@given(present=st.sets(st.sampled_from(PARTS)))
@settings(deadline=None)
async def test_only_a_request_that_is_told_whole_is_let_in(present: set[str]) -> None:
    good = {
        "method": "GET",
        "path": "/httpbin/1.0.0/ip",
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "host": "api.example.com:443",
        "api_key": API_KEY,
        "client_ip": bytes([192, 0, 2, 1]),
    }
    properties = {part: value for part, value in good.items() if part in present}
    result = await Asking(Deciding(CATALOG)).check(properties)
    assert (result.status.code == 0) == (present >= {"method", "path", "api_key"})


@given(value=wire_values)
def test_every_value_is_read(value: policy_pb2.Value) -> None:
    named = {"a": value}
    assert isinstance(find_text(named, "a"), str)
    assert -(2**63) <= find_number(named, "a", -1) < 10**19
    assert find_time_us(named, "a") >= 0
    assert find_duration_us(named, "a") >= -1


@given(
    type_url=st.sampled_from(["", "x/extauthz.mixer.v1.Params", "x/other.Params"]),
    value=st.binary(max_size=100),
)
def test_every_configuration_is_read_or_refused(type_url: str, value: bytes) -> None:
    with suppress(ParamsError):
        assert isinstance(
            ParamsReader().read(WireAny(type_url=type_url, value=value)), HandlerParams
        )


@given(data=st.binary(max_size=300))
def test_a_length_may_be_written_longer_than_it_needs_be(data: bytes) -> None:
    """As Mixer's own encoder does: always two bytes for a length below 16,384."""
    name = b"\xfa\xd2\xe4\x93\x02" + _long_length(len(data)) + data
    try:
        instance = authorization_pb2.InstanceMsg.FromString(name)
    except DecodeError:
        assert not _is_text(data)
    else:
        assert instance.name.encode() == data


def _long_length(length: int) -> bytes:
    return bytes([length & 0x7F | 0x80, length >> 7])


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_unknown_fields_are_passed_over() -> None:
    instance = authorization_pb2.InstanceMsg(name="n")
    instance.action.method, instance.action.path = "GET", "/"
    later = instance.SerializeToString() + b"\xf8\x3f\x05" + b"\xc2\x3e\x02hi"
    request = read_authorization(authorization_pb2.InstanceMsg.FromString(later), HandlerParams())
    assert (request.method, request.path) == ("GET", "/")


@pytest.mark.parametrize("error", [CounterStoreError("away"), RuntimeError("a defect")])
async def test_what_could_not_be_decided_is_a_denial_in_the_answer(error: Exception) -> None:
    class Failing:
        async def take(self, charges: Any, **how: Any) -> Taking:
            raise error

        async def give_back(self, charges: Any, **how: Any) -> None:
            raise error

        async def close(self) -> None:
            pass

    asking = Asking(Deciding(CATALOG, counters=Failing()))
    result = await asking.check({"method": "GET", "path": "/httpbin/1.0.0/ip", "api_key": API_KEY})
    assert reason_of(result) == "unavailable"


async def test_a_defect_in_the_door_itself_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("mixer_compat.checks.read_authorization", fail)
    assert reason_of(await Asking().check({})) == "unavailable"


async def test_calls_that_cannot_be_read_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    asking = Asking()
    for _ in range(50):
        for path in (AUTHORIZATION, QUOTA, METRIC):
            await asking.ask(path, b"\xff")
        await asking.check({})
    await asking.adapter.reports.finish()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "a check of Mixer's cannot be read, and is denied",
        "a quota call of Mixer's is granted nothing",
        "a report of Mixer's cannot be read",
    ]
