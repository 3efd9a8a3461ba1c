"""Reads untrusted JSON: tokens, key sets, answers of token services.

It is stricter than `json.loads` where two readers could disagree, or where a value could cause an
error later on. Refused are duplicate names, NaN and Infinity, text that is not UTF-8, strings with
a lone surrogate, whole numbers of more than 512 digits, which take long to read, and nesting that
is too deep.
"""

from __future__ import annotations

import json
from typing import Any, Final

_MOST_DIGITS: Final = 512


def read_json_object(raw: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: the bytes are no JSON object, or are refused. The text never quotes the input.
    """
    value = _read(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object that can be read safely")  # noqa: TRY004  # a wrong value, read from outside
    return value


def _read(raw: bytes) -> Any:
    """The value, or None when it is refused.

    Raises nothing: a decoding error would hold the whole input, which may be a token.
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
            # A lone surrogate can be read, and fails when it is written to a header or a log.
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
