"""Lets time pass. A load is offered at its pace; a test never needs this, and must not sleep."""

from __future__ import annotations

import asyncio


async def let_pass(seconds: float) -> None:
    """Returns after so long; at once when it is not above 0."""
    if seconds <= 0:
        return
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    timer = loop.call_later(seconds, passed.set_result, None)
    try:
        await passed
    finally:
        timer.cancel()
