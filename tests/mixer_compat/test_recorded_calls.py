"""Calls that real Mixers sent, byte for byte, over real gRPC.

`recorded_calls.jsonl` holds calls of Mixer 1.1, 1.3 and 1.4 to an adapter for tests, whose
parameters are a message that we do not know. Length prefixes in them are longer than they need
be, names come last, and addresses come in 4 and in 16 bytes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from extauthz.model.catalog import ApiKey
from mixer_compat.instances import read_authorization
from mixer_compat.params import HandlerParams
from mixer_compat.proto import (
    apikey_pb2,
    authorization_pb2,
    checknothing_pb2,
    edge_pb2,
    listentry_pb2,
    logentry_pb2,
    metric_pb2,
    model_pb2,
    quota_pb2,
    reportnothing_pb2,
    tracespan_pb2,
)
from mixer_compat.proto.params_pb2 import Properties
from tests.builders import a_catalog, a_resource, an_api, sha256
from tests.deciding import Deciding
from tests.mixer_compat.asking import Asking, params_of, reason_of, served_plainly
from tests.policy.authentication.identifying import MOBILE

CALLS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "recorded_calls.jsonl").read_text().splitlines()
]
MESSAGES: dict[str, Any] = {
    "HandleAuthorization": authorization_pb2.HandleAuthorizationRequest,
    "HandleApiKey": apikey_pb2.HandleApiKeyRequest,
    "HandleListEntry": listentry_pb2.HandleListEntryRequest,
    "HandleCheckNothing": checknothing_pb2.HandleCheckNothingRequest,
    "HandleQuota": quota_pb2.HandleQuotaRequest,
    "HandleMetric": metric_pb2.HandleMetricRequest,
    "HandleLogEntry": logentry_pb2.HandleLogEntryRequest,
    "HandleTraceSpan": tracespan_pb2.HandleTraceSpanRequest,
    "HandleEdge": edge_pb2.HandleEdgeRequest,
    "HandleReportNothing": reportnothing_pb2.HandleReportNothingRequest,
    "Validate": model_pb2.ValidateRequest,
    "CreateSession": model_pb2.CreateSessionRequest,
    "CloseSession": model_pb2.CloseSessionRequest,
}
CHECKS = ("HandleAuthorization", "HandleApiKey", "HandleListEntry", "HandleCheckNothing")
REPORTS = ("HandleMetric", "HandleLogEntry", "HandleTraceSpan", "HandleEdge")


def method_of(call: dict[str, Any]) -> str:
    return str(call["method"]).rpartition("/")[2]


def bytes_of(call: dict[str, Any]) -> bytes:
    return base64.b64decode(call["base64"])


def without_params(call: dict[str, Any]) -> bytes:
    """The same call of an adapter that has no configuration."""
    message = MESSAGES[method_of(call)].FromString(bytes_of(call))
    message.ClearField("adapter_config")
    data: bytes = message.SerializeToString()
    return data


SERVED = [call for call in CALLS if method_of(call) in MESSAGES]
NUMBERED = [pytest.param(call, id=f"{n}-{method_of(call)}") for n, call in enumerate(SERVED)]


def test_there_are_calls_of_every_template() -> None:
    assert {method_of(call) for call in SERVED} == set(MESSAGES)
    assert len(SERVED) == 41


@pytest.mark.parametrize("call", NUMBERED)
def test_a_recorded_call_is_read_whole(call: dict[str, Any]) -> None:
    message = MESSAGES[method_of(call)].FromString(bytes_of(call))
    assert getattr(message, "dedup_id", "") == call.get("dedup_id", "")
    if "instances" in call:
        assert [one.name for one in message.instances] == [call["instance"]] * call["instances"]
    elif "instance" in call:
        assert message.instance.name == call["instance"]
    if "quotas" in call:
        quotas = message.quota_request.quotas
        assert {key: [one.amount, one.best_effort] for key, one in quotas.items()} == (
            call["quotas"]
        )
    if "session_id" in call:
        assert message.session_id == call["session_id"]


def judge(method: str, data: bytes) -> str:
    """What an answer says, in a word."""
    if method in CHECKS:
        return reason_of(model_pb2.CheckResult.FromString(data))
    if method == "HandleQuota":
        (entry,) = model_pb2.QuotaResult.FromString(data).quotas.values()
        return f"granted {entry.granted_amount}"
    if method in ("Validate", "CreateSession", "CloseSession"):
        kind: Any = getattr(model_pb2, f"{method}Response")
        answer = kind.FromString(data)
        assert answer.HasField("status")
        return "good" if answer.status.code == 0 else "bad"
    assert data == b""
    return "taken"


@pytest.mark.parametrize("call", NUMBERED)
async def test_parameters_of_another_adapter_deny(call: dict[str, Any]) -> None:
    asking, method = Asking(), method_of(call)
    async with served_plainly(asking) as ask:
        said = judge(method, await ask(call["method"], bytes_of(call)))
    has_params = b"shimtest.Params" in bytes_of(call)
    if method in CHECKS:
        assert said == ("unavailable" if has_params else "malformed_request")
    elif method == "HandleQuota":
        assert said == "granted 0"
    elif method in REPORTS or method == "HandleReportNothing":
        assert said == "taken"
    else:
        assert said == "good"


DECIDED = {
    "HandleAuthorization": "api_not_found",
    "HandleApiKey": "malformed_request",
    "HandleListEntry": "allowed",
    "HandleCheckNothing": "malformed_request",
    "HandleQuota": "granted 0",
    "Validate": "good",
    "CreateSession": "good",
    "CloseSession": "good",
}


@pytest.mark.parametrize("call", NUMBERED)
async def test_without_parameters_a_call_is_decided(call: dict[str, Any]) -> None:
    method = method_of(call)
    is_of_backend = method in ("Validate", "CreateSession", "CloseSession")
    asking = Asking()
    async with served_plainly(asking) as ask:
        data = bytes_of(call) if is_of_backend else without_params(call)
        said = judge(method, await ask(call["method"], data))
        await asking.adapter.reports.finish()
    assert said == DECIDED.get(method, "taken")
    assert len(asking.usage.told) == (call["instances"] if method in REPORTS else 0)
    assert asking.adapter.reports.unreadable == 0


async def test_a_recorded_authorization_is_allowed_by_its_properties() -> None:
    """The instance of the first recorded call, with the names of its own properties."""
    call = SERVED[0]
    asked = authorization_pb2.HandleAuthorizationRequest.FromString(bytes_of(call))
    names = Properties(api_key="app", client_ip="ip")
    asked.adapter_config.Pack(params_of(properties=names))
    catalog = a_catalog(
        an_api(a_resource("/x", "POST"), base_paths=("",)),
        api_keys=[ApiKey(digest=sha256("web"), application=MOBILE)],
    )
    asking = Asking(Deciding(catalog))
    async with served_plainly(asking) as ask:
        data = await ask(call["method"], asked.SerializeToString())
    assert judge("HandleAuthorization", data) == "allowed"
    ((request, _, _),) = asking.deciding.observer.told
    assert request.source.address == "10.0.0.1"
    assert (request.method, request.path, request.door) == ("POST", "/x", "mixer")


def test_every_kind_of_value_of_a_recorded_call_is_read() -> None:
    asked = authorization_pb2.HandleAuthorizationRequest.FromString(bytes_of(SERVED[0]))
    names = ("size", "dur", "f", "mtls", "when", "ip", "app")
    params = HandlerParams(headers={name: f"x-{name}" for name in names})
    headers = read_authorization(asked.instance, params).headers
    assert {name: headers.get(f"x-{name}") for name in names} == {
        "size": "99",
        "dur": "5",
        "f": "2.5",
        "mtls": "false",
        "when": "1577934245",
        "ip": "10.0.0.1",
        "app": "web",
    }


@pytest.mark.parametrize("template", ["keyval", "kubernetes"])
async def test_templates_that_change_attributes_are_not_served(template: str) -> None:
    (call,) = [call for call in CALLS if template in call["method"]]
    async with served_plainly(Asking()) as ask:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ask(call["method"], bytes_of(call))
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
