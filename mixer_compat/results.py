"""Writes decisions as Mixer's CheckResult.

- A denial is a status in the result, never a failed call: Mixer turns failed calls into INTERNAL,
  and proxies may be configured to let these pass. The details of the status hold the whole HTTP
  answer, the same as at Envoy's door.
- An allow always has a duration and a number of uses for which it may be reused. If both were zero,
  Mixer would replace them by its defaults, 60 seconds and 10,000 uses. An allow for one request
  only is valid for 0 seconds and 1 use.
- A denial has zero in both: proxies do not cache it.

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
    """The time (µs) and the number of uses for which a result may be reused."""

    us: int
    uses: int


ONCE: Final = Validity(0, 1)
"""For a result that holds for this request only."""
NEVER: Final = Validity(0, 0)
"""For denials only: in an allow, Mixer would replace it by its defaults."""


def find_validity(allow: Allow, params: HandlerParams, now_us: int) -> Validity:
    """Finds how far an allow may be reused for requests with the same attributes.

    When a limit applies, each request must be counted, so the allow is for one request. It is never
    valid longer than the caller's token.

    Args:
        allow: the decision.
        params: the handler's parameters, which have the longest validity.
        now_us: microseconds since the Unix epoch.
    """
    if allow.limits:
        return ONCE
    expires_at_us = allow.identity.expires_at_us
    return find_reuse(params, None if expires_at_us is None else expires_at_us - now_us)


def find_reuse(params: HandlerParams, left_us: int | None = None) -> Validity:
    """Finds how far an allow may be reused that ends in `left_us` microseconds (None: never)."""
    us = params.valid_for_us if left_us is None else min(left_us, params.valid_for_us)
    if us <= 0:
        return ONCE
    return Validity(us, min(max(1, params.valid_uses), MAX_USES))


def write_allowed(validity: Validity) -> bytes:
    """Writes a serialised CheckResult that allows a request.

    Raises:
        ValueError: the validity has no uses, which Mixer would replace by its defaults.
    """
    if validity.uses == 0:
        raise ValueError("an allow that is valid for nothing is Mixer's own 60 seconds")
    result = CheckResult(valid_use_count=validity.uses)
    result.status.SetInParent()
    _put_validity(result, validity)
    return result.SerializeToString()


def write_denied(
    deny: Deny, request: ApiRequest, style: DenialStyle, now_us: int, *, as_wso2_adapter: bool
) -> bytes:
    """Writes a serialised CheckResult that denies a request.

    Args:
        deny: the decision.
        request: the request, whose headers choose the format of the body.
        style: the style of the HTTP answer.
        now_us: microseconds since the Unix epoch, for dates in the answer.
        as_wso2_adapter: whether to answer as WSO2's adapter did, where it had such a denial.
    """
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
    """The status of a denial: its code and reason, with the HTTP answer in its details."""
    status = Status(
        code=answer.rpc_code, message=f"{deny.reason.value}: {MEANINGS[deny.reason].title}"
    )
    status.details.add().Pack(
        DirectHttpResponse(code=answer.status, body=answer.body, headers=_join(answer))
    )
    return status


def _join(answer: HttpAnswer) -> dict[str, str]:
    """Header fields as a map; repeated ones are joined by commas (RFC 9110 section 5.3).

    Names are in lower case, as at Envoy's door and in HTTP/2.
    """
    joined: dict[str, str] = {}
    for given, value in answer.headers:
        name = given.lower()
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _put_validity(result: CheckResult, validity: Validity) -> None:
    result.valid_use_count = validity.uses
    # Zero is sent, too: a proxy caches a result without a duration for ever.
    result.valid_duration.SetInParent()
    put_duration(result.valid_duration, validity.us)
