"""Makes sure that a written document is a valid catalog, by leaving out what is not.

The writer knows what a catalog takes, and this finds what it does not know of: an entry with a
problem is left out as a whole, and so is what refers to it. A throttling policy or an issuer that is
left out takes with it whatever needs it, so that nothing becomes unlimited or open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from extauthz.catalog.documents.build import build_catalog, read_catalog_file
from extauthz.catalog.wso2.rows import MAX_TOLD
from extauthz.catalog.wso2.writing.document import Written
from extauthz.documents.lines import write_path
from extauthz.documents.values import SourceText
from extauthz.errors import CatalogError, ConfigError, Problem

MAX_PASSES: Final = 20
_LIST: Final = re.compile(r"(\w+)\[(\d+)\]")


def make_valid(written: Written, file: Path) -> Written:
    """The document without entries that no catalog takes.

    Args:
        file: where it will stand, beside the files that it names, which must be there.

    Raises:
        CatalogError: what is wrong with it cannot be left out.
    """
    problems = _find_problems(written, file)
    for _ in range(MAX_PASSES):
        if not problems:
            return written
        written = _leave_out(written, problems)
        problems = _find_problems(written, file)
    raise CatalogError(f"the rows make no valid catalog: {problems[0].path}: {problems[0].message}")


def _find_problems(written: Written, file: Path) -> list[Problem]:
    """What is wrong with all but the subscriptions.

    These are many, and say nothing that the writer has not taken from the APIs, applications and
    tiers; `_drop_dangling` keeps that true.
    """
    source = SourceText(file=str(file), text="{}")
    try:
        document = read_catalog_file(source, file.parent, {**written.tree, "subscriptions": []})
        build_catalog([document])
    except ConfigError as exc:
        return list(exc.problems)
    return []


def _drop_dangling(tree: dict[str, Any]) -> int:
    """Leaves out the subscriptions whose API, application or tier was left out; says how many."""
    apis = {(api["name"], api["version"]) for api in tree["apis"]}
    applications = {application["name"] for application in tree["applications"]}
    tiers = {*tree["tiers"], None}
    before = tree["subscriptions"]
    tree["subscriptions"] = [
        it
        for it in before
        if (it["api"], it["version"]) in apis
        and it["application"] in applications
        and it.get("tier") in tiers
    ]
    return len(before) - len(tree["subscriptions"])


def _leave_out(written: Written, problems: Iterable[Problem]) -> Written:
    """The document without the entries that have these problems."""
    tree: dict[str, Any] = {
        name: dict(part) if isinstance(part, dict) else list(part)
        for name, part in written.tree.items()
    }
    tiers = {write_path(("tiers", name)): name for name in tree["tiers"]}
    wrong: dict[tuple[str, Any], Problem] = {}
    for problem in problems:
        found = _LIST.match(problem.path)
        if found is not None and found[1] in tree:
            wrong.setdefault((found[1], int(found[2])), problem)
            continue
        tier = next((name for path, name in tiers.items() if problem.path.startswith(path)), None)
        if tier is None:
            raise CatalogError(f"the rows make no valid catalog: {problem.path}: {problem.message}")
        wrong.setdefault(("tiers", tier), problem)
    lines = list(written.left_out)
    for (part, key), problem in sorted(wrong.items(), key=lambda it: str(it[0]), reverse=True):
        entry = tree[part][key]
        tree[part][key] = None
        if len(lines) < MAX_TOLD:
            lines.append(f"{_name(part, key, entry)} is left out: {problem.message}")
    for part in {part for part, _ in wrong}:
        kept = tree[part]
        tree[part] = (
            {name: entry for name, entry in kept.items() if entry is not None}
            if isinstance(kept, dict)
            else [entry for entry in kept if entry is not None]
        )
    dangling = _drop_dangling(tree)
    if dangling and len(lines) < MAX_TOLD:
        lines.append(f"{dangling} subscriptions are left out with what they refer to")
    return replace(
        written,
        tree=tree,
        left_out=tuple(lines),
        left_out_count=written.left_out_count + len(wrong) + dangling,
    )


def _name(part: str, key: Any, entry: Any) -> str:
    if isinstance(entry, dict):
        named = entry.get("name") or entry.get("issuer") or entry.get("application") or key
        version = entry.get("version", "")
        return f"{part.removesuffix('s')} {f'{named} {version}'.strip()!r}"
    return f"{part} {key!r}"
