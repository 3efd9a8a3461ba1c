"""A benchmark's figures as a value, measured in a process of its own, and as a Markdown table."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Final

Row = Mapping[str, object]
_FOLDER: Final = Path(__file__).parent


def find_benchmarks() -> dict[str, Path]:
    """The files of this folder that have something to measure, by the names of their modules."""
    sources = sorted(_FOLDER.rglob("*.py"), key=lambda path: path.stem)
    return {path.stem: path for path in sources if "\ndef measure(" in path.read_text()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What one benchmark found."""

    name: str
    title: str
    rows: Sequence[Row]
    took_s: float


def run(name: str, options: Mapping[str, Any] | None = None) -> Table:
    """Measures in this process. `options` are what the benchmark's `measure` is told."""
    place = find_benchmarks()[name].relative_to(_FOLDER).with_suffix("")
    module = importlib.import_module(".".join(("tests.bench", *place.parts)))
    began = time.perf_counter()
    rows = [_read_row(row) for row in module.measure(**(options or {}))]
    took_s = round(time.perf_counter() - began, 1)
    return Table(
        name=name, title=getattr(module, "TITLE", _first_line(module)), rows=rows, took_s=took_s
    )


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or module.__name__).strip().partition("\n")[0].rstrip(".")


def _read_row(row: Any) -> Row:
    """A row as columns: a mapping as it is, a dataclass as its fields and properties."""
    if isinstance(row, Mapping):
        return dict(row)
    derived = [name for name, kind in vars(type(row)).items() if isinstance(kind, property)]
    return {name: getattr(row, name) for name in (*(f.name for f in fields(row)), *derived)}


def run_apart(name: str, options: Mapping[str, Any] | None = None) -> Table:
    """Measures in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(run, name, options).result()


def write_table(table: Table) -> str:
    """A Markdown table whose columns also line up in a terminal."""
    columns = list(dict.fromkeys(column for row in table.rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    is_number = [
        all(isinstance(row.get(column), int | float | None) for row in table.rows)
        for column in columns
    ]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, is_number, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, is_number, strict=True)
    ]
    lines = [line(columns), line(rule), *map(line, cells)]
    return "\n".join([f"## {table.title}", "", *lines, ""])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|")
