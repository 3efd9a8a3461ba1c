"""What a dashboard is made of: panels in rows, each with queries of one data source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["timeseries", "stat", "table", "heatmap", "bargauge"]

FULL_WIDTH: Final = 24
"""Columns of Grafana's grid."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Attributes:
        text: PromQL or TraceQL. ``SELECTED`` stands for the matchers of the page's variables.
        legend: how a series is named, with ``{{label}}``.
    """

    text: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        description: what to read from it, shown when the mouse is over its corner.
        unit: as Grafana names units: ``reqps``, ``percentunit``, ``s``, ``short``, ``bytes``.
        queries: what is drawn.
        kind: how it is drawn.
        stacked: whether series are drawn on top of each other: their sum means something.
        width, height: in units of Grafana's grid; a row has 24 columns.
        warn_at, alarm_at: from which values on it is yellow, and red; None for no such value.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    stacked: bool = False
    width: int = 8
    height: int = 8
    warn_at: float | None = None
    alarm_at: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One dashboard, which becomes the file ``extauthz-NAME.json``.

    Attributes:
        name: the end of its file's name and of its uid.
        source: the kind of data source that its panels ask: ``prometheus`` or ``tempo``.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...] = field(default=())
    source: Literal["prometheus", "tempo"] = "prometheus"
