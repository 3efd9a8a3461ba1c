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


@request_value(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One answered request.

    Attributes:
        at_us: when the proxy had read the request's headers.
        duration_us: from then to the end of the response.
        api, version, resource: names and path template of the catalog; those of the proxy when the
            catalog was not used.
        path: without the query.
        application, consumer_key, user, tier, key_type: the caller, as far as it was authenticated.
        caller: the workload that called, as the mesh names it.
        destination: the service or workload that was called, as the mesh names it.
        response_code: HTTP's.
        request_bytes, response_bytes: content without headers.
        reason: why it was denied; empty for an allowed request.
        decision_id, request_id, trace_id: ids of the request in other records.
    """

    source: UsageSource
    at_us: int = UNKNOWN
    duration_us: int = UNKNOWN
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
    request_bytes: int = UNKNOWN
    response_bytes: int = UNKNOWN
    reason: str = ""
    decision_id: str = ""
    request_id: str = ""
    trace_id: str = ""
