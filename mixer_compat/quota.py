"""Answers Mixer's quota calls: how much of an amount may be used.

- A quota uses the limits that the catalog has for the request in its dimensions, with the amount as
  the cost: the same counters as Envoy's door. A quota that the handler's `quota_tiers` names uses
  that tier instead, counted separately for each set of dimensions.
- The answer has exactly one entry, under the key of the call. Mixer reads only the amount and how
  long it may be kept from it; 0 is a denial, and so is a failed call.
- A repeated call is charged once, by its deduplication id, the instance and the dimensions. When
  its caller gave none, Mixer sends the quota's name as the id, which is then ignored.
- While the counter store is away, each tier follows its outage mode, as everywhere.

A granted amount is counted at once, and may be spent until the window of a fixed or calendar limit
ends, but no longer than `quota_valid_for_us`.

Source: istio/istio mixer/pkg/runtime/dispatcher, istio/proxy mixerclient/quota_cache.cc,
mixer/adapter/memquota.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from extauthz.answers.denial import write_denial
from extauthz.errors import BackendError, MalformedRequest
from extauthz.model.decision import UNAVAILABLE, Denial, Deny, Reason
from extauthz.model.limits import Algorithm, LimitStatus
from extauthz.policy.limits.keys import write_parts
from extauthz.policy.limits.quota import QuotaAsk
from extauthz.policy.limits.tier_quotas import TierQuotas
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.serving.methods import Call, UnaryMethod
from mixer_compat.callers import check_caller
from mixer_compat.door import MALFORMED, NO_REQUEST, MixerDoor, make_row
from mixer_compat.instances import read_properties
from mixer_compat.params import HandlerParams, ParamsError
from mixer_compat.proto.model_pb2 import QuotaResult
from mixer_compat.proto.quota_pb2 import HandleQuotaRequest, InstanceMsg
from mixer_compat.results import write_status
from mixer_compat.values import Values, check_count, put_duration, read_text

_log = logging.getLogger(__name__)

PATH: Final = "quota.HandleQuotaService/HandleQuota"
MAX_AMOUNT: Final = 1_000_000_000
"""The largest amount that is granted in one call, so that counters stay exact in doubles."""

_TOO_MUCH: Final = Denial(reason=Reason.RATE_LIMITED, detail="No limit has room for so much.")


@dataclass(frozen=True, slots=True)
class _Granted:
    """The content of an answer."""

    amount: int
    limits: tuple[LimitStatus, ...] = ()
    denial: Denial | None = None


class Quotas:
    """The handler of the quota template."""

    def __init__(self, door: MixerDoor, tiers: TierQuotas) -> None:
        self._door = door
        self._tiers = tiers
        self._unread = RepeatedWarnings(_log, "a quota call of Mixer's is granted nothing")

    def methods(self) -> tuple[UnaryMethod[bytes, bytes], ...]:
        """The row of the method table."""
        return (make_row(PATH, self.quota),)

    async def quota(self, data: bytes, call: Call) -> bytes:
        """HandleQuotaRequest in, QuotaResult out, both serialised.

        Raises:
            RpcFailure: UNAUTHENTICATED, for a caller that is not known.
        """
        check_caller(call, self._door.callers)
        try:
            asked = HandleQuotaRequest.FromString(data)
        except DecodeError:
            return self._refuse_unread("the message is no HandleQuotaRequest")
        key = _find_key(asked)
        if key is None:
            return self._refuse_unread("it asks for no quota, or for several")
        return self._write(key, await self._grant(asked, key, call))

    async def _grant(self, asked: HandleQuotaRequest, key: str, call: Call) -> _Granted:
        """How much is granted; 0 after any error."""
        amount = asked.quota_request.quotas[key].amount
        best_effort = asked.quota_request.quotas[key].best_effort
        shadow = self._door.params.own.shadow
        try:
            params = self._door.params.read(asked.adapter_config)
            shadow = params.shadow
            check_count(asked.instance.dimensions)
            ask = QuotaAsk(
                amount=min(amount, MAX_AMOUNT),
                best_effort=best_effort,
                dedup_id=_find_dedup_id(asked),
            )
            if amount <= 0:
                granted = _Granted(0)
            elif amount > MAX_AMOUNT and not best_effort:
                granted = self._refuse(_TOO_MUCH, shadow=shadow)
            else:
                granted = await self._grant_from(asked.instance, ask, params, call)
        except MalformedRequest as error:
            self._unread.warn(error)
            granted = self._refuse(MALFORMED, shadow=shadow)
        except (ParamsError, BackendError) as error:
            self._unread.warn(error)
            granted = self._refuse(UNAVAILABLE, shadow=shadow)
        except Exception:  # noqa: BLE001  (no failure of any kind may become a grant)
            _log.exception("a quota could not be granted because of a defect; it is refused")
            granted = self._refuse(UNAVAILABLE, shadow=shadow)
        return _Granted(max(0, amount)) if shadow else granted

    async def _grant_from(
        self, instance: InstanceMsg, ask: QuotaAsk, params: HandlerParams, call: Call
    ) -> _Granted:
        name = _shorten(instance.name)
        tier = params.quota_tiers.get(name)
        if tier is None:
            request = read_properties(instance.dimensions, params)
            grant = await self._door.pipeline.grant(
                request, ask, deadline=call.deadline, shadow=params.shadow
            )
            decision = grant.decision
            denial = decision.denial if isinstance(decision, Deny) else None
            return _Granted(grant.amount, decision.limits, denial)
        if params.shadow:
            return _Granted(ask.amount)
        attributes = {
            dimension: read_text(value) for dimension, value in instance.dimensions.items()
        }
        # By the full name: a quota of the same short name in another namespace is another one.
        given = await self._tiers.grant(
            tier, instance.name, attributes, ask, deadline=call.deadline
        )
        if given is None:
            raise ParamsError(
                f"quota_tiers of the handler's params names the tier {tier!r}, which the catalog "
                "does not have"
            )
        if given.denial is not None:
            self._refuse(given.denial, shadow=False)
        return _Granted(given.amount, given.limits, given.denial)

    def _refuse_unread(self, why: str) -> bytes:
        self._unread.warn(MalformedRequest(why))
        self._refuse(MALFORMED, shadow=self._door.params.own.shadow)
        return b""

    def _refuse(self, denial: Denial, *, shadow: bool) -> _Granted:
        """Grants nothing, for a reason outside the pipeline; it is reported to observers."""
        self._door.pipeline.record.refuse(NO_REQUEST, denial, shadow=shadow)
        return _Granted(0, denial=denial)

    def _write(self, key: str, granted: _Granted) -> bytes:
        result = QuotaResult()
        entry = result.quotas[key]
        entry.granted_amount = granted.amount
        valid_us = _find_valid_us(granted, self._door.quota_valid_for_us)
        put_duration(entry.valid_duration, valid_us)
        entry.status.SetInParent()
        if granted.denial is not None:
            deny = Deny(id="", denial=granted.denial, limits=granted.limits)
            now_us = self._door.clock.now_us()
            answer = write_denial(deny, NO_REQUEST, self._door.style, now_us)
            entry.status.CopyFrom(write_status(deny, answer))
        return result.SerializeToString()


def _find_key(asked: HandleQuotaRequest) -> str | None:
    """The key of the call: the instance's name, or the only key."""
    quotas = asked.quota_request.quotas
    if asked.instance.name in quotas:
        return asked.instance.name
    return next(iter(quotas)) if len(quotas) == 1 else None


