"""Draws what was measured last: ``python -m tests.bench.plots [FOLDER]``.

Reads build/bench, and writes SVG files there, or to the folder that is named, as docs/images for
the documentation: `headline` from `hosts`, and two of counters from `accuracy` and `chaos`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS: Final = Path(__file__).resolve().parents[2] / "build" / "bench"
ORDER: Final = [(host, logic) for host in ("grpcio", "envoy") for logic in ("Python", "compiled")]
LOGIC: Final = {"Python": "from source", "compiled": "as in the image"}
COLOURS: Final = {1: "#4477aa", 2: "#228833", 4: "#ccbb44", 8: "#aa3377"}
"""By processes. The colours of Paul Tol's bright scheme, which everybody can tell apart."""
RULES: Final = ("fixed_window", "calendar", "sliding_window", "burst")
HANDLERS: Final = {
    "null": ("a handler that does nothing", "#bbbbbb"),
    "full": ("a whole decision: API key, subscription, two limits in memory", "#4477aa"),
    "redis": ("the same, limits in Redis", "#ee6677"),
}
OUTAGES: Final = ("killed, back after 2 s", "hangs for 3 s")
SLICE_S: Final = 0.25
HALF_S: Final = {"sliding_window": 2.0}
"""Half of the time over which requests are offered, where it is not 0.75 s."""
STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "svg.hashsalt": "extauthz",  # the same figures give the same file
    "svg.fonttype": "none",
}


