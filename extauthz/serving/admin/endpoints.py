"""What an endpoint of the API is: a row of the one table that routes and the OpenAPI document have.

Each parameter of a query is read by its `Parameter`; one that the endpoint does not have, or that
stands twice, is refused. Bodies are JSON, read into a model.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel

from extauthz.model.limits import US_PER_S
from extauthz.serving.admin.access import Caller
from extauthz.serving.admin.errors import ApiError

MAX_TEXT: Final = 1_024
"""Characters of a parameter that is text."""

_NAME_IN_PATH: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of the query.

    Attributes:
        meaning: a sentence for the OpenAPI document.
        schema: JSON Schema of the value.
        read: the value of a text; a ValueError says what it must be.
        default: the value where the query has none.
    """

    name: str
    meaning: str
    schema: Mapping[str, Any]
    read: Callable[[str], Any]
    default: Any = None


def text_parameter(name: str, meaning: str, choices: Sequence[str] = ()) -> Parameter:
    """A parameter that is text: any, or one of the choices."""

    def read(text: str) -> str:
        if choices and text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        if not 0 < len(text) <= MAX_TEXT:
            raise ValueError(f"must have 1 to {MAX_TEXT} characters")
        return text

    schema: dict[str, Any] = {"type": "string"}
    schema |= {"enum": list(choices)} if choices else {"minLength": 1, "maxLength": MAX_TEXT}
    return Parameter(name=name, meaning=meaning, schema=schema, read=read)


def number_parameter(name: str, meaning: str, *, at_most: int, default: int) -> Parameter:
    """A whole number from 1 on."""

    def read(text: str) -> int:
        # As many digits as the largest one: more are never read as a number.
        if text.isascii() and text.isdecimal() and len(text) <= len(str(at_most)):
            number = int(text)
            if 1 <= number <= at_most:
                return number
        raise ValueError(f"must be a number from 1 to {at_most}")

    schema = {"type": "integer", "minimum": 1, "maximum": at_most, "default": default}
    return Parameter(name=name, meaning=meaning, schema=schema, read=read, default=default)


def time_parameter(name: str, meaning: str) -> Parameter:
    """A time of RFC 3339; its value is in microseconds since the Unix epoch."""

    def read(text: str) -> int:
        with suppress(ValueError, OverflowError):
            time = datetime.fromisoformat(text)
            if time.tzinfo is not None:
                return int(time.timestamp() * US_PER_S)
        raise ValueError("must be a time with its zone, like 2026-01-31T09:30:00Z")

    schema = {"type": "string", "format": "date-time"}
    return Parameter(name=name, meaning=meaning, schema=schema, read=read)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """A request of an endpoint, read and checked.

    Attributes:
        query: every parameter of the endpoint, with its default where it was left out.
        path: the values of the names in the endpoint's path.
        body: what was read into the endpoint's model; None when it has none.
        wants_events: whether the caller accepts server-sent events; only for an endpoint that has
            them.
    """

    query: Mapping[str, Any]
    path: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    caller: Caller
    wants_events: bool = False


@dataclass(frozen=True, slots=True)
class WrittenJson:
    """An answer that is JSON already."""

    text: str


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer of server-sent events.

    `pieces` are those of `extauthz.serving.admin.streams`. An empty piece has nothing to say; it
    must come every few seconds at least, as the end of the connection is noticed by it.
    """

    pieces: AsyncGenerator[bytes, None]


Answer: TypeAlias = object
"""`WrittenJson`, `EventStream`, or a value that is written as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method of a path.

    Attributes:
        path: below ``/api``, with names in braces for whole segments.
        summary: a sentence for the OpenAPI document.
        answers: the type of the answer, which `pydantic.TypeAdapter` knows; None for no content.
        body: the model of the body, of a POST.
        has_events: whether it also answers with server-sent events.
        needs_known_caller: whether a token or a client certificate is demanded even where
            everybody on this machine may use the rest.
        status: of a good answer.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    answers: Any
    handle: Callable[[ApiCall], Awaitable[Answer]]
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    has_events: bool = False
    needs_known_caller: bool = False
    status: int = 200

    @property
    def names_in_path(self) -> tuple[str, ...]:
        """The names in braces."""
        return tuple(_NAME_IN_PATH.findall(self.path))

    def read_query(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The values of the query.

        Raises:
            ApiError: 400; it names the parameter.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        values: dict[str, Any] = {name: it.default for name, it in known.items()}
        seen: set[str] = set()
        for name, text in pairs:
            parameter = known.get(name)
            if parameter is None:
                has = ", ".join(known) or "none"
                message = f"there is no such parameter here; this path has {has}"
                raise ApiError(400, "unknown_parameter", message)
            if name in seen:
                raise ApiError(400, "repeated_parameter", f"{name} stands there twice")
            seen.add(name)
            try:
                values[name] = parameter.read(text)
            except ValueError as exc:
                raise ApiError(400, "bad_parameter", f"{name} {exc}") from None
        return values
