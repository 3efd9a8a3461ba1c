"""Collects what could not be carried over, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field

from extauthz.catalog.wso2.rows import MAX_TOLD


@dataclass(slots=True)
class Report:
    """What was left out of a catalog.

    Attributes:
        lines: each says which row, why, and what that means; `MAX_TOLD` at most.
        count: of all.
    """

    lines: list[str] = field(default_factory=list)
    count: int = 0

    def leave_out(self, what: str, why: str) -> None:
        """Notes a row that is not in the catalog."""
        self.count += 1
        if len(self.lines) < MAX_TOLD:
            self.lines.append(f"{what} {why}")
