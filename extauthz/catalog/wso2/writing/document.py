"""Writes all rows as one catalog document, in an order that depends on the rows alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from extauthz.catalog.wso2.rows import Rows
from extauthz.catalog.wso2.writing.apis import write_apis
from extauthz.catalog.wso2.writing.blocks import write_deny_rules, write_revoked
from extauthz.catalog.wso2.writing.consumers import write_applications, write_subscriptions
from extauthz.catalog.wso2.writing.issuers import Resident, write_issuers
from extauthz.catalog.wso2.writing.limits import Tiers
from extauthz.catalog.wso2.writing.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A catalog document.

    Attributes:
        tree: the document.
        files: texts of the files that it names, by name.
        left_out: what is not in it, one line each, some of them.
        left_out_count: of all.
    """

    tree: dict[str, Any]
    files: dict[str, str]
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0

    def write(self) -> bytes:
        """The document as JSON, an entry a line, so that messages about it can name a line."""
        parts = []
        for name, value in self.tree.items():
            if isinstance(value, dict):
                entries = [f"{json.dumps(key)}: {_dump(entry)}" for key, entry in value.items()]
                begin, end = "{}"
            else:
                entries, (begin, end) = [_dump(entry) for entry in value], "[]"
            body = ",\n".join(entries)
            parts.append(f"{json.dumps(name)}: {begin}\n{body}\n{end}")
        return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


_dump = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": ")).encode


def write_document(rows: Rows, resident: Resident | None = None) -> Written:
    """Writes the rows. It raises nothing, whatever they hold."""
    report = Report(lines=list(rows.refused[:50]), count=len(rows.refused))
    tiers = Tiers(rows, report)
    issuers = write_issuers(rows, resident, report)
    takes_opaque = any("introspection" in document for document in issuers.documents)
    apis = write_apis(rows, tiers, report, takes_opaque=takes_opaque)
    applications = write_applications(rows, tiers, issuers.by_key_manager, report)
    subscriptions = write_subscriptions(rows, apis, applications, tiers, report)
    names = {document["name"] for document in applications.documents.values()}
    return Written(
        tree={
            "apis": list(apis.values()),
            "applications": list(applications.documents.values()),
            "subscriptions": subscriptions,
            "tiers": tiers.documents,
            "issuers": issuers.documents,
            "deny": write_deny_rules(rows, apis, names, report),
            "revoked_tokens": write_revoked(rows, report),
        },
        files=issuers.files,
        left_out=tuple(report.lines),
        left_out_count=report.count,
    )
