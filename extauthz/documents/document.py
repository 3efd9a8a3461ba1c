"""Reads a YAML or JSON text into checked values; every problem has file and line.

Settings and catalogs are read by the same rules:

- In YAML only null, true and false are resolved. Every other plain scalar stays a string, so
  ``version: 1.10`` is "1.10" and ``on`` is "on"; the models turn strings into numbers, and take
  nothing but true and false for a boolean.
- A duplicate key, a second document, a tag, a merge key, a top level that is no mapping, and
  aliases that expand to too many nodes are problems.
- Messages name keys and choices, never values: a value may be a secret.

Lines are looked up only when there is a problem, so a valid document does not pay for them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic import model_validator as _model_validator
from pydantic_core import ErrorDetails, core_schema

from extauthz.documents.lines import NodePath, find_lines, write_path
from extauthz.documents.messages import is_meant, say_what_is_wrong
from extauthz.documents.values import MAX_PROBLEMS, SourceText, one_problem, read_values
from extauthz.errors import ConfigError, Problem

MAX_BYTES: Final = 512 * 1024 * 1024

_Model = TypeVar("_Model", bound=BaseModel)
_UNIT_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DURATION: Final = re.compile(r"([0-9]{1,15})(us|ms|s|m|h|d)")
MAX_DURATION_US: Final = 3_660 * _UNIT_US["d"]


def read_duration_us(text: object) -> int:
    """Microseconds of ``50ms``, ``1s``, ``1m``, ``1h`` or ``1d``. Raises ValueError."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            "must be a duration: a whole number with a unit, like 50ms, 1s, 1m, 1h, 1d"
        )
    duration_us = int(found[1]) * _UNIT_US[found[2]]
    if duration_us > MAX_DURATION_US:
        raise ValueError("is longer than ten years; write a shorter duration")
    return duration_us


def write_duration(duration_us: int) -> str:
    """A duration as it is written in a document, in the largest unit that is exact."""
    if duration_us == 0:
        return "0s"
    unit = next(it for it in reversed(_UNIT_US) if duration_us % _UNIT_US[it] == 0)
    return f"{duration_us // _UNIT_US[unit]}{unit}"


Duration = Annotated[
    int,
    BeforeValidator(read_duration_us),
    WithJsonSchema(
        {"type": "string", "pattern": "^[0-9]+(us|ms|s|m|h|d)$", "examples": ["50ms", "1m"]}
    ),
]
"""Written like ``50ms``, ``1s``, ``1m``, ``1h`` or ``1d``; held as microseconds."""

PositiveDuration = Annotated[Duration, Field(gt=0)]
"""A Duration that is not zero."""


