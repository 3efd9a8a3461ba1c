"""The dashboards: for each question of the person on call, the panel that answers it."""

from __future__ import annotations

from typing import Final

from tests.dashboards.pages.decisions import DECISIONS
from tests.dashboards.pages.dependencies import DEPENDENCIES
from tests.dashboards.pages.latency import LATENCY
from tests.dashboards.pages.limits import LIMITS
from tests.dashboards.pages.traces import TRACES
from tests.dashboards.pages.usage import USAGE

DASHBOARDS: Final = (DECISIONS, LATENCY, LIMITS, DEPENDENCIES, USAGE, TRACES)
