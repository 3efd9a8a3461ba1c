"""Asks one service at both of its doors: the same request as Envoy tells it, and as Mixer does.

A door's answer is read into an `Answer`, so that both can be compared field by field. What names
the decision itself is taken out of the body, and what names a time is told apart, in seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, CheckResponse, Peer
from mixer_compat.proto.model_pb2 import CheckResult, QuotaResult
from mixer_compat.proto.params_pb2 import Params, Properties
from tests.e2e.running import Deployment, merge
from tests.free_ports import find_free_port
from tests.mixer_compat.asking import (
    APIKEY,
    AUTHORIZATION,
    QUOTA,
    RQ,
    a_quota,
    an_apikey,
    an_authorization,
    find_direct,
    reason_of,
    validity_of,
)

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
HOST: Final = "api.example"
ALLOWED: Final = "allowed"
TURN_S: Final = 60

FIELDS: Final = (
    *("x-api-key", "apikey", "internal-key", "referer", "cookie", "x-meter"),
    *("accept", "content-type", "soapaction"),
)
"""Header fields that have a property of the same name, beside Authorization."""
PARAMS: Final = Params(properties=Properties(headers={name: name for name in FIELDS}))
IN_QUOTA: Final = Params(properties=PARAMS.properties, limits_in_quota=True)

_DATE: Final = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_RESET: Final = re.compile(r";t=(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, as a client sent it.

    Attributes:
        path: with the query.
        headers: in lower case; a field may stand twice.
        principal: URI of the client's certificate.
        api: that the route or the instance names.
    """

    method: str = "POST"
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    client: str
    principal: str = ""
    host: str = HOST
    request_id: str = ""
    api: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a door made of it.

    Attributes:
        reason: or "allowed".
        code: google.rpc.Code.
        headers, body: of the HTTP answer; numbers that count down are `T` there.
        times_s: these numbers, and dates as seconds since the epoch.
        path: that the upstream gets instead of the client's.
        is_reusable: whether a proxy may keep the answer. Of Mixer's door alone.
    """

    reason: str
    code: int = 0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    times_s: tuple[int, ...] = ()
    path: str = ""
    is_reusable: bool = False

    @property
    def told(self) -> tuple[object, ...]:
        """All of a denial that must not depend on the door."""
        return self.reason, self.code, self.status, dict(self.headers), self.body


@dataclass(frozen=True, slots=True)
class BothDoors:
    """A running service, and a connection to each of its doors."""

    envoy: grpc.Channel
    mixer: grpc.Channel
    grpc_address: str = ""
    """That of Envoy's door."""

    def ask_envoy(self, asked: Asked) -> Answer:
        """At Envoy's door. Raises RpcError where the call fails."""
        return read_check_response(self.begin_envoy(asked).result())

    def ask_mixer(self, asked: Asked, params: Params = PARAMS) -> Answer:
        """At Mixer's door, with an authorization instance."""
        return read_check_result(self.begin_mixer(asked, params).result())

    def ask_mixer_for_key(self, operation: str, key: str, api: str) -> Answer:
        """At Mixer's door, with an apikey instance."""
        message = an_apikey(operation, key, api)
        return read_check_result(_begin(self.mixer, APIKEY, message).result())

    def ask_mixer_for_quota(self, asked: Asked, amount: int, *, best_effort: bool = False) -> int:
        """How much Mixer's door grants."""
        return read_granted(self.begin_quota(asked, amount, best_effort=best_effort).result())

    def begin_envoy(self, asked: Asked) -> Any:
        """A call that is on its way."""
        return _begin(self.envoy, CHECK, _write_check(asked))

    def begin_mixer(self, asked: Asked, params: Params = PARAMS) -> Any:
        """A call that is on its way."""
        message = an_authorization(write_properties(asked), params)
        return _begin(self.mixer, AUTHORIZATION, message)

    def begin_quota(self, asked: Asked, amount: int, *, best_effort: bool = False) -> Any:
        """A call that is on its way."""
        message = a_quota(write_properties(asked), amount, best_effort=best_effort, params=IN_QUOTA)
        return _begin(self.mixer, QUOTA, message)


@contextmanager
def run_both_doors(
    deployment: Deployment, name: str, *catalog: Path, **settings: Any
) -> Iterator[BothDoors]:
    """A service with both doors open, until the block ends."""
    address = f"127.0.0.1:{find_free_port()}"
    own = {
        "listen": {"mixer": address},
        "catalog": {"files": [str(file) for file in catalog]},
        # Both doors are told the client's address itself.
        "credentials": {"trusted_hops": 0},
    }
    options = [("grpc.enable_http_proxy", 0)]
    with (
        deployment.run_service(name, merge(own, settings)) as service,
        grpc.insecure_channel(service.grpc_address, options) as envoy,
        grpc.insecure_channel(address, options) as mixer,
    ):
        yield BothDoors(envoy, mixer, service.grpc_address)


