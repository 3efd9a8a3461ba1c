"""Tables in the documentation that say what tables in the code say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from extauthz.answers.reasons import MEANINGS, WSO2_THROTTLE_CODES
from extauthz.app.catalog import watch_source
from extauthz.app.core import open_core
from extauthz.app.log import open_decision_log
from extauthz.app.tracing import open_tracing
from extauthz.app.usage.opening import open_usage
from extauthz.app.usage.watching import count_usage
from extauthz.app.watching import (
    DecisionMeasures,
    count_log,
    count_reports,
    count_traces,
    make_metrics,
    watch_certificates,
)
from extauthz.app.watching_workers import make_worker_metrics
from extauthz.catalog.wso2.messages import Parameters
from extauthz.catalog.wso2.source import Wso2CatalogSource
from extauthz.model.decision import Reason
from extauthz.serving.load import Load
from extauthz.serving.workers.workers import Worker, Workers
from extauthz.settings.reading import read_settings
from extauthz.settings.telemetry import OtlpSettings, TelemetrySettings
from tests.mixer_compat.asking import Asking

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference"


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.value)
def test_every_reason_is_documented_with_its_codes(reason: Reason) -> None:
    meaning = MEANINGS[reason]
    code = "see below" if reason is Reason.RATE_LIMITED else str(meaning.wso2_code)
    (row,) = re.findall(
        rf"^\| `{reason.value}` \|.*$", (DOCS / "reasons.md").read_text(), re.MULTILINE
    )
    assert row.endswith(
        f"| {meaning.http_status} | {meaning.rpc_code} | {code} ({meaning.wso2_status}) |"
    )


def test_every_level_is_documented_with_its_code() -> None:
    text = (DOCS / "reasons.md").read_text()
    rows = [f"| `{level.value}` | {code} |" for level, code in WSO2_THROTTLE_CODES.items()]
    assert [row for row in rows if row not in text] == []


def _make_no_worker(number: int) -> Worker:
    raise AssertionError(f"worker {number} was started")


async def test_every_metric_is_documented_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text("tiers: {Gold: {}}\n")
    tree = {
        "catalog": {"files": ["catalog.yaml"]},
        "counters": {"store": "redis", "url": "redis://127.0.0.1:1/0"},
        "log": {"decisions": "decisions.jsonl"},
        "server": {"tls": {"cert": "tls.crt", "key": "tls.key"}},
        "usage": {"file": {"path": "usage.jsonl"}},
    }
    (tmp_path / "extauthz.yaml").write_text(yaml.safe_dump(tree))
    settings = read_settings(tmp_path / "extauthz.yaml", {})
    async with open_core(settings) as core:
        decisions = DecisionMeasures()
        metrics = make_metrics(core, Load(), decisions, "grpcio")
        watch_certificates(metrics, settings, lambda: core.refresher.catalog)
        count_reports(metrics, Asking().adapter.reports)
        watch_source(metrics, Wso2CatalogSource([], Parameters(url="", folder=str(tmp_path))))
        with open_decision_log(settings) as log:
            assert log is not None
            count_log(metrics, log)
        async with open_usage(settings, core, 0) as usage:
            assert usage is not None
            count_usage(metrics, usage)
        telemetry = TelemetrySettings(otlp=OtlpSettings(endpoint="http://127.0.0.1:1"))
        async with open_tracing(telemetry, {}) as tracing:
            assert tracing is not None
            count_traces(metrics, tracing)
        of_workers = make_worker_metrics(Workers(_make_no_worker, 1))
        text = (await decisions.counts.write(metrics.write()) + of_workers.write()).decode()
        shown = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    documented = re.findall(
        r"^\| `((?:extauthz|process)_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE
    )
    assert sorted(shown) == sorted(documented)
