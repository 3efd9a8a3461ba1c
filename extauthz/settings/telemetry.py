"""Settings of what is sent to a collector of OpenTelemetry's.

What stands here goes before the variables OTEL_* of the same meaning; what is left out is theirs.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from extauthz.documents.document import StrictModel
from extauthz.settings.values import CollectorUrl


class OtlpSettings(StrictModel):
    """The collector that traces are sent to, and logs where `log` says so."""

    endpoint: CollectorUrl
    """http or https URL of the collector, like http://127.0.0.1:4317. With http as protocol,
    /v1/traces or /v1/logs is added."""
    protocol: Literal["grpc", "http"] | None = None
    """grpc or http (protobuf over HTTP). Left out: as OTEL_EXPORTER_OTLP_PROTOCOL says, else
    grpc."""


class TelemetrySettings(StrictModel):
    """What is sent to a collector of OpenTelemetry's (needs extauthz[otlp])."""

    otlp: OtlpSettings | None = None
    """The collector that traces are sent to. Left out: the one that OTEL_EXPORTER_OTLP_ENDPOINT
    names, if any."""
    trace_ratio: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of the calls that are traced, of those about which no caller has decided. Left out:
    as OTEL_TRACES_SAMPLER says, else 0.01."""
    request_context: Literal["ignore", "join", "follow"] = "ignore"
    """The trace context in the headers of the checked request, where Envoy hands on none of its
    own. ignore: it is not read. join: calls that trace_ratio takes join its trace. follow: it also
    says whether a call is traced; only where no client can write it."""
