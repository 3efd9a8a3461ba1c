"""A small Mixer: takes manifests, asks adapters over real gRPC, and combines what they answer.

It follows the Mixer of Istio 1.1 to 1.7 for adapters of other processes (`runtime/dispatcher`,
`protobuf/yaml/dynamic/handler.go`). Rules that are easy to get wrong:

- An answer OK with neither duration nor uses is "no opinion": 60 s and 10,000 uses.
- Several answers: the least of each field, but a "no opinion" is overwritten and not combined.
- A denial's message gets the handler's full name in front.
- DirectHttpResponse counts in a denial only, and the first one in the details.
- A gRPC error of an adapter fails the whole check as INTERNAL; that of a quota is "0 granted".
- Quotas are asked for only after an OK, by the instance's short name in any case; where no rule
  has such an instance, all that was asked for is granted for 60 s.
- A report is one call for each handler and template, with all instances of all requests.
- Of a quota's answer, `valid_duration` and `granted_amount` under the asked key count, and
  nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from grpc.aio import AioRpcError, Channel, insecure_channel

from mixer_compat.proto.model_pb2 import CheckResult, QuotaResult
from mixer_compat.proto.policy_pb2 import DirectHttpResponse
from tests.mixer_compat.standin.config import (
    CHECK,
    CONFIG_NAMESPACE,
    QUOTA,
    REPORT,
    Handler,
    Instance,
    Snapshot,
)
from tests.mixer_compat.standin.encoding import write_field, write_varint
from tests.mixer_compat.standin.expressions import Bag, LookupFailed

DEFAULT_DURATION_S: Final = 60.0
DEFAULT_USES: Final = 10_000
PROXY_TIMEOUT_S: Final = 5.0
"""What the proxy waits for Mixer; an adapter without a timeout of its own gets as much."""
_DIRECT: Final = "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse"

_HTTP_OF_RPC: Final = {
    0: 200, 1: 408, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 412,
    10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip
"""Mixer's own table (`pkg/status`), for a direct response without a code; the proxy has another."""


class RpcError(Exception):
    """The status that a call to Mixer ends with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectResponse:
    """What the client is to get, said by an adapter.

    Attributes:
        headers: (name, value, whether it is added beside others of its name).
    """

    code: int
    body: str
    headers: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precondition:
    """CheckResponse.precondition. `valid_s` None stands for an absent duration."""

    code: int = 0
    message: str = ""
    valid_s: float | None = 0.0
    uses: int = 0
    direct: DirectResponse | None = None
    referenced: Mapping[tuple[str, str], bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaGrant:
    """CheckResponse.quotas, one of them; its status is always OK."""

    granted: int
    valid_s: float
    referenced: Mapping[tuple[str, str], bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaAsk:
    """CheckRequest.quotas, one of them."""

    amount: int
    best_effort: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """CheckResponse."""

    precondition: Precondition
    quotas: Mapping[str, QuotaGrant]


@dataclass(frozen=True, slots=True)
class Combined:
    """What the answers of several adapters come to (dispatcher/session.go)."""

    code: int = 0
    messages: tuple[str, ...] = ()
    valid_s: float = 0.0
    uses: int = 0
    direct: DirectResponse | None = None

    @property
    def is_default(self) -> bool:
        """Whether it is the same as if nobody had answered."""
        return self.code == 0 and self.valid_s == 0 and self.uses == 0

    def combine(self, other: Combined) -> Combined:
        """Both; of two denials the first one's code and direct response count."""
        if self.is_default:
            return other
        return Combined(
            self.code or other.code,
            self.messages + other.messages,
            min(self.valid_s, other.valid_s),
            min(self.uses, other.uses),
            self.direct if self.code else other.direct,
        )


def read_result(handler: str, result: CheckResult) -> Combined:
    """One adapter's answer (dynamic/handler.go, pkg/status)."""
    code = result.status.code
    direct = None
    if code:
        details = (each for each in result.status.details if each.type_url == _DIRECT)
        first = next(details, None)
        direct = first and _read_direct(code, DirectHttpResponse.FromString(first.value))
    message = (f"{handler}:{result.status.message}",) if code else ()
    valid_s = result.valid_duration.ToTimedelta().total_seconds()
    return Combined(code, message, valid_s, result.valid_use_count, direct)


def _read_direct(code: int, said: DirectHttpResponse) -> DirectResponse:
    headers: list[tuple[str, str, bool]] = []
    for name, value in said.headers.items():
        if name.lower() == "set-cookie":
            headers += [(name, part, True) for part in value.split(",")]
        else:
            headers.append((name, value, False))
    return DirectResponse(
        code=said.code or _HTTP_OF_RPC.get(code, 500), body=said.body, headers=tuple(headers)
    )


