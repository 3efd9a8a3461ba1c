"""Defines limits, charges, and the answers of counters.

Time is integer microseconds since the Unix epoch (`_us`) everywhere in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from zoneinfo import ZoneInfo

from extauthz.model.conditions import Condition
from extauthz.model.values import request_value

US_PER_S = 1_000_000
MAX_BURST = 94_906_265
"""Largest limit of a BURST counter: its square is below 2**53, so that doubles can count it."""


class Algorithm(Enum):
    """How a limit counts. The value is the word used in a catalog."""

    SLIDING_WINDOW = "sliding_window"
    """At most N in any period of the window's length; kept as a log of what was taken when."""
    FIXED_WINDOW = "fixed_window"
    """At most N in each window aligned to the Unix epoch."""
    CALENDAR = "calendar"
    """At most N in each calendar day, week, month or year of a time zone."""
    BURST = "burst"
    """A rate with a bounded burst (GCRA): exact retry-after, no edge."""


class QuotaUnit(Enum):
    """What a limit counts. The value is the word used in a catalog."""

    REQUESTS = "requests"
    """Each request, by its cost."""
    BYTES = "bytes"
    """Content of requests and responses, charged when it is known: after the response."""


class CalendarUnit(Enum):
    """A calendar period. A week begins on Monday (ISO 8601)."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


class LimitLevel(Enum):
    """What a limit belongs to. The value is what clients and metrics see."""

    API = "api"
    RESOURCE = "resource"
    SUBSCRIPTION = "subscription"
    BURST = "burst"
    APPLICATION = "application"
    CUSTOM = "custom"
    CLIENT = "client"

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python, each time


class OutageMode(Enum):
    """What a limit does while the counter store does not answer. Values are the catalog's words."""

    DENY = "deny"
    """The request is unavailable: nothing passes uncounted."""
    ALLOW = "allow"
    """The limit is not checked."""
    LOCAL = "local"
    """Each replica counts in memory, against its share of the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `requests` in each `window_us` (or calendar `unit`), counted by `algorithm`.

    For BURST, `requests` is both the rate per `window_us` and the largest burst.
    A shadow limit counts and reports, but never denies.

    Attributes:
        requests: the number of requests, or of bytes when the quota unit is BYTES. A limit in bytes
            is never a BURST: it is charged after the response, and a burst does not keep what
            exceeds it.
    """

    algorithm: Algorithm
    requests: int
    window_us: int
    unit: CalendarUnit | None = None
    timezone: ZoneInfo | None = None
    shadow: bool = False
    quota_unit: QuotaUnit = QuotaUnit.REQUESTS

    def __hash__(self) -> int:
        # Texts about a limit are cached by it; hashing all fields would take 1 µs.
        return self.requests

    @property
    def rule(self) -> str:
        """The rule's name in a counter's key. It has no number: raising a limit keeps its count."""
        rule = self._window_rule
        return rule if self.quota_unit is QuotaUnit.REQUESTS else f"bytes-{rule}"

    @property
    def _window_rule(self) -> str:
        if self.algorithm is Algorithm.CALENDAR:
            assert self.unit is not None and self.timezone is not None
            return f"calendar-{self.unit.value}-{self.timezone.key}"
        if self.algorithm is Algorithm.SLIDING_WINDOW:
            return f"sliding-{self.window_us}"  # keys of an older form have the algorithm's word
        return f"{self.algorithm.value}-{self.window_us}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConditionGroup:
    """Limits for the requests that fit all of some conditions.

    Attributes:
        name: names the group's counters; no other group of the tier has it.
        when: not empty.
    """

    name: str
    when: tuple[Condition, ...]
    limits: tuple[Limit, ...] = ()
    burst: Limit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A named set of limits.

    Attributes:
        conditions: every group that a request fits is counted separately; `limits` and `burst`
            apply when it fits none.
        per_user: counts each user of what it limits separately.
        stop_on_quota_reach: False counts and marks requests above the limit, and lets them
            through (WSO2 API Manager's name for it).
        on_outage: None for what the settings say.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    burst: Limit | None = None
    stop_on_quota_reach: bool = True
    on_outage: OutageMode | None = None
    conditions: tuple[ConditionGroup, ...] = ()
    per_user: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """One counter that a request takes from.

    Attributes:
        key: names the subject and the rule.
        cost: how much is taken; 0 only reads the counter.
        enforced: False counts even above the limit, and never denies.
        bounds: CALENDAR only: ascending window edges around now. The store picks the
            window by its own clock, so replicas with skewed clocks agree.
        on_outage: what happens to this charge while the store is away.
        hold_us: SLIDING_WINDOW only: the units may be spent this much later, so they count for this
            much longer. At most the log's quantum.
        origin: the caller's network, when the number of subjects is unbounded (addresses, header
            values, users); else empty. A store that is full counts new subjects of one origin
            together, and keeps places for subjects that the catalog names.
        roams: the same subject (a header's value, a user) may come from any origin.
    """

    key: str
    algorithm: Algorithm
    limit: int
    window_us: int
    cost: int = 1
    enforced: bool = True
    bounds: tuple[int, ...] = ()
    on_outage: OutageMode = OutageMode.LOCAL
    hold_us: int = 0
    origin: str = ""
    roams: bool = False


@request_value(frozen=True, slots=True)
class Reading:
    """The state of one counter after the charge, or without it when any charge was refused.

    Attributes:
        exceeded: this counter had no room for the cost.
        remaining: how much can still be taken now; never negative.
        reset_us: from now until the full limit is available again.
        retry_after_us: from now until the same cost would fit; 0 when it did fit. When the cost
            can never fit, the time of a full reset.
    """

    exceeded: bool
    remaining: int
    reset_us: int
    retry_after_us: int


@request_value(frozen=True, slots=True)
class Taking:
    """The answer of a counter store: whether all was charged, and a reading for each charge.

    Attributes:
        at_us: the store's time of the taking, which `give_back` needs.
    """

    charged: bool
    readings: tuple[Reading, ...]
    at_us: int = 0


@request_value(frozen=True, slots=True)
class LimitStatus:
    """One limit of a decided request, with its reading: for headers, metadata, metrics.

    Attributes:
        charge: what was taken, or looked at; None when it is not known.
    """

    level: LimitLevel
    name: str
    limit: Limit
    reading: Reading
    enforced: bool
    charge: Charge | None = None
