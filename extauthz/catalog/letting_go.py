"""Frees a catalog that was replaced, without blocking the event loop.

Freeing a million objects at once takes half a second. So the tables of a catalog are kept longer
than the catalog and emptied in small steps. This begins when the catalog itself is no longer used:
a decision that still uses it sees all of it.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final

from extauthz.model.catalog import Catalog

_SLICE_S: Final = 0.001
_LOOK: Final = 16
"""Steps between two readings of the clock. Those of APIs with their resources take longest."""


def let_go(catalog: Catalog) -> Coroutine[Any, Any, None]:
    """Keeps the tables of a catalog; the coroutine empties them once the catalog is not used.

    This is no `async` function, because a coroutine would keep its argument until it starts.
    """
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()

    def note(_: weakref.ref[Catalog]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(gone.set)

    return _empty(catalog.take_apart(), weakref.ref(catalog, note), gone)


async def _empty(steps: Iterator[None], catalog: weakref.ref[Catalog], gone: asyncio.Event) -> None:
    # The callback is called only while the reference itself is kept.
    while catalog() is not None:
        await gone.wait()
    began = time.perf_counter()
    for number, _ in enumerate(steps):
        if number % _LOOK == 0:
            took = time.perf_counter() - began
            if took > _SLICE_S:
                await asyncio.sleep(took)
                began = time.perf_counter()
