"""One line at once, then one in ten seconds with a count."""

from __future__ import annotations

import logging

import pytest

from extauthz.errors import BackendError, CounterStoreError, KeySourceError
from extauthz.policy.repeated_warnings import RepeatedWarnings


class Warned:
    """Warnings at times of the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        log = logging.getLogger("a.place")
        self.warnings = RepeatedWarnings(log, "could not decide", monotonic=lambda: self.now_s)

    def warn(self, after_s: float, error: BackendError, times: int = 1) -> None:
        self.now_s += after_s
        for _ in range(times):
            self.warnings.warn(error)


def test_says_the_first_at_once_and_counts_the_others(caplog: pytest.LogCaptureFixture) -> None:
    warned = Warned()
    warned.warn(0, CounterStoreError("away"), times=500)
    warned.warn(9.9, CounterStoreError("away"), times=31)
    assert caplog.messages == ["could not decide: counter_store_failed: away"]
    warned.warn(0.1, CounterStoreError("still away"), times=2)
    warned.warn(3600, CounterStoreError("away again"))
    warned.warn(10, CounterStoreError("and again"))
    assert caplog.messages[1:] == [
        "could not decide: counter_store_failed: still away (and 530 more since the last such "
        "line)",
        "could not decide: counter_store_failed: away again (and 1 more since the last such line)",
        "could not decide: counter_store_failed: and again",
    ]
    assert {record.__dict__["code"] for record in caplog.records} == {"counter_store_failed"}


def test_each_kind_of_error_has_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    warned = Warned()
    for _ in range(3):
        warned.warn(1, CounterStoreError("away"))
        warned.warn(1, KeySourceError("no keys"))
    assert caplog.messages == [
        "could not decide: counter_store_failed: away",
        "could not decide: key_source_failed: no keys",
    ]
