"""The system's clocks."""

from __future__ import annotations

import time

import pytest

from extauthz.clock import SteadyClock, SystemClock


def test_both_clocks_tell_the_same_time_at_the_start() -> None:
    assert abs(SystemClock().now_us() - SteadyClock().now_us()) < 1_000_000


def test_a_steady_clock_does_not_jump_with_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    steady, system = SteadyClock(), SystemClock()
    year_ns = 365 * 86_400 * 10**9
    wall_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + year_ns)
    assert system.now_us() - steady.now_us() > 300 * 86_400 * 10**6
    assert 0 <= steady.now_us() - wall_ns() // 1000 + 1_000_000 < 2_000_000
