"""The Mixer adapter: the methods of all its services.

Mixer calls the services of an adapter's templates. All of them are served here, and also the
service that only Mixer's `bypass` adapter calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from extauthz.policy.limits.tier_quotas import TierQuotas
from extauthz.ports import UsageObserver
from extauthz.serving.methods import UnaryMethod
from mixer_compat.checks import Checks
from mixer_compat.door import MixerDoor
from mixer_compat.quota import Quotas
from mixer_compat.reports import Reports
from mixer_compat.sessions import SERVICE as INFRASTRUCTURE_BACKEND
from mixer_compat.sessions import Sessions

SERVICES: Final = (
    "authorization.HandleAuthorizationService",
    "apikey.HandleApiKeyService",
    "listentry.HandleListEntryService",
    "checknothing.HandleCheckNothingService",
    "quota.HandleQuotaService",
    "metric.HandleMetricService",
    "logentry.HandleLogEntryService",
    "tracespan.HandleTraceSpanService",
    "edge.HandleEdgeService",
    "reportnothing.HandleReportNothingService",
    INFRASTRUCTURE_BACKEND,
)
"""The services that have a health status."""


class MixerAdapter:
    """All handlers over one core. The code that opens the door must run `reports`."""

    def __init__(
        self, door: MixerDoor, tiers: TierQuotas, observers: Iterable[UsageObserver] = ()
    ) -> None:
        self.reports: Final = Reports(door, observers)
        self._parts = (Checks(door), Quotas(door, tiers), Sessions(door), self.reports)

    def methods(self) -> tuple[UnaryMethod[bytes, bytes], ...]:
        """The rows of the method table."""
        return tuple(row for part in self._parts for row in part.methods())
