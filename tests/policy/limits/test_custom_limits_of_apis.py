"""Custom limits that count the requests to some APIs only."""

from __future__ import annotations

import pytest

from extauthz.model.catalog import CustomLimit
from tests.builders import a_limit, a_tier, an_api
from tests.policy.limits.plans import a_planner, plan


@pytest.mark.parametrize(
    ("apis", "counted"),
    [((), True), (("Pets",), True), (("Dogs", "Pets"), True), (("Dogs",), False)],
)
def test_a_custom_limit_counts_only_the_apis_that_it_names(
    apis: tuple[str, ...], *, counted: bool
) -> None:
    limit = CustomLimit(name="l", template="all", tier=a_tier("T", a_limit()), apis=frozenset(apis))
    planned = plan(a_planner(custom_limits=[limit]), api=an_api(name="Pets"))
    assert bool(planned) is counted


def test_apis_that_share_a_custom_limit_share_its_count() -> None:
    limit = CustomLimit(
        name="l", template="all", tier=a_tier("T", a_limit()), apis=frozenset({"Pets", "Dogs"})
    )
    planner = a_planner(custom_limits=[limit])
    keys = {
        one.charge.key for name in ("Pets", "Dogs") for one in plan(planner, api=an_api(name=name))
    }
    assert len(keys) == 1
