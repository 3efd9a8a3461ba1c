"""Writes decisions as Mixer reads them: CheckResult.

- A denial is a status in the result, never a failed call: Mixer turns those into INTERNAL, and
  proxies may be told to let them pass. Its details hold the whole HTTP answer, the same that a
  client behind Envoy's door gets.
- An allow always says how long and how often it may be reused. Zero in both would mean "no
  opinion" to Mixer, which makes 60 seconds and 10,000 uses of it. What must be asked for each
  request is valid for 0 seconds and 1 use.
- A denial is valid for nothing: proxies do not keep it.

Source: istio/istio mixer/pkg/adapter/check.go (IsDefault), mixer/pkg/runtime/dispatcher,
istio/api policy/v1beta1/http_response.proto, istio/proxy mixerclient/check_cache.cc.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from extauthz.answers.denial import DenialStyle, HttpAnswer, write_denial
from extauthz.answers.reasons import MEANINGS
from extauthz.model.decision import Allow, Deny
from extauthz.model.request import ApiRequest
from mixer_compat.compat_wso2 import find_old_answer
from mixer_compat.params import HandlerParams
from mixer_compat.proto.model_pb2 import CheckResult
from mixer_compat.proto.policy_pb2 import DirectHttpResponse
from mixer_compat.proto.status_pb2 import Status
from mixer_compat.values import put_duration

MAX_USES: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Validity:
    """How long (µs) and how often a result may be reused."""

    us: int
    uses: int


ONCE: Final = Validity(0, 1)
"""For this request alone."""
NEVER: Final = Validity(0, 0)
"""Only with denials: see the module's text."""


def find_validity(allow: Allow, params: HandlerParams, now_us: int) -> Validity:
    """How far an allow holds for further requests with the same attributes.

    Where a limit holds, each request has to be counted. A token's end comes before all else.
    """
    if allow.limits:
        return ONCE
    expires_at_us = allow.identity.expires_at_us
    return find_reuse(params, None if expires_at_us is None else expires_at_us - now_us)


def find_reuse(params: HandlerParams, left_us: int | None = None) -> Validity:
    """How far what was allowed may be reused, when it ends after `left_us` at the latest."""
    us = params.valid_for_us if left_us is None else min(left_us, params.valid_for_us)
    if us <= 0:
        return ONCE
    return Validity(us, min(max(1, params.valid_uses), MAX_USES))


def write_allowed(validity: Validity) -> bytes:
    """A serialised CheckResult that lets a request pass."""
    if validity.uses == 0:
        raise ValueError("an allow that is valid for nothing is Mixer's own 60 seconds")
    result = CheckResult(valid_use_count=validity.uses)
    result.status.SetInParent()
    _put_validity(result, validity)
    return result.SerializeToString()


def write_denied(
    deny: Deny, request: ApiRequest, style: DenialStyle, now_us: int, *, as_wso2_adapter: bool
) -> bytes:
    """A serialised CheckResult that refuses a request."""
    result = CheckResult()
    _put_validity(result, NEVER)
    old = find_old_answer(deny.reason) if as_wso2_adapter else None
    if old is not None:
        result.status.code, result.status.message = old
        return result.SerializeToString()
    answer = write_denial(deny, request, style, now_us)
    result.status.CopyFrom(write_status(deny, answer))
    return result.SerializeToString()


def write_status(deny: Deny, answer: HttpAnswer) -> Status:
    """The status of a denial: its code and reason, and in its details the HTTP answer."""
    status = Status(
        code=answer.rpc_code, message=f"{deny.reason.value}: {MEANINGS[deny.reason].title}"
    )
    status.details.add().Pack(
        DirectHttpResponse(code=answer.status, body=answer.body, headers=_join(answer))
    )
    return status


def _join(answer: HttpAnswer) -> dict[str, str]:
    """Header fields as a map: repeated ones joined by commas (RFC 9110 section 5.3).

    Names are in lower case, as at Envoy's door and in HTTP/2.
    """
    joined: dict[str, str] = {}
    for given, value in answer.headers:
        name = given.lower()
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _put_validity(result: CheckResult, validity: Validity) -> None:
    result.valid_use_count = validity.uses
    # Present also when it is zero: a proxy keeps what has no duration for ever.
    result.valid_duration.SetInParent()
    put_duration(result.valid_duration, validity.us)
