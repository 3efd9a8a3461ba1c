"""``extauthz migrate``: turns Mixer-era objects into a catalog, settings and Istio policies.

What could not be carried over is in the report: REPORT.md in the folder, and with ``--json`` on
standard output. Values of the objects are not shown.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from extauthz.documents.messages import show_name
from extauthz.plain_text import write_plain
from mixer_compat.migrate.convert import convert
from mixer_compat.migrate.reading.objects import Progress as Told
from mixer_compat.migrate.reading.objects import read_objects
from mixer_compat.migrate.report import (
    NEEDS_WORK,
    Finding,
    Outcome,
    Report,
    is_complete,
    write_json_report,
    write_markdown,
)
from mixer_compat.migrate.writing.output import OutputError, check_output, write_folder

REPORT: Final = "REPORT.md"
_MANY_FILES: Final = 50
_SHOWN: Final = 20
_WORDS: Final = {
    Outcome.UNREADABLE: "could not be read",
    Outcome.LOST: "not carried over",
    Outcome.STRICTER: "stricter than before",
    Outcome.CHECK: "to check",
    Outcome.OBSOLETE: "not needed without Mixer",
    Outcome.IGNORED: "ignored",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="DIR|FILE",
        help="objects as YAML or JSON, like the output of kubectl get -o yaml",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite the files of an earlier run in that folder"
    )
    parser.add_argument(
        "--json", action="store_true", help="also print the report as one JSON object"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when something could not be carried over as it was, 2 for wrong usage."""
    out: Path = arguments.out
    missing = [path for path in arguments.paths if not path.exists()]
    for path in missing:
        print(f"extauthz: {show_name(str(path))} does not exist", file=sys.stderr)
    wrong = check_output(out, force=arguments.force)
    if wrong is not None:
        print(f"extauthz: {show_name(str(out))} {wrong}", file=sys.stderr)
    if missing or wrong is not None:
        return 2
    report = Report()
    with _show_progress() as told:
        objects = read_objects(arguments.paths, report, told, but=out)
    migration = convert(objects, report)
    findings = report.findings()
    names = [*migration.files, REPORT]
    summary = _summary(len(objects), findings)
    files = {
        **migration.files,
        REPORT: write_markdown(findings, report, names, summary),
    }
    try:
        write_folder(out, files)
    except OutputError as error:
        print(f"extauthz: {write_plain(str(error))}", file=sys.stderr)
        return 1
    if arguments.json:
        print(write_json_report(findings, report, names))
    else:
        _print(findings, summary, out)
    return 0 if is_complete(findings) and not report.unlisted and objects else 1


def _summary(objects: int, findings: list[Finding]) -> str:
    counts = Counter(finding.outcome for finding in findings)
    told = [f"{counts[outcome]} {word}" for outcome, word in _WORDS.items() if counts[outcome]]
    read = f"{objects} {'object' if objects == 1 else 'objects'} of Mixer read"
    return f"{read}; {', '.join(told)}." if told else f"{read}, and all carried over."


def _print(findings: list[Finding], summary: str, out: Path) -> None:
    pressing = [finding for finding in findings if finding.outcome in NEEDS_WORK]
    for finding in pressing[:_SHOWN]:
        print(f"{_WORDS[finding.outcome]}: {write_plain(str(finding))}")
    if len(pressing) > _SHOWN:
        print(f"… and {len(pressing) - _SHOWN} more")
    print(summary)
    print(f"Read {write_plain(str(out / REPORT))} before you use what was written.")


@contextmanager
def _show_progress() -> Iterator[Told]:
    """A bar on standard error, when that is a terminal and there are many files."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None, visible=False)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total >= _MANY_FILES)

        yield tell
