"""Applications, which use APIs."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.model.limits import Tier


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Application:
    """A consumer of APIs. `tier` limits all that it does, on whatever API."""

    name: str
    owner: str = ""
    tier: Tier | None = None
