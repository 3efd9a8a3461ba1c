"""Defines what a door that is asked over HTTP gets, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """The head of a request to the door, as it came.

    Attributes:
        target: the request target as sent: a path, and a query after ``?``.
        fields: names and values of the header fields, in their order; names in any case.
    """

    method: str
    target: str
    fields: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the door."""

    status: int
    fields: Sequence[tuple[str, str]] = ()
    body: str = ""


NOT_DECIDED = Reply(503, (("cache-control", "no-store"),))
"""No decision was possible."""
