"""How long it takes to find a resource, with few and with many APIs.

Run with ``python -m tests.bench.deciding.routing``. The cost is that of the path's depth: the number of
APIs changes only the size of dictionaries, which shows as caches of the processor missing.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns
from typing import TextIO

from extauthz.model.routing.route_table import RouteTable
from extauthz.model.routing.routes import Route
from tests.builders import a_resource, an_api

RESOURCES = 20
"""Resources of each API: five groups of four."""
FEW, MANY = 10, 10_000
PATHS = 1_000
"""Paths that one repeat looks up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of path; the median time for one match in each table, in microseconds."""

    name: str
    few_us: float
    many_us: float

    @property
    def ratio(self) -> float:
        """How much longer it takes with many APIs."""
        return self.many_us / self.few_us


def make_table(apis: int) -> RouteTable:
    """A table of so many APIs with `RESOURCES` resources each."""
    resources = [
        a_resource(f"/group{group}{rest}", "GET", "POST")
        for group in range(RESOURCES // 4)
        for rest in ("", "/{id}", "/{id}/items", "/mine")
    ]
    return RouteTable(
        an_api(*resources, name=f"api{number}", base_paths=(f"/api{number}/1.0.0",))
        for number in range(apis)
    )


KINDS = {
    "literal": "/api{api}/1.0.0/group{group}",
    "parameter": "/api{api}/1.0.0/group{group}/4711",
    "deeper": "/api{api}/1.0.0/group{group}/4711/items",
    "no resource": "/api{api}/1.0.0/group{group}/4711/items/more",
    "no API": "/none{api}/1.0.0/group{group}",
}


def measure(*, few: int = FEW, many: int = MANY, repeats: int = 15) -> list[Row]:
    """Times both tables in turn, so that what else the machine does falls on both alike."""
    tables = {count: make_table(count) for count in (few, many)}
    rows = []
    for name, form in KINDS.items():
        choose = random.Random(name)  # repeatable paths, not secrets
        paths = {
            count: [
                form.format(api=choose.randrange(count), group=choose.randrange(5)).split("/")[1:]
                for _ in range(PATHS)
            ]
            for count in tables
        }
        for count, table in tables.items():
            check_paths(table, paths[count], is_found=not name.startswith("no "))
        taken: dict[int, list[float]] = {count: [] for count in tables}
        for _ in range(repeats):
            for count, table in tables.items():
                taken[count].append(match_all(table, paths[count]) / PATHS / 1_000)
        rows.append(Row(name=name, few_us=median(taken[few]), many_us=median(taken[many])))
    return rows


def match_all(table: RouteTable, paths: list[list[str]]) -> int:
    """Nanoseconds for one match of each path."""
    start = perf_counter_ns()
    for segments in paths:
        found = table.find_api(segments[0], segments)
        if found is not None:
            _, tree, rest = found
            tree.find(segments, rest, "GET")
    return perf_counter_ns() - start


def check_paths(table: RouteTable, paths: list[list[str]], *, is_found: bool) -> None:
    """Says that the paths lead where their kind says, so that the right thing is timed."""
    for segments in paths:
        found = table.find_api(segments[0], segments)
        route = None if found is None else found[1].find(segments, found[2], "GET")
        assert isinstance(route, Route) is is_found


def print_rows(rows: list[Row], out: TextIO) -> None:
    """A table of the rows."""
    few, many = f"{FEW:,} APIs", f"{MANY:,} APIs"
    print(f"{'µs per match':<14}{few:>14}{many:>14}{'ratio':>8}", file=out)
    for row in rows:
        print(f"{row.name:<14}{row.few_us:>14.2f}{row.many_us:>14.2f}{row.ratio:>8.2f}", file=out)


if __name__ == "__main__":
    print_rows(measure(), sys.stdout)
