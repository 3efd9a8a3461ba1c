"""Reads JSON that a stranger wrote: tokens, key sets, answers of token services.

Stricter than `json.loads` where two readers could disagree, or where a value could fail far
from here: names that stand twice, NaN and Infinity, text that is not UTF-8, strings with half of a
surrogate pair, and whole numbers of more than 512 digits, which take long to read, are refused.
Nesting that is too deep is refused and not raised.
"""

from __future__ import annotations

import json
from typing import Any, Final

_MOST_DIGITS: Final = 512


def read_json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that the bytes hold.

    Raises:
        ValueError: it is not one, or not a safe one. The text never quotes the input.
    """
    value = _read(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object that can be read safely")  # noqa: TRY004  # a wrong value, read from outside
    return value


def _read(raw: bytes) -> Any:
    """The value, or None for what is refused.

    Nothing is raised from in here: a decoding error carries the whole input along, and that
    may be a token.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_read_members,
            parse_constant=_refuse_constant,
            parse_int=_read_integer,
        )
        if "\\u" in text:
            # A lone surrogate reads well and fails when somebody writes it to a header or a log.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return value


def _read_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _read_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has more than {_MOST_DIGITS} digits")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
