"""Draws one frame of ``extauthz top`` from the answers of the admin API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from extauthz.model.decision import Reason
from extauthz.plain_text import write_plain

Answer: TypeAlias = Mapping[str, Any]

NEAR: Final = 0.8
"""From this share of a limit on, a consumer is near it."""
_NOW_S: Final = 30
_MINUTE_S: Final = 60
_BAR: Final = 20
_NARROW: Final = 76
"""Below so many columns, tables leave out what is least asked for."""
_MOST_ROWS: Final = 8
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_OUTCOMES: Final = ("allowed", "denied", "not decided")
_STYLES: Final = {"allowed": "green", "denied": "red", "not decided": "yellow"}
_READY_STYLES: Final = {"ready": "green", "degraded": "yellow", "not ready": "bold red"}


def draw_frame(
    status: Answer, rates: Answer, limits: Answer, *, url: str, now: datetime, width: int
) -> Group:
    """Draws what goes on.

    Args:
        status, rates, limits: the answers of ``/api/status``, ``/api/rates`` and ``/api/limits``.
        url: where they come from.
        now: the time in UTC.
        width: columns of the terminal.
    """
    is_narrow = width < _NARROW
    parts: list[RenderableType] = [_head(status, url, now), *_list_problems(status)]
    parts += [Text(""), *_outcomes(rates, width)]
    parts += [Text(""), _reasons(rates, is_narrow=is_narrow)]
    parts += [Text(""), _dependencies(status["dependencies"], is_narrow=is_narrow)]
    parts += [Text(""), _limits(limits["limits"], now, is_narrow=is_narrow)]
    return Group(*parts)


def _head(status: Answer, url: str, now: datetime) -> Text:
    ready, catalog = status["ready"]["status"], status["catalog"]
    up_s = (now - datetime.fromisoformat(status["started"])).total_seconds()
    workers = status["workers"]
    processes = f"{workers['serving']} of {workers['wanted']} workers"
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("extauthz", style="bold")
    line.append(f" {_plain(status['version'])}  ")
    line.append(_plain(ready), style=_READY_STYLES.get(ready, ""))
    line.append(
        f"  up {_span(up_s)}, {'one process' if workers['wanted'] == 1 else processes}, "
        f"{_count(catalog['apis'])} APIs, {_count(catalog['applications'])} applications  "
    )
    line.append(f"{now:%H:%M:%S} UTC  {_plain(url)}", style="dim")
    return line


def _list_problems(status: Answer) -> Iterable[Text]:
    for problem in status["catalog"]["problems"][:3]:
        yield Text(f"catalog: {_plain(problem)}", style="bold red", overflow="fold")
    for name, check in status["ready"]["checks"].items():
        if check["status"] != "ready":
            facts = ", ".join(f"{key} {value}" for key, value in check.items() if key != "status")
            text = f"{name}: {check['status']}{f' ({facts})' if facts else ''}"
            yield Text(_plain(text), style="yellow", overflow="fold")


def _outcomes(rates: Answer, width: int) -> Iterable[RenderableType]:
    points, step_s = rates["points"], rates["step_s"]
    counts = {outcome: [0] * points for outcome in _OUTCOMES}
    for series in rates["series"]:
        outcome = _outcome_of(series)
        if outcome:
            counts[outcome] = [*map(sum, zip(counts[outcome], series["counts"], strict=True))]
    steps = max(1, _NOW_S // step_s)
    recent = {outcome: sum(counts[outcome][-steps:]) for outcome in _OUTCOMES}
    total = sum(recent.values())
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="crop")
    for outcome in _OUTCOMES:
        grid.add_row(
            Text(outcome, style=_STYLES[outcome]),
            f"{recent[outcome] / (steps * step_s):.1f}/s",
            f"{recent[outcome] / total:.1%}" if total else "-",
            Text(_line(counts[outcome], max(10, width - 36)), style=_STYLES[outcome]),
        )
    minutes = points * step_s // _MINUTE_S
    yield _title(f"Decisions, over {steps * step_s} s and in the last {minutes} minutes")
    yield grid


def _outcome_of(series: Answer) -> str:
    """Under which outcome decisions are counted; empty for those that a door made in shadow."""
    if series["outcome"] == "allow":
        return "allowed"
    if series["outcome"] != "deny":
        return ""
    return "not decided" if series["reason"] == Reason.UNAVAILABLE.value else "denied"


def _line(counts: Sequence[int], width: int) -> str:
    """Counts as a line of blocks, the highest as a full one."""
    size = -(-len(counts) // width)
    sums = [sum(counts[at : at + size]) for at in range(0, len(counts), size)]
    top = max(sums, default=0)
    if not top:
        return ""
    return "".join(_BLOCKS[-(-one * (len(_BLOCKS) - 1) // top)] for one in sums)


def _reasons(rates: Answer, *, is_narrow: bool) -> Group:
    steps = max(1, _MINUTE_S // rates["step_s"])
    rows: dict[str, tuple[int, int]] = {}
    for series in rates["series"]:
        if series["outcome"] == "deny":
            minute, total = rows.get(series["reason"], (0, 0))
            counts = series["counts"]
            rows[series["reason"]] = minute + sum(counts[-steps:]), total + sum(counts)
    ranked = sorted(rows.items(), key=lambda row: row[1], reverse=True)
    ranked = [row for row in ranked if row[1][1]]
    if not ranked:
        return _titled("Reasons of denials", "nothing was denied in the last minutes")
    table = _table("reason", ">1 min", ">15 min", *(() if is_narrow else ("",)))
    top = max(total for _, (_, total) in ranked)
    for reason, (minute, total) in ranked[:_MOST_ROWS]:
        style = _STYLES["not decided" if reason == Reason.UNAVAILABLE.value else "denied"]
        bar = () if is_narrow else (Text("█" * max(1, total * _BAR // top), style=style),)
        table.add_row(_plain(reason), _count(minute), _count(total), *bar)
    return _titled("Reasons of denials", table)


def _dependencies(dependencies: Sequence[Answer], *, is_narrow: bool) -> Group:
    title = "Dependencies, the slowest first"
    used = [one for one in dependencies if one["state"] != "unused"]
    if not used:
        return _titled(title, "none was asked yet")
    table = _table("name", "state", *(() if is_narrow else (">calls",)), ">failed", ">p50", ">p99")
    ranked = sorted(used, key=lambda one: one["p99_ms"] or 0, reverse=True)
    for one in ranked[:_MOST_ROWS]:
        style = "green" if one["state"] == "ok" else "bold red"
        table.add_row(
            _plain(one["name"]),
            Text(_plain(one["state"]), style=style),
            *(() if is_narrow else (_count(one["calls"]),)),
            _count(one["failures"]),
            _milliseconds(one["p50_ms"]),
            _milliseconds(one["p99_ms"]),
        )
    return _titled(title, table)


def _limits(limits: Sequence[Answer], now: datetime, *, is_narrow: bool) -> Group:
    title = "Consumers near their limits"
    if not limits:
        return _titled(title, "no limit was charged yet")
    more = () if is_narrow else ("API", "level", "tier")
    table = _table("consumer", *more, ">used", ">left", ">again in")
    for one in limits[:_MOST_ROWS]:
        share = one["share"]
        style = "bold red" if share >= 1 else "yellow" if share >= NEAR else ""
        about = (f"{one['api']} {one['version']}".strip(), one["level"], one["tier"])
        table.add_row(
            _plain(one["consumer"] or "everybody"),
            *(() if is_narrow else map(_plain, about)),
            Text(f"{int(share * 100)} %", style=style),
            _count(one["remaining"]),
            _until(one["resets"], now),
        )
    return _titled(title, table)


def _table(*columns: str) -> Table:
    """A table; a column with `>` before its name has numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=10 if number == 0 else None,
        )
    return table


def _titled(title: str, body: RenderableType) -> Group:
    return Group(_title(title), body)


def _title(title: str) -> Text:
    return Text(title, style="bold", no_wrap=True, overflow="ellipsis")


def _plain(text: object) -> str:
    return write_plain(str(text))


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _milliseconds(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number / 1000:.1f} s" if number >= 1000 else f"{number:.3g} ms"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def _until(resets: str | None, now: datetime) -> str:
    if not resets:
        return "-"
    return _span((datetime.fromisoformat(resets).astimezone(UTC) - now).total_seconds())
