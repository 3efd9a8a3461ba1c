"""Asks the Mixer door as Mixer does: with instances, over real gRPC or directly at handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.message import Message

from extauthz.answers.denial import DenialStyle
from extauthz.model.usage import UsageRecord
from extauthz.policy.limits.tier_quotas import TierQuotas
from extauthz.serving.door import Door, DoorListener
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.health import HealthState
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.methods import Call, Metadata, TextNames, UnaryMethod
from mixer_compat.adapter import SERVICES, MixerAdapter
from mixer_compat.callers import CallerRules
from mixer_compat.door import MixerDoor
from mixer_compat.params import HandlerParams, ParamsReader
from mixer_compat.proto import (
    apikey_pb2,
    authorization_pb2,
    listentry_pb2,
    metric_pb2,
    model_pb2,
    policy_pb2,
    quota_pb2,
)
from mixer_compat.proto.params_pb2 import Params
from mixer_compat.proto.wso2_params_pb2 import Params as Wso2Params
from tests.deciding import Deciding

AUTHORIZATION = "/authorization.HandleAuthorizationService/HandleAuthorization"
APIKEY = "/apikey.HandleApiKeyService/HandleApiKey"
LISTENTRY = "/listentry.HandleListEntryService/HandleListEntry"
CHECKNOTHING = "/checknothing.HandleCheckNothingService/HandleCheckNothing"
QUOTA = "/quota.HandleQuotaService/HandleQuota"
METRIC = "/metric.HandleMetricService/HandleMetric"
REPORTNOTHING = "/reportnothing.HandleReportNothingService/HandleReportNothing"
BACKEND = "/istio.mixer.adapter.model.v1beta1.InfrastructureBackend"

RQ = "rq.instance.istio-system"
"""The full name of a quota instance, as Mixer sends it."""

WSO2_PARAMS = Wso2Params(validate_subscription="true", disable_hostname_verification="true")

Ask = Callable[[str, bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class GivenCaller:
    """Who calls, as far as a host may tell."""

    metadata: Metadata = ()

    def read_metadata(self) -> Metadata:
        return self.metadata

    def read_texts(self, names: TextNames) -> Mapping[str, str]:
        return {
            name: value
            for name, value in self.metadata
            if name in names.texts and isinstance(value, str)
        }

    def read_peer(self) -> str:
        return "unix:"


class RememberingUsage:
    """A `UsageObserver` that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[UsageRecord] = []

    def observe_usage(self, record: UsageRecord) -> None:
        self.told.append(record)


class Asking:
    """An adapter over a pipeline in memory, and the calls that Mixer makes of it."""

    def __init__(
        self,
        deciding: Deciding | None = None,
        *,
        params: HandlerParams | None = None,
        style: DenialStyle | None = None,
        callers: CallerRules | None = None,
        **door: Any,
    ) -> None:
        self.deciding = deciding or Deciding()
        self.usage = RememberingUsage()
        self.door = MixerDoor(
            pipeline=self.deciding.pipeline,
            catalog=lambda: self.deciding.catalog,
            params=ParamsReader(params or HandlerParams()),
            clock=self.deciding.clock,
            style=style or DenialStyle(),
            callers=callers or CallerRules(),
            **door,
        )
        self.adapter = MixerAdapter(
            self.door,
            TierQuotas(
                catalog=self.door.catalog,
                counters=self.deciding.memory,
                clock=self.deciding.clock,
            ),
            (self.usage,),
        )
        self._rows: dict[str, UnaryMethod[bytes, bytes]] = {
            row.path: row for row in self.adapter.methods()
        }

    async def ask(self, path: str, message: bytes | Message, call: Call | None = None) -> bytes:
        """What the method's handler answers, without a network."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        return await self._rows[path].handle(data, call or Call())

    async def check(
        self, properties: Mapping[str, object], params: Message | None = None
    ) -> model_pb2.CheckResult:
        """The answer to an authorization instance."""
        asked = an_authorization(properties, params)
        return model_pb2.CheckResult.FromString(await self.ask(AUTHORIZATION, asked))

    async def quota(
        self,
        dimensions: Mapping[str, object],
        amount: int = 1,
        *,
        best_effort: bool = False,
        dedup_id: str = "",
        params: Message | None = None,
    ) -> model_pb2.QuotaResult.Result:
        """The only entry of the answer to a quota instance."""
        asked = a_quota(
            dimensions, amount, best_effort=best_effort, dedup_id=dedup_id, params=params
        )
        result = model_pb2.QuotaResult.FromString(await self.ask(QUOTA, asked))
        assert list(result.quotas) == [RQ]
        return result.quotas[RQ]

    async def report(
        self, *dimensions: Mapping[str, object], params: Message | None = None
    ) -> list[UsageRecord]:
        """What usage observers are told of some metric instances."""
        await self.ask(METRIC, a_metric(dimensions, params))
        await self.adapter.reports.finish()
        return self.usage.told


@asynccontextmanager
async def served(asking: Asking) -> AsyncIterator[str]:
    """The adapter behind a real server; gives its address."""
    door = Door(asking.adapter.methods(), health=HealthState(SERVICES), load=Load())
    listener = DoorListener(door="mixer", addresses=(read_listen_address("127.0.0.1:0"),))
    host = GrpcioHost({"mixer": door}, (listener,))
    await host.start()
    try:
        yield str(host.addresses[0])
    finally:
        await host.stop(0)


@asynccontextmanager
async def served_plainly(asking: Asking) -> AsyncIterator[Ask]:
    """Calls over gRPC, as from a Mixer without authentication."""
    async with (
        served(asking) as address,
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):

        async def ask(path: str, data: bytes) -> bytes:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            return await call(data, timeout=30)

        yield ask


# Instances


def a_value(value: object) -> policy_pb2.Value:
    """Mixer's typed value: bytes are an IP address, the others what Mixer makes of them."""
    match value:
        case policy_pb2.Value():
            return value
        case bool():
            return policy_pb2.Value(bool_value=value)
        case int():
            return policy_pb2.Value(int64_value=value)
        case float():
            return policy_pb2.Value(double_value=value)
        case bytes():
            return policy_pb2.Value(ip_address_value=policy_pb2.IPAddress(value=value))
        case _:
            return policy_pb2.Value(string_value=str(value))


