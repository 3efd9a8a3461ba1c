"""Waits for work that several callers share; it continues when one of them gives up."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from extauthz.ports import Deadline


async def is_done_by(task: asyncio.Task[Any], deadline: Deadline, *, part: float = 1.0) -> bool:
    """Whether the task ended before the deadline. Never cancels it, never raises its error.

    Args:
        part: the part of the remaining time to wait for; the rest is for the steps that follow.
    """
    if task.done():
        return True
    timeout_s = None
    if deadline.monotonic_s is not None:
        timeout_s = part * max(0.0, deadline.monotonic_s - time.monotonic())
    done, _ = await asyncio.wait((task,), timeout=timeout_s)
    return bool(done)
