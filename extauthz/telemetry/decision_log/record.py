"""Defines the record of a decision, for the log of decisions and whoever else shows decisions.

`note_decision` keeps what a record needs of a request and its decision, in little time and memory,
and `LoggedDecision.write` makes the masked record of it, when it is needed. A record has names from
the catalog and no credential; of the path, it has only the resource's template and a hash, as
clients put secrets into paths. docs/reference/decision-log.md describes the fields.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import Final, NamedTuple

from extauthz.model.decision import Allow, Decision
from extauthz.model.limits import LimitStatus
from extauthz.model.request import ApiRequest
from extauthz.telemetry.current_trace import find_trace_id
from extauthz.telemetry.decision_log.masking import (
    MAX_CLIENT_TEXT,
    ClientAddress,
    ClientText,
    ConsumerKey,
    Digest,
    Instant,
    Masks,
    Name,
    Sentence,
    Shown,
    User,
    list_fields,
    write_fields,
)

CATALOG_DIGITS: Final = 12
"""Characters that are shown of a catalog's revision."""


class LoggedLimit(NamedTuple):
    """One limit of a decided request, with its state after the decision."""

    level: Name
    name: Name
    unit: Name
    limit: int
    remaining: int
    reset_us: int
    exceeded: bool
    enforced: bool


class LoggedDecision(NamedTuple):
    """What is known of one decision. `write` masks it."""

    time: Instant
    decision: Digest
    door: Name
    shadow: bool
    request: ClientText
    method: ClientText
    path_hash: Digest
    outcome: Name
    reason: Name
    level: Name
    rule: Name
    api: Name
    version: Name
    resource: Name
    application: Name
    tier: Name
    duration_us: int
    detail: Sentence
    user: User
    consumer_key: ConsumerKey
    client_address: ClientAddress
    missing_scopes: tuple[Name, ...]
    limits: tuple[LoggedLimit, ...]
    trace_id: Digest
    catalog: Digest

    def write(self, masks: Masks) -> dict[str, Shown]:
        """The record, masked: values that JSON can hold, by the names of the fields."""
        return write_fields(self, _FIELDS, masks)


_FIELDS: Final = list_fields(LoggedDecision)


def note_decision(request: ApiRequest, decision: Decision, duration_us: int) -> LoggedDecision:
    """Keeps what a record needs. It keeps neither the request nor the decision.

    Call it in the task of the call, as a `DecisionObserver` is, because of the trace id.

    Args:
        duration_us: how long the decision took, in microseconds.
    """
    route, identity = decision.route, decision.identity
    application = identity.application
    denial = None if isinstance(decision, Allow) else decision.denial
    request_id = request.headers.get("x-request-id") or request.request_id
    missing: tuple[str, ...] = ()
    if denial is not None and denial.scopes:
        granted = identity.scopes or frozenset()
        missing = tuple(scope for scope in denial.scopes if scope not in granted)
    return LoggedDecision(
        time=Instant(time.time_ns()),
        decision=Digest(decision.id),
        door=Name(request.door),
        shadow=decision.shadow,
        request=ClientText(request_id[:MAX_CLIENT_TEXT]),
        method=ClientText(request.method[:MAX_CLIENT_TEXT]),
        path_hash=_hash(request.path),
        outcome=Name("allow" if denial is None else "deny"),
        reason=Name("" if denial is None else denial.reason.value),
        level=Name("" if denial is None or denial.level is None else denial.level.value),
        rule=Name("" if denial is None else denial.rule),
        api=Name("" if route is None else route.api.name),
        version=Name("" if route is None else route.api.version),
        resource=Name("" if route is None else route.resource.template),
        application=Name(identity.application_name if application is None else application.name),
        tier=Name(decision.tier),
        duration_us=duration_us,
        detail=Sentence("" if denial is None else denial.detail),
        user=User(identity.user),
        consumer_key=ConsumerKey(identity.consumer_key),
        client_address=ClientAddress(decision.client_address),
        missing_scopes=tuple(map(Name, missing)),
        limits=tuple(map(_note_limit, decision.limits)),
        trace_id=Digest(find_trace_id(request.headers)),
        catalog=Digest(decision.catalog_revision[:CATALOG_DIGITS]),
    )


def _note_limit(status: LimitStatus) -> LoggedLimit:
    reading = status.reading
    return LoggedLimit(
        level=Name(status.level.value),
        name=Name(status.name),
        unit=Name(status.limit.quota_unit.value),
        limit=status.limit.requests,
        remaining=reading.remaining,
        reset_us=reading.reset_us,
        exceeded=reading.exceeded,
        enforced=status.enforced,
    )


def _hash(path: str) -> Digest:
    return Digest(blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest())