class Mixer:
    """Serves Check and Report for one snapshot of configuration. Close it."""

    def __init__(
        self, snapshot: Snapshot, *, addresses: Mapping[str, str] | None = None, dedup: int = 17
    ) -> None:
        """`addresses` say where a handler's address really is: names resolve only in a mesh."""
        self.snapshot = snapshot
        self._addresses = dict(addresses or {})
        self._channels: dict[str, Channel] = {}
        self._dedup = dedup

    async def close(self) -> None:
        """Closes the connections to the adapters."""
        for channel in self._channels.values():
            await channel.close()

    async def check(
        self,
        attributes: Mapping[str, Any],
        quotas: Mapping[str, QuotaAsk] | None = None,
        dedup_id: str = "",
    ) -> Answer:
        """Raises RpcError when Mixer could not find out (api/grpcServer.go)."""
        bag = Bag(attributes)
        chosen = self._dispatch(bag, CHECK)
        try:
            sent = [(handler, each, each.encode(bag)) for handler, each in chosen]
        except LookupFailed as error:
            raise RpcError(13, f"performing check operation failed: {error}") from error
        results = await asyncio.gather(*(self._ask_check(*each) for each in sent))
        combined = Combined()
        for result in results:
            combined = combined.combine(result)
        default = combined.is_default
        precondition = Precondition(
            code=combined.code,
            message=", ".join(combined.messages),
            valid_s=DEFAULT_DURATION_S if default else combined.valid_s,
            uses=DEFAULT_USES if default else combined.uses,
            direct=combined.direct,
            referenced=dict(bag.referenced),
        )
        granted = {}
        if precondition.code == 0:
            for name, ask in (quotas or {}).items():
                granted[name] = await self._take_quota(attributes, name, ask, dedup_id)
        return Answer(precondition=precondition, quotas=granted)

    async def report(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Raises RpcError (UNKNOWN) when an adapter failed."""
        batches: dict[tuple[str, str], tuple[Handler, Instance, list[bytes]]] = {}
        for attributes in requests:
            bag = Bag(attributes)
            for handler, instance in self._dispatch(bag, REPORT):
                key = (handler.name, instance.template.name)
                batch = batches.setdefault(key, (handler, instance, []))[2]
                try:
                    batch.append(instance.encode(bag))
                except LookupFailed as error:
                    raise RpcError(2, str(error)) from error
        for handler, instance, encoded in batches.values():
            data = b"".join(write_field(1, each) for each in encoded)
            data += self._config(handler) + write_field(3, self._next_dedup())
            try:
                await self._call(handler, instance, data)
            except AioRpcError as error:
                raise RpcError(2, str(error.details())) from error

    def _dispatch(self, bag: Bag, variety: int) -> list[tuple[Handler, Instance]]:
        """What the rules choose for this request, in no promised order."""
        # The lookup of the request's namespace makes both referenced (dispatcher/util.go).
        kind = bag.find("context.reporter.kind") or "inbound"
        owner = "destination.namespace" if kind == "inbound" else "source.namespace"
        namespace = bag.find(owner)
        found: list[tuple[Handler, Instance]] = []
        for rule in self.snapshot.rules:
            if rule.namespace not in (CONFIG_NAMESPACE, namespace):
                continue
            try:
                if rule.match is not None and not rule.match.value(bag):
                    continue
            except LookupFailed:
                continue  # logged, and no match
            found += [
                (handler, instance)
                for handler, instances in rule.actions
                for instance in instances
                if instance.template.variety == variety
            ]
        return found

    async def _ask_check(self, handler: Handler, instance: Instance, encoded: bytes) -> Combined:
        data = write_field(1, encoded) + self._config(handler) + write_field(3, self._next_dedup())
        try:
            answer = await self._call(handler, instance, data)
        except AioRpcError as error:
            said = "performing check operation failed: 1 error occurred"
            raise RpcError(13, f"{said}: {error.details()}") from error
        return read_result(handler.name, CheckResult.FromString(answer))

    async def _take_quota(
        self, attributes: Mapping[str, Any], name: str, ask: QuotaAsk, dedup_id: str
    ) -> QuotaGrant:
        bag = Bag(attributes)
        chosen = [
            (handler, instance)
            for handler, instance in self._dispatch(bag, QUOTA)
            if instance.name.partition(".")[0].lower() == name.lower()
        ]
        if not chosen:
            return QuotaGrant(
                granted=ask.amount, valid_s=DEFAULT_DURATION_S, referenced=dict(bag.referenced)
            )
        handler, instance = chosen[0]
        try:
            encoded = instance.encode(bag)
        except LookupFailed as error:
            raise RpcError(13, str(error)) from error
        params = write_varint(1 << 3) + write_varint(ask.amount)
        params += write_varint(2 << 3) + write_varint(ask.best_effort)
        entry = write_field(1, instance.name.encode()) + write_field(2, params)
        data = write_field(1, encoded) + self._config(handler)
        data += write_field(3, f"{dedup_id}{name}".encode())
        data += write_field(4, write_field(1, entry))
        found = QuotaResult.Result()
        try:
            answer = QuotaResult.FromString(await self._call(handler, instance, data))
        except AioRpcError:
            pass  # logged; nothing is granted, and the check stays OK
        else:
            if instance.name in answer.quotas:
                found = answer.quotas[instance.name]
        return QuotaGrant(
            granted=found.granted_amount,
            valid_s=found.valid_duration.ToTimedelta().total_seconds(),
            referenced=dict(bag.referenced),
        )

    def _next_dedup(self) -> bytes:
        self._dedup += 1
        return str(self._dedup).encode()

    def _config(self, handler: Handler) -> bytes:
        if handler.adapter_config is None:
            return b""
        type_url, data = handler.adapter_config
        return write_field(2, write_field(1, type_url.encode()) + write_field(2, data))

    async def _call(self, handler: Handler, instance: Instance, data: bytes) -> bytes:
        address = self._addresses.get(handler.address, handler.address)
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = insecure_channel(
                address, options=[("grpc.enable_http_proxy", 0)]
            )
        call: Any = channel.unary_unary(instance.template.method)
        answer: bytes = await call(data, timeout=handler.timeout_s or PROXY_TIMEOUT_S)
        return answer


def name_rpc_code(code: int) -> str:
    """As in a status' text: PERMISSION_DENIED for 7."""
    names: Iterable[grpc.StatusCode] = grpc.StatusCode
    return next((each.name for each in names if each.value[0] == code), str(code))