def draw_accuracy(runs: Sequence[Any]) -> Figure:
    """Admitted over time around an edge, a panel for each rule and a line for each run."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes, rule in zip(panels, RULES, strict=True):
        of_rule = [run for run in runs if run["rule"] == rule]
        limit, offered = of_rule[0]["limit"], of_rule[0]["offered"]
        half_s = HALF_S.get(rule, 0.75)
        axes.plot((-half_s, half_s), (0, offered), color="#999999", lw=1.2, label="offered")
        axes.axvline(0, color="#555555", lw=1, ls=(0, (2, 2)))
        for run in of_rule:
            # Every tenth is enough for the eye, and keeps the file small.
            shown = [*enumerate(run["admitted_us"], start=1)][9::10]
            skewed = run["clocks"] != "alike"
            axes.plot(
                [-half_s, *[at_us / 1e6 for _, at_us in shown], half_s],
                [0, *[number for number, _ in shown], run["admitted"]],
                drawstyle="steps-post",
                color="black" if skewed else COLOURS[run["processes"]],
                # Wide below, narrow above: lines that lie on each other are all seen.
                lw=1 if skewed else 9 - 2.2 * run["processes"] ** 0.5,
                ls=(0, (4, 4)) if skewed else "-",
                label=_name(run),
            )
        for level in (limit, 2 * limit):
            axes.axhline(level, color="#ee6677", lw=0.8)
        axes.annotate("limit", (-0.99 * half_s, limit), va="bottom", color="#cc3344")
        axes.annotate("twice", (-0.99 * half_s, 2 * limit), va="bottom", color="#cc3344")
        axes.set_title(rule, loc="left", fontweight="bold")
        axes.set_ylim(0, 1.3 * 2 * limit)
        axes.set_xlim(-1.04 * half_s, 1.04 * half_s)
    figure.supxlabel("seconds from the edge of a window of 2 s (each panel its own scale)")
    figure.supylabel("requests admitted")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _name(run: Any) -> str:
    processes = "1 process" if run["processes"] == 1 else f"{run['processes']} processes"
    return processes if run["clocks"] == "alike" else f"{processes}, clocks {run['clocks']}"


def draw_outages(outages: Sequence[Any]) -> Figure:
    """How long decisions took in two outages, and what was answered, over time."""
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    panels = figure.subplots(3, len(outages), sharex=True, sharey="row")
    for column, outage in enumerate(outages):
        took, *shares = panels[:, column]
        _shade(panels[:, column], outage)
        took.set_title(f"Redis {outage['title']}", loc="left", fontweight="bold")
        _draw_latency(took, outage["samples"])
        for axes, mode in zip(shares, ("local", "deny"), strict=True):
            _draw_answers(axes, outage["samples"], mode)
    panels[0, 0].set_ylabel("a decision took (ms)")
    panels[1, 0].set_ylabel("on_outage: local\nanswers per second")
    panels[2, 0].set_ylabel("on_outage: deny\nanswers per second")
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    figure.supxlabel("seconds of the load; a limit's windows begin at 0, 5 and 10")
    return figure


def _shade(panels: Sequence[Axes], outage: Any) -> None:
    back_s = max([outage["until_s"], *outage["degraded_s"]])
    for axes in panels:
        axes.axvspan(
            outage["from_s"], outage["until_s"], color="#f3c6c6", lw=0, label="Redis is away"
        )
        axes.axvspan(outage["until_s"], back_s, color="#fbe9c8", lw=0, label="not used again yet")
        axes.set_xlim(0, 15)


def _draw_latency(axes: Axes, samples: Sequence[Any]) -> None:
    warm = [sample for sample in samples if sample[1] >= 2.5]
    axes.scatter(
        [sample[1] for sample in warm],
        [sample[2] for sample in warm],
        s=3,
        color="#4477aa",
        lw=0,
        rasterized=True,
    )
    axes.axhline(50, color="#555555", lw=0.8, ls=(0, (2, 2)))
    axes.annotate("timeout of Redis", (14.9, 51), va="bottom", ha="right", color="#555555")
    axes.axhline(200, color="#cc3344", lw=0.8)
    axes.annotate("Envoy's deadline", (14.9, 195), va="top", ha="right", color="#cc3344")
    axes.set_yscale("log")
    axes.set_ylim(0.8, 260)
    axes.set_yticks([1, 10, 50, 200], ["1", "10", "50", "200"])


def _draw_answers(axes: Axes, samples: Sequence[Any], mode: str) -> None:
    """Of the consumer whose limit is exceeded, in slices of time."""
    slices = int(15 / SLICE_S)
    counts = {status: [0] * slices for status in (200, 429, 503)}
    for consumer, sent_s, _, status in samples:
        if consumer == mode and status in counts and sent_s < 15:
            counts[status][int(sent_s / SLICE_S)] += 1
    edges = [number * SLICE_S for number in range(slices + 1)]
    axes.stackplot(
        edges,
        [[count / SLICE_S for count in (*of, of[-1])] for of in counts.values()],
        step="post",
        labels=("admitted", "over the limit", "unavailable"),
        colors=("#228833", "#bbbbbb", "#cc3344"),
        alpha=0.85,
        lw=0,
    )
    axes.set_ylim(0, None)


def draw_headline(rows: Sequence[Any]) -> Figure:
    """What a decision costs on each host, and how many a process makes, beside doing nothing."""
    found = {(row["host"], row["logic"], row["handler"]): row for row in rows}
    # The last one is drawn at the top.
    groups = sorted({(host, logic) for host, logic, _ in found}, key=ORDER.index)
    figure = Figure(figsize=(8, 0.6 + 0.8 * len(groups)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column, title in zip(
        panels,
        ("CPU of the server, us/request", "requests/s"),
        ("CPU for each decision (µs)", "decisions per second, one process"),
        strict=True,
    ):
        for handler, offset in (("null", 0.27), ("full", 0.0), ("redis", -0.27)):
            values = [found[*group, handler][column] for group in groups]
            bars = axes.barh(
                [number + offset for number in range(len(groups))],
                values,
                height=0.25,
                color=HANDLERS[handler][1],
                label=HANDLERS[handler][0],
            )
            axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
        axes.set_title(title, loc="left")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.margins(x=0.2)
        axes.grid(visible=False, axis="y")
        names = [f"host {host},\n{LOGIC[logic]}" for host, logic in groups]
        axes.set_yticks(range(len(groups)), names)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _find_figures() -> Iterator[tuple[str, Figure]]:
    """Those whose figures there are."""
    hosts, runs, kept = (
        json.loads(file.read_text()) if file.exists() else None
        for file in (
            RESULTS / "tables" / "hosts.json",
            RESULTS / "accuracy.json",
            RESULTS / "chaos.json",
        )
    )
    if hosts is not None:
        yield "headline", draw_headline(hosts["rows"])
    if runs is not None and {run["rule"] for run in runs} == set(RULES):
        yield "counters-accuracy", draw_accuracy(runs)
    if kept is not None:
        outages = [outage for outage in kept if outage["title"] in OUTAGES]
        yield "counters-outages", draw_outages(outages)


def draw(folder: Path) -> int:
    """Draws what there is; says how many pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    with mpl.rc_context(STYLE):
        for name, figure in _find_figures():
            file = folder / f"{name}.svg"
            figure.savefig(file, dpi=110, metadata={"Date": None})
            # Matplotlib ends path lines with a space.
            lines = file.read_text().splitlines()
            file.write_text("".join(f"{line.rstrip()}\n" for line in lines))
            figure.savefig(RESULTS / f"{name}.png", dpi=110)
            print(f"written to {file}")
            drawn += 1
    return drawn


def main() -> int:
    """Draws into the folder that is named."""
    drawn = draw(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    if not drawn:
        print(f"nothing in {RESULTS} to draw; measure first: make bench", file=sys.stderr)
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
