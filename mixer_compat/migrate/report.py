"""Collects the findings of a migration, each with its file and line, and writes the report.

Values of the objects are not shown, only names of fields and attributes: a value may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from extauthz.documents.lines import NodePath, find_lines, write_path
from extauthz.documents.values import SourceText
from extauthz.plain_text import write_plain

MAX_FINDINGS: Final = 20_000
"""The most findings that are shown; further ones are only counted."""


class Outcome(Enum):
    """The outcome of a field or object. The value is the word in the JSON report."""

    UNREADABLE = "unreadable"
    LOST = "not_carried"
    STRICTER = "stricter"
    CHECK = "check"
    OBSOLETE = "needless"
    IGNORED = "ignored"


NEEDS_WORK: Final = frozenset({Outcome.UNREADABLE, Outcome.LOST, Outcome.STRICTER})
"""The outcomes that make a migration incomplete."""

_HEADINGS: Final = {
    Outcome.UNREADABLE: ("Could not be read", "Nothing of these was used."),
    Outcome.LOST: ("Not carried over", "The new configuration does not do this."),
    Outcome.STRICTER: (
        "Stricter than before",
        (
"This has no exact counterpart. The new configuration refuses, requires or "
        "counts more than before."
),
    ),
    Outcome.CHECK: ("Carried over: please check", "This depends on something that is not in the objects."),
    Outcome.OBSOLETE: ("Not needed without Mixer", "This only told Mixer how to work."),
    Outcome.IGNORED: ("Ignored", "These are not objects of Mixer."),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One YAML or JSON document of a file, and the line on which it begins."""

    source: SourceText
    first_line: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One entry of the report.

    Attributes:
        what: the object, like ``handler istio-system/quotahandler``; may be empty.
        field: its field, like ``spec.params.quotas[0].name``; may be empty.
        line: counted from 1; 0 when it is not known.
    """

    outcome: Outcome
    file: str
    line: int
    what: str
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.what, self.field, self.message) if part)


@dataclass(frozen=True, slots=True)
class _Entry:
    outcome: Outcome
    document: Document | None
    path: NodePath
    file: str
    line: int
    what: str
    message: str
    below: int
    """The number of parts of the path that lead to the object itself: 2 for an item of a List."""


class Report:
    """Collects findings; their lines are looked up once, at the end."""

    def __init__(self) -> None:
        self._entries: dict[_Entry, None] = {}
        self.unlisted = 0
        self.made_by_cluster = 0
        """The number of fields like uid and resourceVersion, which are no part of a policy."""

    def add(
        self,
        outcome: Outcome,
        document: Document,
        path: NodePath,
        message: str,
        *,
        what: str = "",
        below: int = 0,
    ) -> None:
        """Adds a finding about a path of a document.

        Args:
            outcome: what happened to the field.
            document: the document.
            path: the keys and indexes that lead to the field.
            message: a sentence for the reader, without any value of the object.
            what: the object.
            below: the number of parts of `path` that lead to the object itself.
        """
        self._put(_Entry(outcome, document, path, document.source.file, 0, what, message, below))

    def add_at(self, outcome: Outcome, file: str, line: int, message: str) -> None:
        """Adds a finding with a known line; 0 for a whole file."""
        self._put(_Entry(outcome, None, (), file, line, "", message, 0))

    def _put(self, entry: _Entry) -> None:
        if len(self._entries) < MAX_FINDINGS:
            self._entries[entry] = None
        elif entry not in self._entries:
            self.unlisted += 1

    def findings(self) -> list[Finding]:
        """All findings, the most serious first, then in the order of files and lines."""
        by_document: dict[Document, list[_Entry]] = {}
        found: list[Finding] = []
        for entry in self._entries:
            if entry.document is None:
                found.append(_finding(entry, entry.line))
            else:
                by_document.setdefault(entry.document, []).append(entry)
        for document, entries in by_document.items():
            source = document.source
            lines = find_lines(
                source.text, [entry.path for entry in entries], is_json=source.is_json
            )
            found += [
                _finding(entry, line + document.first_line - 1)
                for entry, line in zip(entries, lines, strict=True)
            ]
        order = list(Outcome)
        found.sort(key=lambda one: (order.index(one.outcome), one.file, one.line, one.field))
        return found


def _finding(entry: _Entry, line: int) -> Finding:
    return Finding(
        outcome=entry.outcome,
        file=entry.file,
        line=line,
        what=entry.what,
        field=write_path(entry.path[entry.below :]),
        message=entry.message,
    )


def is_complete(findings: Iterable[Finding]) -> bool:
    """Whether everything was converted without a loss and without becoming stricter."""
    return not any(finding.outcome in NEEDS_WORK for finding in findings)


def write_json_report(findings: Sequence[Finding], report: Report, written: Sequence[str]) -> str:
    """Writes the report as one JSON object.

    Args:
        findings: those of `report`, in their order.
        report: has further counts.
        written: the names of the files of the migration.
    """
    return json.dumps(
        {
            "complete": is_complete(findings) and not report.unlisted,
            "written": list(written),
            "findings": [
                {
                    "outcome": finding.outcome.value,
                    "file": finding.file,
                    "line": finding.line,
                    "object": finding.what,
                    "field": finding.field,
                    "message": finding.message,
                }
                for finding in findings
            ],
            "findings_not_listed": report.unlisted,
            "fields_made_by_the_cluster": report.made_by_cluster,
        },
        indent=2,
    )


def write_markdown(
    findings: Sequence[Finding], report: Report, written: Sequence[str], summary: str
) -> str:
    """Writes the report for readers, REPORT.md.

    Args:
        findings: those of `report`, in their order.
        report: has further counts.
        written: the names of the files of the migration.
        summary: the first paragraph.
    """
    counts = {
        outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome
    }
    lines = ["# Report of the migration from Mixer", "", summary, ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {_HEADINGS[outcome][0]} | {count} |" for outcome, count in counts.items()]
    lines += ["", "Written: " + ", ".join(f"`{name}`" for name in written), ""]
    for outcome, count in counts.items():
        if not count:
            continue
        heading, explanation = _HEADINGS[outcome]
        lines += [f"## {heading}", "", explanation, ""]
        lines += [
            f"- {_escape(str(finding))}" for finding in findings if finding.outcome is outcome
        ]
        lines.append("")
    if report.unlisted:
        lines += [f"{report.unlisted} further findings are not listed.", ""]
    if report.made_by_cluster:
        lines += [
            f"{report.made_by_cluster} fields that the cluster itself had added (uid, "
            "resourceVersion, managedFields, status and others) are no part of a policy "
            "and were left out.",
            "",
        ]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Escapes a text for Markdown, and control characters for terminals."""
    printable = write_plain(text)
    return printable.replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