def values(named: Mapping[str, object]) -> dict[str, policy_pb2.Value]:
    return {name: a_value(value) for name, value in named.items()}


def a_config(params: Message | None) -> WireAny | None:
    """The parameters as Mixer sends them with each call."""
    if params is None or isinstance(params, WireAny):
        return params
    config = WireAny()
    config.Pack(params)
    return config


def an_authorization(
    properties: Mapping[str, object], params: Message | None = None, **action: Any
) -> authorization_pb2.HandleAuthorizationRequest:
    return authorization_pb2.HandleAuthorizationRequest(
        instance=authorization_pb2.InstanceMsg(
            name="authz.instance.istio-system",
            subject=authorization_pb2.SubjectMsg(properties=values(properties)),
            action=authorization_pb2.ActionMsg(**action),
        ),
        adapter_config=a_config(params),
        dedup_id="9045452047732731288",
    )


def an_apikey(
    operation: str, key: str, api: str = "HttpbinAPI", version: str = "1.0.0"
) -> apikey_pb2.HandleApiKeyRequest:
    return apikey_pb2.HandleApiKeyRequest(
        instance=apikey_pb2.InstanceMsg(
            name="key.instance.istio-system",
            api=api,
            api_version=version,
            api_operation=operation,
            api_key=key,
        )
    )


def a_listentry(value: object) -> listentry_pb2.HandleListEntryRequest:
    instance = listentry_pb2.InstanceMsg(name="list.instance.istio-system", value=a_value(value))
    return listentry_pb2.HandleListEntryRequest(instance=instance)


def a_quota(
    dimensions: Mapping[str, object],
    amount: int = 1,
    *,
    best_effort: bool = False,
    dedup_id: str = "",
    params: Message | None = None,
) -> quota_pb2.HandleQuotaRequest:
    asked = model_pb2.QuotaRequest.QuotaParams(amount=amount, best_effort=best_effort)
    return quota_pb2.HandleQuotaRequest(
        instance=quota_pb2.InstanceMsg(name=RQ, dimensions=values(dimensions)),
        adapter_config=a_config(params),
        # What Mixer sends: the caller's id with the quota's name behind it.
        dedup_id=f"{dedup_id}rq",
        quota_request=model_pb2.QuotaRequest(quotas={RQ: asked}),
    )


def a_metric(
    all_dimensions: Sequence[Mapping[str, object]], params: Message | None = None
) -> metric_pb2.HandleMetricRequest:
    return metric_pb2.HandleMetricRequest(
        instances=[
            metric_pb2.InstanceMsg(name="met.instance.istio-system", dimensions=values(dimensions))
            for dimensions in all_dimensions
        ],
        adapter_config=a_config(params),
    )


def params_of(**fields: Any) -> Params:
    """Our own handler parameters."""
    return Params(**fields)


# Answers


@dataclass(frozen=True, slots=True)
class Direct:
    """The HTTP answer in the details of a denial."""

    status: int
    headers: Mapping[str, str]
    body: str


def find_direct(result: model_pb2.CheckResult) -> Direct | None:
    """The DirectHttpResponse that Mixer finds in a result's status; None when it has none."""
    for detail in result.status.details:
        if detail.type_url == "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse":
            found = policy_pb2.DirectHttpResponse.FromString(detail.value)
            return Direct(found.code, dict(found.headers), found.body)
    return None


def reason_of(result: model_pb2.CheckResult) -> str:
    """ "allowed", or the reason of a denial, which stands in front of its message."""
    if result.status.code == 0:
        return "allowed"
    return result.status.message.partition(":")[0]


def validity_of(result: model_pb2.CheckResult) -> tuple[float, int]:
    """Seconds and uses, as Mixer hands them on. A duration that is not there is for ever."""
    assert result.HasField("valid_duration")
    duration = result.valid_duration
    return duration.seconds + duration.nanos / 1e9, result.valid_use_count


def seconds_of(entry: model_pb2.QuotaResult.Result) -> float:
    return entry.valid_duration.seconds + entry.valid_duration.nanos / 1e9
