"""The shape of limits as users write them in a catalog: tiers, conditions, costs, custom limits.

What they mean is `extauthz.catalog.documents.build_limits`'s and `build_conditions`'s to say.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema

from extauthz.documents.document import Name, PositiveDuration, StrictModel
from extauthz.model.limits import MAX_BURST, Algorithm, OutageMode

MAX_REQUESTS: Final = 10**12
"""Largest limit, in requests or bytes. Counter stores compute in doubles: far below 2^53."""
MAX_COST: Final = 1_000_000

_BYTES: Final = re.compile(r"([0-9]{1,15})(B|KB|MB|GB)?")
_UNIT_BYTES: Final = {None: 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def read_bytes(text: object) -> int:
    """Bytes of ``500``, ``64KB``, ``10MB`` or ``2GB``; a KB is 1024 bytes. Raises ValueError."""
    found = _BYTES.fullmatch(str(text)) if isinstance(text, str | int) else None
    if found is None:
        raise ValueError("must be a whole number of bytes, like 500, 64KB, 10MB or 2GB")
    size = int(found[1]) * _UNIT_BYTES[found[2]]
    if not 0 < size <= MAX_REQUESTS:
        raise ValueError("must be from 1 byte to 931GB")
    return size


Bytes = Annotated[
    int,
    BeforeValidator(read_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_REQUESTS},
                {"type": "string", "pattern": "^[0-9]+(B|KB|MB|GB)?$", "examples": ["10MB"]},
            ]
        }
    ),
]
"""Written like ``500``, ``64KB``, ``10MB`` or ``2GB``; held as bytes."""


class CostDocument(StrictModel):
    """Where a request says what it costs. A number alone is a cost that is always the same."""

    header: Name | None = None
    """Name of a request header."""
    query: Name | None = None
    """Name of a query parameter."""
    default: int = Field(default=1, ge=0, le=MAX_COST)
    """The cost when the request says none from 1 up."""
    max: int = Field(default=1_000, ge=1, le=MAX_COST)
    """The most that is taken, whatever the request says."""


def _read_cost(value: object) -> object:
    return value if isinstance(value, dict | CostDocument) else {"default": value}


class _OrNumber:
    """Tells the JSON Schema that a number may stand instead."""

    @staticmethod
    def __get_pydantic_json_schema__(
        core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 0, "maximum": MAX_COST}
        return {"anyOf": [number, handler(core)]}


Cost = Annotated[CostDocument, BeforeValidator(_read_cost), _OrNumber()]
"""A cost as users write it: a number, or where the request says it."""


class LimitDocument(StrictModel):
    """At most so many requests, or bytes, in a time."""

    requests: int | None = Field(default=None, ge=1, le=MAX_REQUESTS)
    """How many requests. Either this or bytes."""
    bytes: Bytes | None = None
    """How much content of requests and responses, like 10MB; a KB is 1024 bytes."""
    per: Name
    """In which time: 1s, 1m, 1h, 1d; or the calendar's day, week, month, year."""
    algorithm: Algorithm | None = None
    """sliding_window when left out; calendar for day, week, month, year."""
    timezone: Name | None = None
    """Time zone of the calendar, like Europe/Berlin; UTC when left out."""
    shadow: bool = False
    """Count and report, but never refuse."""


class BurstDocument(StrictModel):
    """A rate that also bounds the burst (GCRA)."""

    requests: int = Field(ge=1, le=MAX_BURST)
    """How many, and the largest burst."""
    per: PositiveDuration
    """In which time."""
    shadow: bool = False
    """Count and report, but never refuse."""


class AddressRangeDocument(StrictModel):
    """Addresses from one to another, both included."""

    first: Name = Field(alias="from")
    """The first address."""
    last: Name = Field(alias="to")
    """The last address."""


class TextMatchDocument(StrictModel):
    """A named text that a pattern must be found in."""

    name: Name
    """Name of the header, query parameter or claim."""
    matches: Name
    """A regular expression (RE2) to be found in its value; with ^ and $ it is the whole value."""


class ConditionDocument(StrictModel):
    """A condition on a request: exactly one of the keys, and invert."""

    ip: Name | None = None
    """The client's address or network, like 192.0.2.0/24."""
    ip_range: AddressRangeDocument | None = None
    """The client's address, from one to another."""
    header: TextMatchDocument | None = None
    """A request header."""
    query: TextMatchDocument | None = None
    """A query parameter."""
    claim: TextMatchDocument | None = None
    """A claim of the token."""
    invert: bool = False
    """Invert the condition: it fits when it otherwise would not."""


class ConditionGroupDocument(StrictModel):
    """Limits for the requests that fit conditions."""

    name: Name | None = None
    """Names its counters; condition-1 and so on, by its place, when left out."""
    when: tuple[ConditionDocument, ...] = Field(min_length=1)
    """All of these must fit."""
    limits: tuple[LimitDocument, ...] = ()
    """All of these hold for such requests, instead of the tier's."""
    burst: BurstDocument | None = None
    """Bounds how fast such requests may use them up."""


class TierDocument(StrictModel):
    """A named set of limits; without limits it is unlimited."""

    limits: tuple[LimitDocument, ...] = ()
    """All of them hold, for requests that fit none of the conditions."""
    burst: BurstDocument | None = None
    """Bounds how fast they may be used up."""
    conditions: tuple[ConditionGroupDocument, ...] = ()
    """Groups of conditions with limits of their own; every group that fits holds."""
    per_user: bool = False
    """Count each user of what it limits apart."""
    stop_on_quota_reach: bool = True
    """false: count and mark what is over, and let it through."""
    on_outage: OutageMode | None = None
    """What its limits do while the counter store is away: deny, allow or local."""


class CustomLimitDocument(StrictModel):
    """A limit by any key."""

    name: Name
    """Shown as `rule` in logs, metadata and metrics."""
    key: Name
    """What is counted apart, like $clientIp or $api:$user."""
    tier: Name
    """The limits."""
    when: tuple[ConditionDocument, ...] = ()
    """Counts only requests that fit all of these conditions."""
    apis: tuple[Name, ...] = ()
    """Counts only requests to these APIs, in all their versions; to all APIs when left out."""
