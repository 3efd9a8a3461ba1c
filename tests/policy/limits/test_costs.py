"""What a request costs when its resource lets it say so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import MalformedRequest
from extauthz.model.apis import CostSource
from extauthz.model.identity import Place, PlaceKind
from extauthz.model.limits import QuotaUnit
from extauthz.policy.limits.costs import read_cost
from tests.builders import a_limit, a_request, a_resource, a_tier, an_api
from tests.policy.limits.plans import a_planner, custom, plan

BY_HEADER = CostSource(place=Place(PlaceKind.HEADER, "x-cost"), maximum=50)
BY_QUERY = CostSource(place=Place(PlaceKind.QUERY, "n"), maximum=50)


@pytest.mark.parametrize(
    ("values", "cost"),
    [
        (["1"], 1),
        (["50"], 50),
        (["51"], 50),
        (["9" * 18], 50),
        (["007"], 7),
        ([], 3),
        ([""], 3),
        (["0"], 3),
        (["-5"], 3),
        (["+5"], 3),
        (["5.0"], 3),
        (["1e9"], 3),
        (["0x10"], 3),
        (["5_0"], 3),
        (["\u0665"], 3),
        (["\u00b2"], 3),
        (["9" * 19], 3),
        (["9" * 10_000], 3),
        (["1", "20"], 20),
        (["20", "1"], 20),
        (["many", "4"], 4),
        (["1"] * 15 + ["9"], 9),
    ],
)
def test_reads_the_cost_and_bounds_it(values: list[str], cost: int) -> None:
    headers = [("X-Cost", value) for value in values]
    assert read_cost(BY_HEADER, a_request(headers=headers), 3) == cost
    query = "&".join(f"n={value.replace('+', '%2B')}" for value in values)
    assert read_cost(BY_QUERY, a_request(f"/ip?{query}"), 3) == cost


def test_refuses_more_costs_than_it_reads() -> None:
    sixteen, seventeen = ["n=1"] * 16, ["n=1"] * 17
    assert read_cost(BY_QUERY, a_request(f"/ip?{'&'.join(sixteen)}"), 3) == 1
    with pytest.raises(MalformedRequest):
        read_cost(BY_QUERY, a_request(f"/ip?{'&'.join(seventeen)}"), 3)
    with pytest.raises(MalformedRequest):
        read_cost(BY_HEADER, a_request(headers={"x-cost": "1," * 16 + "9"}), 3)


def test_takes_the_largest_of_a_list_in_one_header() -> None:
    assert read_cost(BY_HEADER, a_request(headers={"x-cost": "2, 9 ,4"}), 3) == 9


@given(st.text(), st.integers(0, 60))
def test_whatever_a_request_says_costs_one_to_the_maximum_or_the_default(
    text: str, default: int
) -> None:
    cost = read_cost(BY_HEADER, a_request(headers={"x-cost": text}), default)
    assert cost == default or 1 <= cost <= BY_HEADER.maximum


@pytest.mark.parametrize(
    ("said", "asked", "cost"), [("7", None, 7), (None, None, 3), ("7", 2, 2), ("7", 0, 0)]
)
def test_every_limit_is_charged_what_the_request_says(
    said: str | None, asked: int | None, cost: int
) -> None:
    planner = a_planner(custom_limits=[custom("all")])
    size = a_limit(10, quota_unit=QuotaUnit.BYTES)
    api = an_api(a_resource(cost=3, cost_from=BY_HEADER), tier=a_tier("A", a_limit(), size))
    headers = {"x-cost": said} if said else {}
    plan(planner, api=api, headers={"x-cost": "49"})  # what another request said stays with it
    planned = plan(planner, api=api, headers=headers, cost=asked)
    assert [limit.charge.cost for limit in planned] == [cost, 0, cost]


def test_costs_that_clients_choose_take_no_room_among_the_remembered_plans() -> None:
    planner = a_planner()
    api = an_api(a_resource(cost_from=BY_HEADER), tier=a_tier("A", a_limit()))
    for cost in range(1, 40):
        plan(planner, api=api, headers={"x-cost": str(cost)})
    assert len(planner._plans) == 1
