"""Finds the processes that a process has started, and tells which of them still run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_of(process_id: int) -> set[int]:
    """The processes that the process has started, and that have not ended."""
    children: set[int] = set()
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{process_id}/task").iterdir():
            children |= {int(child) for child in (task / "children").read_text().split()}
    return {child for child in children if is_running(child)}


def is_running(process_id: int) -> bool:
    """Whether it is there and is no zombie that only waits to be collected."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}
