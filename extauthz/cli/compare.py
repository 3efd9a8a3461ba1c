"""``extauthz compare``: lists where Envoy's door and Mixer's decided differently."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.errors import ConfigError, Problem
from extauthz.plain_text import write_plain_lines
from extauthz.telemetry.decision_log.door_comparison import Comparison, compare_doors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="files that `log.decisions` names, of all replicas; - for standard input",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when there is a difference, or nothing to compare."""
    found = compare_doors(_read_lines(arguments.files))
    if arguments.json:
        print(json.dumps(_to_json(found), indent=2))
    else:
        _print(found)
    if not found.equal and not found.different:
        print(
            "extauthz: nothing was compared: no request came to both doors; give the files of "
            "both, and see that the mesh sends x-request-id to each",
            file=sys.stderr,
        )
        return 1
    return 1 if found.different else 0


def _read_lines(files: list[Path]) -> Iterator[str]:
    for file in files:
        if str(file) == "-":
            yield from sys.stdin
            continue
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                yield from lines
        except OSError as exc:
            message = f"cannot be read: {exc.strerror}"
            raise ConfigError([Problem(file=str(file), message=message)]) from exc


def _to_json(found: Comparison) -> dict[str, object]:
    return {
        "equal": dict(found.equal),
        "different": [
            {
                "api": difference.api,
                "envoy": difference.envoy,
                "mixer": difference.mixer,
                "requests": count,
                "examples": found.examples[difference],
            }
            for difference, count in found.different.most_common()
        ],
        "only": dict(found.only),
        "unusable_lines": found.unusable,
    }


def _print(found: Comparison) -> None:
    # In a file or pipe nothing is cut.
    console = Console(width=None if sys.stdout.isatty() else 200)
    equal, different = found.equal.total(), found.different.total()
    console.print(
        f"{equal + different} requests came to both doors; {different} were answered differently",
        highlight=False,
    )
    if different:
        table = Table("API", "Envoy's door", "Mixer's door", "requests", "for example")
        for difference, count in found.different.most_common():
            cells = (
                difference.api,
                difference.envoy,
                difference.mixer,
                str(count),
                "\n".join(map(repr, found.examples[difference])),
            )
            table.add_row(*[Text(write_plain_lines(cell)) for cell in cells])
        console.print(table)
    for door, count in sorted(found.only.items()):
        console.print(f"{count} came to {door} only", highlight=False)
    if found.unusable:
        console.print(
            f"{found.unusable} lines are no decision, or name no request", highlight=False
        )
