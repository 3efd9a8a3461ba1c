"""Makes what answers an operator's questions about a service."""

from __future__ import annotations

from extauthz.app.answers import read_answer_style
from extauthz.app.core import Core
from extauthz.inspection.explanation import Explainer
from extauthz.settings.tree import Settings


def make_explainer(core: Core, settings: Settings) -> Explainer:
    """What explains the decisions of a service.

    Raises:
        ConfigError: as for `read_answer_style`.
    """
    return Explainer(
        behind_proxies=core.make_pipeline(),
        direct=core.make_pipeline(trusted_hops=0),
        catalog=lambda: core.refresher.catalog,
        style=read_answer_style(settings.responses, core.clock),
        places=core.places,
        clock=core.clock,
    )
