"""Gives decisions their names, and tells observers of them, wherever they were made.

Most are the pipeline's. A door denies by itself what it cannot read, and what is no request to an
API: those are decisions, too.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from itertools import count
from typing import Final

from extauthz.model.decision import Decision, Denial, Deny
from extauthz.model.request import ApiRequest
from extauthz.ports import DecisionObserver

_log: Final = logging.getLogger(__name__)


class DecisionRecord:
    """Names and tells decisions."""

    def __init__(self, observers: Sequence[DecisionObserver] = ()) -> None:
        self._observers = tuple(observers)
        self._ids = count(1)
        self._id_prefix = secrets.token_hex(6)

    def make_id(self) -> str:
        """A name that no other decision has."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def tell(self, request: ApiRequest, decision: Decision, started_ns: int) -> None:
        """Tells observers. `started_ns` is of `time.perf_counter_ns`."""
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        for observer in self._observers:
            try:
                observer.observe(request, decision, duration_us)
            except Exception:  # noqa: BLE001  (telemetry must not change decisions)
                _log.exception("a decision observer failed; the decision stands")

    def refuse(self, request: ApiRequest, denial: Denial, *, shadow: bool = False) -> Deny:
        """The decision of a door that denies by itself; observers are told."""
        deny = Deny(id=self.make_id(), denial=denial, shadow=shadow)
        self.tell(request, deny, time.perf_counter_ns())
        return deny
