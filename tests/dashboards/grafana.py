"""Writes dashboards as Grafana's JSON, for Grafana 10 and later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.dashboards.panels import FULL_WIDTH, Dashboard, Panel, Query

SELECTED: Final = 'job=~"$job", instance=~"$instance"'
"""The matchers of the variables ``job`` and ``instance``."""
_SCHEMA: Final = 39
"""Of Grafana 10.4. Later versions read it, and migrate it when they open it."""
_SOURCE_NAMES: Final = {"prometheus": "Prometheus", "tempo": "Tempo"}


def write_dashboard(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana imports it."""
    marks = [_mark_catalogs()] if dashboard.source == "prometheus" else []
    return {
        "uid": f"extauthz-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["extauthz"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_link_siblings()],
        "annotations": {"list": marks},
        "templating": {"list": [_choose_source(dashboard.source), *_variables(dashboard.source)]},
        "panels": list(_place(dashboard)),
    }


def _link_siblings() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "extauthz",
        "tags": ["extauthz"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "icon": "external link",
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def _mark_catalogs() -> dict[str, Any]:
    return {
        "name": "Catalog replaced",
        "datasource": _source("prometheus"),
        "enable": True,
        "iconColor": "blue",
        "expr": f"max(extauthz_catalog_loaded{{{SELECTED}}}) * 1000",
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": "Catalog replaced",
    }


def _source(kind: str) -> dict[str, str]:
    return {"type": kind, "uid": "${datasource}"}


def _choose_source(kind: str) -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": kind,
        "current": {"text": "default", "value": "default"},
        "hide": 0,
        "refresh": 1,
        "regex": "",
        "options": [],
    }


def _variables(source: str) -> Iterator[dict[str, Any]]:
    if source != "prometheus":
        return
    for name, within in (("job", ""), ("instance", '{job=~"$job"}')):
        values = f"label_values(extauthz_build_info{within}, {name})"
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _source("prometheus"),
            "definition": values,
            "query": {"qryType": 1, "query": values, "refId": "variable"},
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"selected": True, "text": "All", "value": "$__all"},
            "refresh": 2,
            "sort": 1,
            "hide": 0,
            "regex": "",
            "options": [],
        }


def _place(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in dashboard.rows:
        place = {"h": 1, "w": FULL_WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "panels": []}
        number, top, left, deepest = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > FULL_WIDTH:
                top, left, deepest = top + deepest, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_write_panel(panel, dashboard.source)}
            number, left, deepest = number + 1, left + panel.width, max(deepest, panel.height)
        top += deepest


def _write_panel(panel: Panel, source: str) -> dict[str, Any]:
    targets = [_write_query(panel, query, i, source) for i, query in enumerate(panel.queries)]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _source(source),
        "targets": targets,
        "fieldConfig": {"defaults": _look(panel), "overrides": []},
        "options": _options(panel),
    }


def _write_query(panel: Panel, query: Query, position: int, source: str) -> dict[str, Any]:
    common = {"refId": chr(ord("A") + position), "datasource": _source(source)}
    if source == "tempo":
        return {
            **common,
            "query": query.text,
            "queryType": "traceql",
            "tableType": "traces",
            "limit": 50,
        }
    is_table = panel.kind == "table"
    return {
        **common,
        "expr": query.text.replace("SELECTED", SELECTED),
        "legendFormat": query.legend,
        "format": {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series"),
        "instant": is_table,
        "range": not is_table,
    }


def _look(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    for color, value in (("yellow", panel.warn_at), ("red", panel.alarm_at)):
        if value is not None:
            steps.append({"color": color, "value": value})
    look: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.unit == "percentunit":
        look.update(min=0, max=1)
    if panel.kind == "timeseries":
        look["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return look


def _options(panel: Panel) -> dict[str, Any]:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "timeseries":
            return {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case "stat":
            return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "area"}
        case "bargauge":
            return {"reduceOptions": reduced, "orientation": "horizontal"}
        case "heatmap":
            return {
                "calculate": False,
                "yAxis": {"unit": panel.unit},
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                "cellGap": 1,
            }
        case "table":
            return {"showHeader": True}
