"""Controls Python's garbage collector of cycles in a process that decides.

Reference counts free nearly everything; a decision leaves no cycle (measured) and does not start
the collector. A new catalog starts it, with its many objects that stay. From time to time it then
traverses all objects, which with a large catalog takes a second without decisions. Therefore:

- The current catalog, and all that was imported, is frozen (`keep_for_good`): no collection
  traverses it again. It is still freed when its last reference goes.
- While a catalog is taken over, no full collection starts (`without_full_collections`): each would
  traverse the part that is there already.

Python's own thresholds are not changed. Higher ones save nothing, and make each collection of
young objects longer: with 5,000 instead of 700 it took 30 ms while a catalog was taken over,
instead of 3.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NEVER: Final = 1 << 30


def keep_for_good() -> None:
    """Freezes all objects that exist: no collection traverses them again.

    Cycles that are garbage at this moment are never found. They are few, as young objects are
    collected all the time, and a new catalog is rare.
    """
    gc.freeze()


def keep_no_longer() -> None:
    """Undoes `keep_for_good`."""
    gc.unfreeze()


class _Holds:
    """How many hold full collections back, and the threshold that the first one found."""

    def __init__(self) -> None:
        self.count = 0
        self.threshold = 0


_holds: Final = _Holds()


@contextmanager
def without_full_collections() -> Iterator[None]:
    """Prevents full collections during the block. Blocks may overlap."""
    if _holds.count == 0:
        young, middle, _holds.threshold = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)
    _holds.count += 1
    try:
        yield
    finally:
        _holds.count -= 1
        if _holds.count == 0:
            young, middle, _ = gc.get_threshold()
            gc.set_threshold(young, middle, _holds.threshold)
