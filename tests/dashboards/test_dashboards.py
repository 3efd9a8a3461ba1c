"""The dashboards hold what Grafana's users and its public dashboard linter expect.

The rules are those of github.com/grafana/dashboard-linter (docs/index.md there).
"""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from tests.dashboards.__main__ import find_stale
from tests.dashboards.grafana import SELECTED
from tests.dashboards.reading import (
    ALERTS,
    ROOT,
    find_alerts,
    find_panels,
    find_queries,
    read_dashboards,
)

METRICS_PAGE: Final = ROOT / "docs" / "reference" / "metrics.md"
TRACING_PAGE: Final = ROOT / "docs" / "how-to" / "tracing.md"
METRIC: Final = re.compile(r"\b((?:extauthz|process)_\w+?)(?:_bucket|_sum|_count)?\{")
UNSEEN: Final = {"process_start_time_seconds", "process_virtual_memory_bytes"}
"""Metrics that every process has, and that answer no question of ours."""

by_file: Final = pytest.mark.parametrize("name", list(read_dashboards()))


def documented_metrics() -> set[str]:
    return set(
        re.findall(r"^\| `((?:extauthz|process)_\w+)` \|", METRICS_PAGE.read_text(), re.MULTILINE)
    )


def variables_of(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def test_the_files_are_what_the_code_gives() -> None:
    assert not find_stale()


@by_file
def test_a_data_source_can_be_chosen_and_every_panel_asks_it(name: str) -> None:
    dashboard = read_dashboards()[name]
    chosen = variables_of(dashboard)["datasource"]
    assert chosen["type"] == "datasource"
    asked = [*dashboard["annotations"]["list"]]
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            asked += [panel, *panel["targets"]]
    assert {(one["datasource"]["uid"], one["datasource"]["type"]) for one in asked} == {
        ("${datasource}", chosen["query"])
    }


@by_file
def test_job_and_instance_can_be_chosen_several_at_once(name: str) -> None:
    variables = variables_of(read_dashboards()[name])
    if variables["datasource"]["query"] == "tempo":
        assert set(variables) == {"datasource"}
        return
    assert set(variables) == {"datasource", "job", "instance"}
    for variable in (variables["job"], variables["instance"]):
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (
            True,
            True,
            ".+",
        )
        assert variable["refresh"] == 2, "values are looked up when the time range changes"


@by_file
def test_panels_have_room_of_their_own_and_ids_of_their_own(name: str) -> None:
    panels = read_dashboards()[name]["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_titles_and_files_name_each_dashboard_once() -> None:
    dashboards = read_dashboards()
    assert {name: dashboard["uid"] for name, dashboard in dashboards.items()} == {
        name: name for name in dashboards
    }
    assert len({dashboard["title"] for dashboard in dashboards.values()}) == len(dashboards)
    assert all(not dashboard["editable"] for dashboard in dashboards.values())


@pytest.mark.parametrize(
    ("where", "panel"), [pytest.param(*one, id=one[0]) for one in find_panels()]
)
def test_a_panel_says_what_it_shows_and_in_which_unit(where: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"], where


@pytest.mark.parametrize(
    ("where", "query"), [pytest.param(*one, id=one[0]) for one in find_queries()]
)
def test_a_query_is_for_the_chosen_replicas_and_counters_are_rates(where: str, query: str) -> None:
    for metric in re.findall(r"\w+\{([^}]*)\}", query):
        assert metric.startswith(SELECTED), where
    for name in re.findall(r"(\w+_total|\w+_bucket|\w+_sum|\w+_count)\{[^}]*\}(?!\[)", query):
        raise AssertionError(f"{where}: {name} only ever grows; take a rate of it")
    for window in re.findall(r"\[([^\]]*)\]", query):
        assert window == "$__rate_interval", where


def test_every_documented_metric_is_on_a_dashboard() -> None:
    shown = {name for _, query in find_queries() for name in METRIC.findall(query)}
    assert shown - documented_metrics() == set()
    assert documented_metrics() - shown == UNSEEN


def test_queries_for_traces_read_documented_spans_and_attributes() -> None:
    page = TRACING_PAGE.read_text()
    queries = [
        target["query"]
        for _, panel in find_panels()
        for target in panel["targets"]
        if "query" in target
    ]
    assert queries
    for query in queries:
        attributes = re.findall(r"span\.([a-z._]+)", query)
        spans = re.findall(r'(?<!\.)name = "([^"]+)"', query)
        for name in (*attributes, *spans):
            if name != "extauthz":
                assert f"`{name}`" in page, query


def test_alerts_read_documented_metrics() -> None:
    names = re.findall(r"\b(?:extauthz|process)_[a-z_]+", ALERTS.read_text())
    documented = documented_metrics()
    unknown = {name for name in names if name.removesuffix("_bucket") not in documented}
    assert not unknown


RUNBOOKS = "https://docs.example/extauthz/how-to/runbooks.html"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    page = ROOT / "docs" / "how-to" / "runbooks.md"
    headings = re.findall(r"^## (Extauthz\w+)$", page.read_text(), re.MULTILINE)
    assert headings == list(find_alerts()), "in the order of the alerts"
    for name, alert in find_alerts().items():
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}#{name.lower()}"
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["description"].endswith(".")
