"""The refusals of the API: what a caller gets instead of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class ApiError(Exception):
    """A request of the API is not answered.

    Attributes:
        status: of HTTP.
        code: a stable word for programs.
        message: a sentence or two for people: what, and what to do. It holds nothing that was
            sent, except names of parameters.
        headers: further ones of the answer.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
