"""Defines the usage record of one answered request, as a proxy reports it after the response.

Mixer's reports and Envoy's access logs are both read into this value. A text that the proxy did
not report is empty, and a number is -1; nothing is guessed.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from extauthz.model.values import request_value

UNKNOWN: Final = -1
"""A number that was not reported."""


class UsageSource(Enum):
    """Who reported a request. One request may be reported by several."""

    ENVOY_ACCESS_LOG = "envoy_access_log"
    MIXER_METRIC = "mixer_metric"
    MIXER_LOGENTRY = "mixer_logentry"
    MIXER_TRACESPAN = "mixer_tracespan"
    MIXER_EDGE = "mixer_edge"


class UsageOutcome(Enum):
    """Whether a request was let through, as far as its report says."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"
    """The report holds no decision: none was asked for, or the proxy did not keep it."""


@request_value(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One answered request.

    Attributes:
        at_us: when the proxy had read the request's headers.
        duration_us: from then to the end of the response.
        decision_us: how long the decision took.
        upstream_us: from the first byte sent to the upstream to the last byte of its response.
        proxy: the proxy that reports, by the name that it has in the mesh.
        api, version, resource: names and path template of the catalog; those of the proxy when the
            catalog was not used.
        path: without the query.
        application, consumer_key, user, tier, key_type: the caller, as far as it was authenticated.
        caller: the workload that called, as the mesh names it.
        destination: the service or workload that was called, as the mesh names it.
        response_code: HTTP's; 0 when the request ended without a response.
        flags: what became of the request besides its status, in the proxy's short words.
        details: why the response has its status, in the proxy's words.
        request_bytes, response_bytes: content without headers.
        outcome: whether it was let through.
        reason: why it was denied; empty for an allowed request.
        level, rule: see `extauthz.model.decision.Denial`.
        decision_id, request_id, trace_id: ids of the request in other records.
        byte_limits: the limits in bytes that the decision looked at, as
            `extauthz.policy.limits.byte_charges` notes them.
    """

    source: UsageSource
    at_us: int = UNKNOWN
    duration_us: int = UNKNOWN
    decision_us: int = UNKNOWN
    upstream_us: int = UNKNOWN
    proxy: str = ""
    api: str = ""
    version: str = ""
    resource: str = ""
    method: str = ""
    host: str = ""
    path: str = ""
    protocol: str = ""
    application: str = ""
    consumer_key: str = ""
    user: str = ""
    tier: str = ""
    key_type: str = ""
    client_address: str = ""
    user_agent: str = ""
    caller: str = ""
    destination: str = ""
    response_code: int = UNKNOWN
    flags: tuple[str, ...] = ()
    details: str = ""
    request_bytes: int = UNKNOWN
    response_bytes: int = UNKNOWN
    outcome: UsageOutcome = UsageOutcome.UNKNOWN
    reason: str = ""
    level: str = ""
    rule: str = ""
    decision_id: str = ""
    request_id: str = ""
    trace_id: str = ""
    byte_limits: tuple[str, ...] = ()
