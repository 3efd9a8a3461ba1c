"""A cache of values by digest that drops the least recently used one when it is full."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class RecentlyUsed(Generic[V]):
    """At most `size` values, each under a digest. No secret is ever a key."""

    __slots__ = ("_size", "_values")

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[bytes, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def find(self, digest: bytes) -> V | None:
        """The value, which then counts as just used; None when it is not there."""
        value = self._values.get(digest)
        if value is not None:
            self._values.move_to_end(digest)
        return value

    def keep(self, digest: bytes, value: V) -> None:
        """Stores a value; replaces the one under the same digest."""
        self._values[digest] = value
        self._values.move_to_end(digest)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        """Removes a value, if it is there."""
        self._values.pop(digest, None)
