"""Reads Mixer's report instances into usage records of answered requests.

The properties have the names of those of checks; further ones describe the response. The catalog is
not used here: `api`, `version` and `resource` are the values that the mesh sent, until `describe`
replaces them by those of a decision.
"""

from __future__ import annotations

from dataclasses import replace

from extauthz.model.decision import Allow, Decision
from extauthz.model.routing.authority import read_host
from extauthz.model.usage import UNKNOWN, UsageOutcome, UsageRecord, UsageSource
from mixer_compat.params import HandlerParams
from mixer_compat.proto.edge_pb2 import InstanceMsg as EdgeInstance
from mixer_compat.proto.logentry_pb2 import InstanceMsg as LogEntryInstance
from mixer_compat.proto.metric_pb2 import InstanceMsg as MetricInstance
from mixer_compat.proto.tracespan_pb2 import InstanceMsg as TraceSpanInstance
from mixer_compat.values import (
    Values,
    find_duration_us,
    find_number,
    find_text,
    find_time_us,
    read_address,
    read_time_us,
    strip_quotes,
)


def read_metric(instance: MetricInstance, params: HandlerParams) -> UsageRecord:
    """Reads a metric's dimensions. The value of WSO2's metric is the request's size in bytes."""
    record = _read_values(instance.dimensions, params, UsageSource.MIXER_METRIC)
    is_size = params.as_wso2_adapter and instance.value.WhichOneof("value") == "int64_value"
    if is_size and record.request_bytes == UNKNOWN:
        record = replace(record, request_bytes=max(UNKNOWN, instance.value.int64_value))
    return record


def read_logentry(instance: LogEntryInstance, params: HandlerParams) -> UsageRecord:
    """Reads a log entry's variables, and the entry's timestamp when they have no request time."""
    record = _read_values(instance.variables, params, UsageSource.MIXER_LOGENTRY)
    if record.at_us == UNKNOWN:
        record = replace(record, at_us=read_time_us(instance.timestamp.value) or UNKNOWN)
    return record


def read_tracespan(instance: TraceSpanInstance, params: HandlerParams) -> UsageRecord:
    """Reads a span: its own fields, and its tags for those that are empty."""
    told = _read_values(instance.span_tags, params, UsageSource.MIXER_TRACESPAN)
    start_us = read_time_us(instance.start_time.value)
    end_us = read_time_us(instance.end_time.value)
    return replace(
        told,
        at_us=start_us or told.at_us,
        duration_us=end_us - start_us if 0 < start_us <= end_us else told.duration_us,
        response_code=instance.httpStatusCode or told.response_code,
        client_address=read_address(instance.source_ip.value) or told.client_address,
        caller=instance.source_name,
        destination=instance.destination_name or told.destination,
        # A span always has sizes: 0 means an unknown size as well as an empty message.
        request_bytes=max(instance.request_size, told.request_bytes),
        response_bytes=max(instance.response_size, told.response_bytes),
        protocol=instance.api_protocol or told.protocol,
        trace_id=instance.trace_id,
    )


def read_edge(instance: EdgeInstance, _params: HandlerParams) -> UsageRecord:
    """Reads an edge: its source and destination, each as ``name.namespace`` of the workload."""
    return UsageRecord(
        source=UsageSource.MIXER_EDGE,
        at_us=read_time_us(instance.timestamp.value) or UNKNOWN,
        caller=_join(instance.source_workload_name, instance.source_workload_namespace),
        destination=_join(
            instance.destination_service_name or instance.destination_workload_name,
            instance.destination_service_namespace or instance.destination_workload_namespace,
        ),
        protocol=instance.api_protocol or instance.context_protocol,
    )


def describe(record: UsageRecord, decision: Decision) -> UsageRecord:
    """Adds the names of the catalog and the caller's identity to a record.

    Args:
        record: as it was read from a report.
        decision: the decision about the same request.
    """
    identity, route = decision.identity, decision.route
    if route is not None:
        record = replace(
            record,
            api=route.api.name,
            version=route.api.version,
            resource=route.resource.template,
        )
    application = identity.application
    return replace(
        record,
        application=application.name if application is not None else "",
        consumer_key=identity.consumer_key,
        user=identity.user,
        tier=decision.tier,
        key_type=identity.key_type.value if identity.key_type is not None else "",
        outcome=UsageOutcome.ALLOW if isinstance(decision, Allow) else UsageOutcome.UNKNOWN,
    )


def _read_values(values: Values, params: HandlerParams, source: UsageSource) -> UsageRecord:
    names = params.names
    at_us = find_time_us(values, names.request_time)
    ended_us = find_time_us(values, names.response_time)
    duration_us = find_duration_us(values, names.duration)
    if duration_us == UNKNOWN and 0 < at_us <= ended_us:
        duration_us = ended_us - at_us
    return UsageRecord(
        source=source,
        at_us=at_us or UNKNOWN,
        duration_us=duration_us,
        api=find_text(values, names.api),
        version=find_text(values, names.version),
        resource=strip_quotes(find_text(values, names.operation)),
        method=find_text(values, names.method),
        host=read_host(find_text(values, names.host)) or "",
        # The query may hold a key.
        path=find_text(values, names.path).partition("?")[0],
        protocol=find_text(values, names.protocol),
        client_address=find_text(values, names.client_ip),
        user_agent=find_text(values, names.user_agent),
        destination=find_text(values, names.destination),
        response_code=find_number(values, names.response_code, UNKNOWN),
        request_bytes=max(UNKNOWN, find_number(values, names.request_size, UNKNOWN)),
        response_bytes=max(UNKNOWN, find_number(values, names.response_size, UNKNOWN)),
        request_id=find_text(values, names.request_id),
    )


def _join(name: str, namespace: str) -> str:
    return f"{name}.{namespace}" if name and namespace else name
