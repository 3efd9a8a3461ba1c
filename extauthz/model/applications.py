"""Applications, which use APIs."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.model.limits import Tier


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Application:
    """A consumer of APIs. `tier` limits all that it does, on whatever API.

    Attributes:
        name: identifies it; no other application has it.
        display_name: the name that the upstream is told; empty for `name`.
        uuid, number: its ids in WSO2 API Manager; empty and 0 when it has none.
    """

    name: str
    owner: str = ""
    tier: Tier | None = None
    display_name: str = ""
    uuid: str = ""
    number: int = 0

    @property
    def shown_name(self) -> str:
        """The name for those who know applications by their plain names, like the upstream."""
        return self.display_name or self.name
