"""Lets go of a catalog that was replaced, without holding up the event loop.

To free a million objects at once takes half a second in which nothing else happens. So its
tables outlive it, and are emptied a little at a time. This begins when the catalog itself is
gone: whoever still decides by it holds it, and sees all of it.
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
"""Steps until the clock is looked at. The longest are the APIs with their resources."""


def let_go(catalog: Catalog) -> Coroutine[Any, Any, None]:
    """Keeps only the tables of a catalog; awaited, empties them once nobody has it any more.

    Called for itself at once: a coroutine would keep the catalog until it begins.
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
