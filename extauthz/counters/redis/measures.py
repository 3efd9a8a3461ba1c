"""What is measured of the calls of a store in Redis, over all of its servers."""

from __future__ import annotations

from dataclasses import dataclass, field

from extauthz.telemetry.measures.dependencies import CallMeasure


@dataclass(frozen=True, slots=True)
class RedisMeasures:
    """The calls of a store.

    Attributes:
        counting: batches, of one script call or on a cluster of several.
        connecting: connections that are made, with authentication.
    """

    counting: CallMeasure = field(default_factory=CallMeasure)
    connecting: CallMeasure = field(default_factory=CallMeasure)
