"""Makes dataclasses for values of one request: frozen for the type checker, plain at run time.

A frozen dataclass sets each field through `object.__setattr__`: a request's seventeen fields take
4 µs that way and 0.5 µs the plain way (measured), out of some 35 for a whole decision. The type
checker refuses an assignment either way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

__all__ = ["request_value"]

_T = TypeVar("_T")

if TYPE_CHECKING:
    from dataclasses import dataclass as request_value
else:

    def request_value(*, frozen: bool, **options: bool) -> Callable[[type[_T]], type[_T]]:
        """`dataclass` for values of one request. Write ``frozen=True``, for the type checker."""
        if not frozen:
            raise TypeError("a request's values are frozen; write frozen=True")
        return dataclasses.dataclass(unsafe_hash=True, **options)