def _check_printable(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("must have no space at its ends and no control characters")
    return text


@dataclass(frozen=True, slots=True)
class Fits:
    """In `Annotated`: the text fits a regular expression.

    Attributes:
        pattern: it starts with ``^`` and ends with ``$``, for the JSON Schema.
        words: what a text must be or have, for people: "must have …".
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def _check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.words)
        return text


def printable(least: int, most: int) -> Fits:
    """ASCII characters that can be seen, so no space."""
    words = f"must have {least} to {most} printable ASCII characters, and no space"
    return Fits(f"^[!-~]{{{least},{most}}}$", words)


Line = Annotated[str, Field(max_length=1024), AfterValidator(_check_printable)]
"""One line of text, as it can be sent in a header."""
Name = Annotated[Line, Field(min_length=1)]
"""A line that names something."""


def _refuse_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004  # which pydantic would not catch
    return value


def _refuse_number(value: object) -> object:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        raise ValueError("must be a time, like 2030-01-31T12:00:00Z")
    return value


_NUMBER: Final = re.compile(r"\s*[-+]?[0-9._]*\s*")
_NOT_TAKEN: Final[Mapping[str, Callable[[object], object]]] = {
    "int": _refuse_boolean,
    "datetime": _refuse_number,  # would be seconds since 1970
}


def _without_guesses(schema: Any, *, is_top: bool = False) -> Any:
    """A model's schema that accepts no word or number as a boolean, and no boolean as a number."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_without_guesses, schema))
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind == "model" and not is_top:
        return schema  # has had its turn
    if kind == "bool":
        return {**schema, "strict": True}
    changed = {key: _without_guesses(value) for key, value in schema.items()}
    refuse = _NOT_TAKEN.get(kind) if isinstance(kind, str) else None
    if refuse is None:
        return changed
    return core_schema.no_info_before_validator_function(refuse, changed)


class StrictModel(BaseModel):
    """Base of every part of a document: frozen, no unknown keys. A null key is as if left out."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        strict: core_schema.CoreSchema = _without_guesses(handler(source), is_top=True)
        return strict

    @_model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and None in tree.values():
            return {key: value for key, value in tree.items() if value is not None}
        return tree


def write_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a document, for editors. Defaults are as users write them."""
    schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for described in part.get("properties", {}).values():
            if described.get("type") == "string" and isinstance(described.get("default"), int):
                described["default"] = write_duration(described["default"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A problem before its line is known."""

    path: NodePath
    message: str


def decode_source(file: str, content: bytes) -> SourceText:
    """A file's bytes as text. Raises ConfigError when they are not UTF-8."""
    try:
        return SourceText(file=file, text=content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise one_problem(file, line, "is not UTF-8 text; save the file as UTF-8") from exc


def read_file(path: Path, *, file: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """A file's bytes. Raises ConfigError when it is missing, unreadable or too large.

    Args:
        file: its name for problems; the path when not given.
    """
    file = file or str(path)
    try:
        # Opened without waiting: a FIFO would block the reader for ever.
        with open(path, "rb", opener=_open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise one_problem(file, 0, "is no regular file; write the text into one")
            content = stream.read(max_bytes + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise one_problem(file, 0, say_why_unreadable(exc)) from exc
    if len(content) > max_bytes:
        raise one_problem(file, 0, f"is larger than {max_bytes} bytes; split the file")
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def say_why_unreadable(exc: Exception) -> str:
    """What to tell about a file that could not be read, without its name."""
    match exc:
        case FileNotFoundError():
            return "does not exist; check the path"
        case IsADirectoryError():
            return "is a folder; name a file"
        case PermissionError():
            return "may not be read; give this process permission"
        case OSError():
            return f"cannot be read: {exc.strerror or type(exc).__name__}"
        case _:
            return "cannot be read: its name is not a file name"


def read_mapping(source: SourceText) -> dict[str, Any]:
    """The plain values of a document whose top level is a mapping.

    Raises:
        ConfigError: it cannot be parsed, or breaks the rules of this module.
    """
    tree = read_values(source)
    if isinstance(tree, dict):
        return tree
    what = "is empty" if tree is None else "must have keys and values at its top level"
    raise one_problem(source.file, 1, f"{what}; write it like `key: value`")


def check_model(model: type[_Model], tree: Mapping[str, Any], source: SourceText) -> _Model:
    """The tree as a model. Raises ConfigError with every problem of it."""
    try:
        return model.model_validate(tree)
    except ValidationError as exc:
        raise ConfigError(list_problems(exc, source, tree, model)) from exc


def list_problems(
    error: ValidationError,
    source: SourceText,
    tree: Mapping[str, Any],
    model: type[BaseModel],
    *,
    below: NodePath = (),
    shift: int = 0,
) -> tuple[Problem, ...]:
    """Every problem of a failed validation, with its line.

    Args:
        below: the path of the part that was validated, when it was not the whole tree.
        shift: added to the first position, when a later slice of a list was validated.
    """
    found = error.errors(include_url=False, include_input=False)
    for details in found if shift else ():
        first, *rest = details["loc"]
        details["loc"] = (int(first) + shift, *rest)
    found = _leave_out_misspelled(found)
    # A list with wrong items also counts as too short: only the items are reported.
    above = {details["loc"][:depth] for details in found for depth in range(len(details["loc"]))}
    faults = [
        Fault(path=path, message=message)
        for details in found
        if details["type"] != "too_short" or details["loc"] not in above
        for path, message in [say_what_is_wrong(details, below, tree, model)]
    ]
    return locate(source, faults)


def _leave_out_misspelled(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """All faults but those of keys that are missing only because they are misspelled."""
    unknown: dict[tuple[int | str, ...], list[str]] = {}
    for details in found:
        if details["type"] == "extra_forbidden":
            *above, name = details["loc"]
            unknown.setdefault(tuple(above), []).append(str(name))
    return [
        details
        for details in found
        if details["type"] != "missing"
        or not any(
            is_meant(name, str(details["loc"][-1])) for name in unknown.get(details["loc"][:-1], ())
        )
    ]


def locate(source: SourceText, faults: Iterable[Fault]) -> tuple[Problem, ...]:
    """Faults as problems: each with the line of its node, or of the nearest parent there is."""
    faults = list(dict.fromkeys(faults))
    listed, rest = faults[:MAX_PROBLEMS], len(faults) - MAX_PROBLEMS
    lines = find_lines(source.text, [fault.path for fault in listed], is_json=source.is_json)
    problems = [
        Problem(file=source.file, line=line, path=write_path(fault.path), message=fault.message)
        for fault, line in zip(listed, lines, strict=True)
    ]
    problems.sort(key=lambda problem: problem.line)
    if rest > 0:
        problems.append(Problem(file=source.file, message=f"{rest} more problems are not listed"))
    return tuple(problems)