def _shorten(name: str) -> str:
    """The instance's own name: Mixer sends ``<name>.instance.<namespace>``."""
    return name.partition(".")[0]


def _find_dedup_id(asked: HandleQuotaRequest) -> str | None:
    """A deduplication id of the call and its content; None when the call has none."""
    given = asked.dedup_id
    if given.lower() in ("", _shorten(asked.instance.name).lower()):
        return None
    parts = [given, asked.instance.name, *_write_dimensions(asked.instance.dimensions)]
    return hashlib.sha256(write_parts(*parts).encode()).hexdigest()


def _write_dimensions(dimensions: Values) -> Iterable[str]:
    for name in sorted(dimensions):
        yield name
        yield dimensions[name].SerializeToString(deterministic=True).hex()


_WINDOWED: Final = (Algorithm.FIXED_WINDOW, Algorithm.CALENDAR)


def _find_valid_us(granted: _Granted, longest_us: int) -> int:
    """The answer's validity: a grant until its window ends, a refusal until there is room."""
    limits = [status for status in granted.limits if status.enforced]
    if granted.amount:
        ends_us = [one.reading.reset_us for one in limits if one.limit.algorithm in _WINDOWED]
        return min([longest_us, *ends_us])
    waits_us = [one.reading.retry_after_us for one in limits if one.reading.exceeded]
    return min(longest_us, max(waits_us, default=0))
