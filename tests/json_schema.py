"""Checks a value against a JSON Schema (draft 2020-12), as far as our own schemas use it.

A keyword that is not known here raises: a schema that says more must be checked for more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ANNOTATIONS = {
    "$schema",
    "$id",
    "$defs",
    "default",
    "description",
    "examples",
    "format",
    "title",
    "writeOnly",
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


def find_schema_faults(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, at: str = "$"
) -> Iterator[str]:
    """Where the value breaks the schema; nothing when it fits."""
    root = schema if root is None else root
    for keyword, operand in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        match keyword:
            case "$ref":
                target: Any = root
                for part in operand.removeprefix("#/").split("/"):
                    target = target[part]
                yield from find_schema_faults(value, target, root, at)
            case "anyOf":
                if all(any(find_schema_faults(value, choice, root, at)) for choice in operand):
                    yield f"{at}: fits none of the choices"
            case "type":
                is_number_by_mistake = isinstance(value, bool) and operand in ("integer", "number")
                if not isinstance(value, _TYPES[operand]) or is_number_by_mistake:
                    yield f"{at}: is no {operand}"
            case "const":
                if value != operand:
                    yield f"{at}: is not {operand}"
            case "enum":
                if value not in operand:
                    yield f"{at}: is none of {operand}"
            case "properties":
                for name in operand.keys() & (value.keys() if isinstance(value, dict) else ()):
                    yield from find_schema_faults(value[name], operand[name], root, f"{at}.{name}")
            case "required":
                if isinstance(value, dict) and not set(operand) <= value.keys():
                    yield f"{at}: lacks one of {operand}"
            case "additionalProperties":
                names = value if isinstance(value, dict) else {}
                for name in names.keys() - schema.get("properties", {}).keys():
                    if operand is False:
                        yield f"{at}: has {name}"
                    elif operand is not True:
                        yield from find_schema_faults(value[name], operand, root, f"{at}.{name}")
            case "propertyNames":
                for name in value if isinstance(value, dict) else ():
                    yield from find_schema_faults(name, operand, root, f"{at}.{name}")
            case "items":
                for number, item in enumerate(value) if isinstance(value, list) else ():
                    yield from find_schema_faults(item, operand, root, f"{at}[{number}]")
            case "minItems":
                if isinstance(value, list) and len(value) < operand:
                    yield f"{at}: has too few items"
            case "minimum":
                if isinstance(value, int) and value < operand:
                    yield f"{at}: is less than {operand}"
            case "maximum":
                if isinstance(value, int) and value > operand:
                    yield f"{at}: is more than {operand}"
            case "pattern":
                if isinstance(value, str) and not re.search(operand, value):
                    yield f"{at}: does not fit {operand}"
            case "uniqueItems":
                if isinstance(value, list) and len(value) != len(set(map(repr, value))):
                    yield f"{at}: has an item twice"
            case "maxLength":
                if isinstance(value, str) and len(value) > operand:
                    yield f"{at}: is too long"
            case "minLength":
                if isinstance(value, str) and len(value) < operand:
                    yield f"{at}: is too short"
            case _:
                raise AssertionError(f"{at}: keyword {keyword} is not known here")
