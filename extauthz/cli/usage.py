"""``extauthz usage``: sums records of usage, as a table, CSV, JSON or a picture."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.errors import ConfigError, Problem
from extauthz.plain_text import write_plain
from extauthz.usage.picture import Bar, draw_bars, find_class
from extauthz.usage.summing import FIELDS, Key, Summary, Sums, sum_files

_DEFAULT: Final = ("application", "api", "status")
_BARS_BY: Final = ("application", "api")
_COLUMNS: Final = ("requests", "denied", "request_bytes", "response_bytes", "mean_ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="files of `usage.file`, rotated and gzipped ones, too; - for standard input",
    )
    parser.add_argument(
        "--by",
        type=_read_fields,
        default=_DEFAULT,
        metavar="FIELD,…",
        help=f"what is summed apart (default: {','.join(_DEFAULT)}): {', '.join(FIELDS)}",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="write an SVG: requests by application and API, in parts by status",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when a line is no record, or when there is none."""
    by = (*_BARS_BY, "status") if arguments.picture else arguments.by
    summary = sum_files(arguments.files, by)
    if arguments.picture is not None:
        _draw(summary, arguments.picture)
    elif arguments.csv:
        _print_csv(summary)
    elif arguments.json:
        print(json.dumps(_to_json(summary), indent=2))
    else:
        _print_table(summary)
    for problem in summary.problems:
        print(f"extauthz: {write_plain(str(problem))}", file=sys.stderr)
    if summary.unlisted:
        print(f"extauthz: {summary.unlisted} more lines are no records", file=sys.stderr)
    if summary.lost:
        print(f"extauthz: up to {summary.lost} records are missing", file=sys.stderr)
    if not summary.groups and not summary.problems:
        print("extauthz: the files hold no records", file=sys.stderr)
    return 1 if summary.unreadable or not summary.groups else 0


def _read_fields(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in FIELDS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FIELDS)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("names a field twice")
    return names


def _write_row(sums: Sums) -> list[str]:
    mean_ms = "" if sums.mean_ms is None else f"{sums.mean_ms:.1f}"
    numbers = (sums.requests, sums.denied, sums.request_bytes, sums.response_bytes)
    return [*map(str, numbers), mean_ms]


def _print_table(summary: Summary) -> None:
    # In a file or pipe nothing is cut.
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(*summary.by)
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for key, sums in summary.list_groups():
        table.add_row(*[Text(write_plain(cell)) for cell in (*key, *_write_row(sums))])
    if summary.groups:
        console.print(table)


def _print_csv(summary: Summary) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*summary.by, *_COLUMNS])
    for key, sums in summary.list_groups():
        writer.writerow([*map(_defuse, key), *_write_row(sums)])


def _defuse(cell: str) -> str:
    """A text that a spreadsheet does not take for a formula: clients may have chosen it."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _to_json(summary: Summary) -> dict[str, object]:
    groups = [
        {
            **dict(zip(summary.by, key, strict=True)),
            "requests": sums.requests,
            "denied": sums.denied,
            "request_bytes": sums.request_bytes,
            "response_bytes": sums.response_bytes,
            "mean_ms": None if sums.mean_ms is None else round(sums.mean_ms, 3),
        }
        for key, sums in summary.list_groups()
    ]
    return {"groups": groups, "lost": summary.lost, "unreadable_lines": summary.unreadable}


def _draw(summary: Summary, file: Path) -> None:
    bars: dict[Key, dict[str, int]] = {}
    for (*names, status), sums in summary.groups.items():
        parts = bars.setdefault(tuple(names), {})
        found = find_class(status)
        parts[found] = parts.get(found, 0) + sums.requests
    labelled: list[Bar] = [
        (" · ".join(write_plain(name) or "-" for name in key), parts) for key, parts in bars.items()
    ]
    picture = draw_bars("Requests by application and API", labelled)
    try:
        file.write_text(picture, encoding="utf-8")
    except OSError as exc:
        message = f"cannot be written: {exc.strerror}"
        raise ConfigError([Problem(file=str(file), message=message)]) from exc
