"""Gives every decision an id, and reports it to the observers.

Most decisions are made by the pipeline. A door denies what it cannot read and what is no request
to an API: these are decisions, too.
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
    """Makes ids of decisions and reports decisions to observers."""

    def __init__(self, observers: Sequence[DecisionObserver] = ()) -> None:
        self._observers = tuple(observers)
        self._ids = count(1)
        self._id_prefix = secrets.token_hex(6)

    def make_id(self) -> str:
        """A new id that no other decision has."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def tell(self, request: ApiRequest, decision: Decision, started_ns: int) -> None:
        """Reports a decision. `started_ns` is when it began, by `time.perf_counter_ns`."""
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        for observer in self._observers:
            try:
                observer.observe(request, decision, duration_us)
            except Exception:  # noqa: BLE001  (telemetry must not change decisions)
                _log.exception("a decision observer failed; the decision stands")

    def refuse(self, request: ApiRequest, denial: Denial, *, shadow: bool = False) -> Deny:
        """Makes the decision of a door that denies by itself, and reports it."""
        deny = Deny(id=self.make_id(), denial=denial, shadow=shadow)
        self.tell(request, deny, time.perf_counter_ns())
        return deny