def _begin(channel: grpc.Channel, path: str, message: Message) -> Any:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return call.future(message.SerializeToString(), timeout=TURN_S, wait_for_ready=True)


# Questions


def _write_check(asked: Asked) -> CheckRequest:
    request = CheckRequest()
    attributes = request.attributes
    http = attributes.request.http
    http.id, http.method, http.path = "1", asked.method, asked.path
    http.host, http.scheme, http.protocol = asked.host, "http", "HTTP/1.1"
    pseudo = ((":method", asked.method), (":path", asked.path), (":authority", asked.host))
    own = (("x-request-id", asked.request_id),) if asked.request_id else ()
    for name, value in (*pseudo, *own, *asked.headers):
        http.header_map.headers.add(key=name, raw_value=value.encode())
    if asked.api:
        attributes.context_extensions["extauthz.api"] = asked.api
    peer = Peer(principal=asked.principal)
    peer.address.socket_address.address = asked.client
    attributes.source = peer.SerializeToString()
    return request


def write_properties(asked: Asked) -> dict[str, object]:
    """The properties of an instance that tells of the request, as Mixer's attributes hold it."""
    fields: dict[str, str] = {}
    for name, value in asked.headers:
        # A map of header fields holds a repeated one joined.
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    credential = fields.pop("authorization", "")
    assert fields.keys() <= set(FIELDS)
    return {
        "method": asked.method,
        "path": asked.path,
        "host": asked.host,
        "client_ip": asked.client,
        "request_id": asked.request_id,
        "principal": asked.principal.removeprefix("spiffe://"),
        "credential": credential,
        "api": asked.api,
        **fields,
    }


# Answers


def read_check_response(data: bytes) -> Answer:
    """Envoy's answer."""
    response = CheckResponse.FromString(data)
    reason = Struct.FromString(response.dynamic_metadata).fields["reason"].string_value
    told = response.error_response if response.HasField("error_response") else None
    if told is None and not response.HasField("denied_response"):
        # In shadow nothing is told of the decision.
        assert (response.status.code, reason or ALLOWED) == (0, ALLOWED)
        changes = response.ok_response.headers
        paths = [one.header.value for one in changes if one.header.key == ":path"]
        return Answer(reason=ALLOWED, path="".join(paths))
    told = told or response.denied_response
    headers = [(one.header.key, one.header.value) for one in told.headers]
    assert len(dict(headers)) == len(headers), "a map cannot hold the same field twice"
    return read_denial(reason, response.status.code, told.status.code, dict(headers), told.body)


def read_check_result(data: bytes) -> Answer:
    """Mixer's answer."""
    result = CheckResult.FromString(data)
    direct = find_direct(result)
    seconds, uses = validity_of(result)
    if direct is None:
        assert result.status.code == 0
        return Answer(reason=ALLOWED, is_reusable=seconds > 0 and uses > 0)
    assert (seconds, uses) == (0, 0)
    code = result.status.code
    return read_denial(reason_of(result), code, direct.status, direct.headers, direct.body)


def read_granted(data: bytes) -> int:
    """The amount that a quota call was granted."""
    result = QuotaResult.FromString(data)
    assert list(result.quotas) == [RQ]
    return result.quotas[RQ].granted_amount


def read_denial(
    reason: str, code: int, status: int, headers: Mapping[str, str], body: str
) -> Answer:
    """A denial without what is another each time."""
    if headers.get("content-type") == "application/problem+json":
        problem = json.loads(body)
        assert problem.pop("decision_id")
        body = json.dumps(problem, sort_keys=True)
    times_s: list[int] = []

    def note_date(found: re.Match[str]) -> str:
        times_s.append(int(parsedate_to_datetime(found[0]).timestamp()))
        return "T"

    def note_seconds(found: re.Match[str]) -> str:
        times_s.append(int(found[1]))
        return ";t=T"

    told = dict(headers)
    if told.get("retry-after", "").isdecimal():
        times_s.append(int(told["retry-after"]))
        told["retry-after"] = "T"
    # A map comes in any order.
    for name, value in sorted(told.items()):
        told[name] = _RESET.sub(note_seconds, _DATE.sub(note_date, value))
    return Answer(
        reason=reason,
        code=code,
        status=status,
        headers=told,
        body=_DATE.sub(note_date, body),
        times_s=tuple(times_s),
    )
