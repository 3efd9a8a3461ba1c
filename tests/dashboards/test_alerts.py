"""Alerts fire when they should and not otherwise, as Prometheus's own tool for rules sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import yaml

from tests.dashboards.reading import ALERTS, find_alerts
from tests.prometheus_server import find_program

CASES: Final = Path(__file__).with_name("alerts_test.yaml")


def test_each_alert_fires_for_what_it_is_about_and_for_nothing_else() -> None:
    done = subprocess.run(
        [find_program("promtool"), "test", "rules", str(CASES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_case_in_which_each_alert_fires() -> None:
    fired = {
        name
        for case in yaml.safe_load(CASES.read_text())["tests"]
        for expected in case["promql_expr_test"]
        for sample in expected["exp_samples"]
        for name in find_alerts()
        if f'alertname="{name}"' in sample["labels"]
    }
    assert fired == set(find_alerts())


def test_the_rules_are_good() -> None:
    done = subprocess.run(
        [find_program("promtool"), "check", "rules", str(ALERTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
