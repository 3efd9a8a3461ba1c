"""Reads the files of ``istio/dashboards``, as tests look at them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "istio" / "dashboards"
ALERTS: Final = FOLDER / "alerts.yaml"


def read_dashboards() -> dict[str, dict[str, Any]]:
    """Each dashboard, by its file's name without the ending."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}


def find_panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel that shows something, with where it stands."""
    for name, dashboard in read_dashboards().items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield f"{name}: {panel['title']}", panel


def find_queries() -> Iterator[tuple[str, str]]:
    """Each PromQL query, with where it stands."""
    for where, panel in find_panels():
        for target in panel["targets"]:
            if "expr" in target:
                yield f"{where}: {target['refId']}", target["expr"]


def find_alerts() -> Mapping[str, dict[str, Any]]:
    """Each alert, by its name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}
