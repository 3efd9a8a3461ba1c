"""The rows of the tables in docs/reference/settings.md, as the schema has them.

``python -m tests.settings.settings_reference`` prints them, to paste.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from extauthz.settings.tree import settings_schema


def list_rows() -> Iterator[tuple[str, str, str, str]]:
    """Key, default, variable, meaning: of every key that holds a value."""
    schema = settings_schema()
    for name, part in schema["properties"].items():
        yield from _rows_of(name, part, schema)


def write_row(row: tuple[str, str, str, str]) -> str:
    """A row as it stands in the page."""
    key, default, variable, meaning = row
    return f"| `{key}` | {default} | `{variable}` | {meaning} |"


def _rows_of(
    key: str, part: dict[str, Any], schema: dict[str, Any]
) -> Iterator[tuple[str, str, str, str]]:
    section = _section(part, schema)
    if section is not None:
        for name, below in section["properties"].items():
            required = name in section.get("required", ())
            yield from _rows_of(f"{key}.{name}", {**below, "required": required}, schema)
        return
    default = "required" if part.get("required") else ""
    if part.get("default") not in (None, ""):
        value = part["default"]
        shown = value if isinstance(value, str) else json.dumps(value).replace('"', "")
        default = f"`{shown}`"
    variable = "EXTAUTHZ_" + key.upper().replace(".", "__")
    yield key, default, variable, " ".join(part["description"].split())


def _section(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """What the part refers to, when that has keys of its own."""
    for choice in (part, *part.get("anyOf", ())):
        found: dict[str, Any] = schema["$defs"].get(choice.get("$ref", "").rpartition("/")[2], {})
        if "properties" in found:
            return found
    return None


if __name__ == "__main__":
    print("\n".join(map(write_row, list_rows())))  # noqa: T201  (this is its output)
