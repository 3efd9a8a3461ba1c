"""The page on rate limits is true: its example of conditions does what its tables say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.catalog.documents.build import build_catalog, read_catalog_file
from extauthz.documents.values import SourceText
from extauthz.model.catalog import Catalog
from tests.policy.limits.plans import CALLER, a_planner, plan

TEXT = (Path(__file__).parents[3] / "docs" / "explanation" / "rate-limits.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| from ([0-9.]+), `([^`]+)`(.*?) \| (.+) \|$", TEXT, re.MULTILINE)


@pytest.fixture(name="catalog", scope="module")
def read_example() -> Catalog:
    (example,) = EXAMPLES
    return build_catalog([read_catalog_file(SourceText(file="x.yaml", text=example), Path())])


@pytest.mark.parametrize(("client", "agent", "claim", "limits"), ROWS)
def test_a_request_meets_the_limits_that_the_table_says(
    client: str, agent: str, claim: str, limits: str, catalog: Catalog
) -> None:
    claims = {"plan": "gold"} if "`plan: gold`" in claim else {}
    planned = plan(
        a_planner(),
        client=client,
        headers={"user-agent": agent},
        identity=replace(CALLER, claims=claims),
        subscription_tier=catalog.tiers["OrdersPolicy"],
    )
    told = re.findall(r"`([^`]+)`, ([0-9]+)", limits)
    assert [(limit.name, str(limit.charge.limit)) for limit in planned] == told


def test_the_table_has_requests() -> None:
    assert len(ROWS) == 5
