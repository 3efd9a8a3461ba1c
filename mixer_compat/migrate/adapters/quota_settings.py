"""Reads the limits of memquota and redisquota handlers.

memquota counts in a rolling window that moves in steps of a tenth of a second. redisquota counts in
a window that begins with the first request, or for ROLLING_WINDOW in a rolling window of buckets. A
rolling window becomes ``sliding_window``, the other one ``fixed_window``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from extauthz.documents.document import MAX_DURATION_US
from mixer_compat.migrate.reading.objects import Part
from mixer_compat.migrate.reading.references import Handler, Objects
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import Draft, LimitDraft

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNIT_US: Final = {"ns": 0.001, "us": 1, "µs": 1, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?")
_FOR_EVER_US: Final = 3_650 * 86_400_000_000
_SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A limit that replaces the quota's own for some values of the dimensions."""

    part: Part
    dimensions: tuple[tuple[str, str], ...]
    amount: int
    per_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """One quota of a handler. An amount of 0 admits no request."""

    part: Part
    name: str
    amount: int
    per_us: int
    algorithm: str
    overrides: tuple[Override, ...]

    def limit(self, amount: int, per_us: int) -> LimitDraft:
        """A limit of `amount` in `per_us` microseconds, with this quota's algorithm."""
        return LimitDraft(requests=amount, per_us=per_us, algorithm=self.algorithm)


def read_quotas(handler: Handler, draft: Draft) -> list[Quota]:
    """Reads the quotas of a handler, and notes its Redis server in the draft."""
    params = handler.params
    if params is None:
        return []
    redis = handler.adapter == "redisquota"
    if redis:
        draft.uses_redis = True
        _read_redis(params, draft)
    else:
        handler.object.remark(
            Outcome.CHECK,
            ("spec",),
            "counted in Mixer's memory; now each replica of the service counts in its own: with "
            "several replicas set counters.store to redis",
        )
    deduplication = params.find("minDeduplicationDuration")
    if deduplication is not None:
        deduplication.tell(Outcome.OBSOLETE, "told Mixer how long to recognise a repeated call")
    return [_read_quota(part, redis=redis) for part in params.list_parts("quotas")]


def find_quota(
    quotas: list[Quota], instance_key: str, objects: Objects, namespace: str
) -> Quota | None:
    """Finds the quota of an instance.

    Args:
        quotas: those of one handler.
        instance_key: the instance's object as text (kind, namespace and name).
        objects: all objects, to find the one that a quota names.
        namespace: that of the handler, for names without a namespace.
    """
    for quota in quotas:
        instance = objects.find_instance(quota.name, namespace)
        if instance is not None and str(instance.object) == instance_key:
            return quota
    return None


def _read_redis(params: Part, draft: Draft) -> None:
    pool = params.find("connectionPoolSize")
    if pool is not None:
        pool.tell(Outcome.OBSOLETE, "extauthz sends all calls over one connection")
    address = params.find("redisServerUrl")
    if address is None:
        return
    text = address.read().removeprefix("redis://").rstrip("/")
    credentials, _, host = text.rpartition("@")
    if credentials:
        address.tell(
            Outcome.LOST,
            "holds a credential, which is not copied: put it into a file, and name that in "
            "counters.password_file",
        )
    if _ADDRESS.fullmatch(host) is None:
        address.tell(Outcome.LOST, "is not a host and port; write counters.url yourself")
        return
    if draft.redis_address not in ("", host):
        address.tell(Outcome.STRICTER, "is a second Redis; all limits are counted in the first one")
        return
    draft.redis_address = host


def _read_quota(part: Part, *, redis: bool) -> Quota:
    amount, per_us = _read_amount(part), _read_duration(part, whole_seconds=not redis)
    algorithm = "sliding_window"
    if redis:
        rolling = part.text("rateLimitAlgorithm").upper() == "ROLLING_WINDOW"
        algorithm = "sliding_window" if rolling else "fixed_window"
        buckets = part.find("bucketDuration")
        if buckets is not None:
            buckets.tell(Outcome.OBSOLETE, "a sliding window needs no buckets")
        if not rolling:
            part.remark(
                Outcome.CHECK,
                (
                    "the window began with the first request; a fixed_window is aligned with "
                    "the clock"
                ),
            )
    overrides = [
        Override(
            part=each,
            dimensions=tuple((name, value.read()) for name, value in each.entries_of("dimensions")),
            amount=_read_amount(each),
            per_us=_read_duration(each, whole_seconds=not redis)
            if each.find("validDuration")
            else per_us,
        )
        for each in part.list_parts("overrides")
    ]
    return Quota(
        part=part,
        name=part.text("name"),
        amount=amount,
        per_us=per_us,
        algorithm=algorithm,
        overrides=tuple(overrides),
    )


def _read_amount(part: Part) -> int:
    found = part.find("maxAmount")
    text = "0" if found is None else found.read()
    try:
        return max(0, min(int(float(text)), 10**12))
    except (ValueError, OverflowError):
        if found is not None:
            found.tell(Outcome.STRICTER, "is not a number; 0 is used")
        return 0


def _read_duration(part: Part, *, whole_seconds: bool) -> int:
    """Reads a duration in microseconds, rounded up to whole seconds where memquota did so."""
    found = part.find("validDuration")
    text = "" if found is None else found.read()
    parts = _DURATION.findall(text)
    if found is None or "".join(number + unit for number, unit in parts) != text or not parts:
        if text not in ("", "0"):
            part.remark(Outcome.STRICTER, "has a validDuration that cannot be read; 1h is used")
            return 3_600 * _SECOND_US
        return _for_ever(part)
    duration_us = round(sum(float(number) * _UNIT_US[unit] for number, unit in parts))
    if duration_us <= 0:
        return _for_ever(part)
    if duration_us > MAX_DURATION_US:
        part.remark(Outcome.CHECK, "is longer than ten years; ten years are used")
        return _FOR_EVER_US
    return -(-duration_us // _SECOND_US) * _SECOND_US if whole_seconds else duration_us


def _for_ever(part: Part) -> int:
    part.remark(
        Outcome.CHECK,
        (
            "has no validDuration, so a limit that was used up never became free again; ten "
            "years are used for that"
        ),
    )
    return _FOR_EVER_US
