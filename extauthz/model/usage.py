"""What became of one request: what a proxy tells after its response, whichever proxy it is.

Mixer's reports and Envoy's access logs are read into this one value. What a proxy did not tell
is empty, and a number that is not known is -1; nothing is guessed.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from extauthz.model.values import request_value

UNKNOWN: Final = -1
"""A number that nobody told."""


class UsageSource(Enum):
    """Who told of a request. One request may be told of by several."""

    ENVOY_ACCESS_LOG = "envoy_access_log"
    MIXER_METRIC = "mixer_metric"
    MIXER_LOGENTRY = "mixer_logentry"
    MIXER_TRACESPAN = "mixer_tracespan"
    MIXER_EDGE = "mixer_edge"


@request_value(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One answered request.

    Attributes:
        at_us: when the proxy had read its beginning.
        duration_us: from then to the end of the response.
        api, version, resource: names and path template, as the catalog has them; as the proxy
            told them when the catalog was not asked.
        path: without the query.
        application, consumer_key, user, tier, key_type: who called, as far as it was proven.
        caller: the workload that called, as the mesh names it.
        destination: the service or workload that was called, as the mesh names it.
        response_code: HTTP's.
        request_bytes, response_bytes: content without headers.
        reason: why it was denied; empty for a request that was let through.
        decision_id, request_id, trace_id: what other records know it by.
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
