"""Decisions by their labels: as Prometheus reads them, and how many there may be."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS
from extauthz.model.limits import LimitLevel
from extauthz.model.routing.routes import Route
from extauthz.serving.admin.listener import AdminListener
from extauthz.serving.admin.readiness import ReadyCheck
from extauthz.serving.listen import read_listen_address
from extauthz.telemetry.decision_counts import FOLDED, DecisionCounts
from extauthz.telemetry.metrics import CONTENT_TYPE
from extauthz.telemetry.summed_metrics import SummedMetrics
from tests.builders import a_request, a_resource, an_api

REQUEST = a_request()
APIS = 10_000
REASONS = (Reason.MISSING_CREDENTIALS, Reason.INVALID_CREDENTIALS, Reason.RATE_LIMITED)

Series = tuple[str, str, str, str, str]


def route(api: str) -> Route:
    return Route(an_api(name=api), a_resource())


def allow(api: str = "A", *, shadow: bool = False) -> Decision:
    return Allow(id="1", route=route(api), identity=ANONYMOUS, shadow=shadow)


def deny(
    api: str | None,
    reason: Reason,
    rule: str = "",
    *,
    level: LimitLevel | None = None,
    shadow: bool = False,
) -> Decision:
    denial = Denial(reason=reason, level=level, rule=rule)
    return Deny(id="1", denial=denial, route=None if api is None else route(api), shadow=shadow)


def count(*decisions: Decision, **bounds: int) -> DecisionCounts:
    counts = DecisionCounts(**bounds)
    for decision in decisions:
        counts.observe(REQUEST, decision, 10)
    return counts


def read(text: bytes) -> Mapping[Series, float]:
    """The samples by API, outcome, reason, level and rule; each must stand there once."""
    found: dict[Series, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert (family.name, family.type) == ("extauthz_decisions", "counter")
        for sample in family.samples:
            assert sample.name == "extauthz_decisions_total"
            names = ("api", "outcome", "reason", "level", "rule")
            assert sorted(sample.labels) == sorted(names)
            api, outcome, reason, level, rule = (sample.labels[name] for name in names)
            series = (api, outcome, reason, level, rule)
            assert series not in found
            found[series] = sample.value
    return found


async def test_counts_by_api_outcome_reason_level_and_rule() -> None:
    limited = deny("A", Reason.RATE_LIMITED, "per-ip", level=LimitLevel.CUSTOM)
    counts = count(
        *[allow()] * 3,
        limited,
        deny("A", Reason.BLOCKED, "rogues"),
        deny(None, Reason.API_NOT_FOUND),
        allow(shadow=True),
        deny("A", Reason.RATE_LIMITED, "per-ip", level=LimitLevel.CUSTOM, shadow=True),
    )
    assert read(await counts.write()) == {
        ("A", "allow", "", "", ""): 3,
        ("A", "deny", "rate_limited", "custom", "per-ip"): 1,
        ("A", "deny", "blocked", "", "rogues"): 1,
        ("", "deny", "api_not_found", "", ""): 1,
        ("A", "would_allow", "", "", ""): 1,
        ("A", "would_deny", "rate_limited", "custom", "per-ip"): 1,
    }


async def test_names_may_hold_what_the_format_is_made_of() -> None:
    names = ('a"b', "a\\", "a\nb", 'a",x="', "a b", "a\u2028b", "a\x1cb", "Straße", "#")
    counts = count(*[allow(name) for name in names])
    assert [series[0] for series in read(await counts.write())] == list(names)
    summed = SummedMetrics()
    summed.update({1: await counts.write()}, alive=[1])
    assert [series[0] for series in read(summed.write())] == list(names)


async def test_what_exceeds_the_bound_is_counted_without_its_api() -> None:
    counts = count(
        allow("a"),
        allow("b"),
        allow("c"),
        allow("d"),
        allow("a"),
        deny("b", Reason.BLOCKED, "rogues"),
        deny("b", Reason.INVALID_CREDENTIALS),
        max_series=2,
    )
    assert read(await counts.write()) == {
        ("a", "allow", "", "", ""): 2,
        ("b", "allow", "", "", ""): 1,
        (FOLDED, "allow", "", "", ""): 2,
        (FOLDED, "deny", "blocked", "", FOLDED): 1,
        (FOLDED, "deny", "invalid_credentials", "", ""): 1,
    }
    assert counts.folded == 4


async def test_long_names_have_a_bound_of_their_own() -> None:
    counts = count(allow("a"), allow("b" * 900), allow("c"), max_label_bytes=200)
    assert [series[0] for series in read(await counts.write())] == ["a", FOLDED, "c"]


def many() -> DecisionCounts:
    decisions = [
        decision
        for number in range(APIS)
        for decision in (
            allow(f"api-{number}"),
            *(deny(f"api-{number}", reason) for reason in REASONS),
        )
    ]
    return count(*decisions)


def read_lines(text: str) -> dict[str, float]:
    """As `read`, but quick."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
    found = {series: float(value) for series, _, value in lines}
    assert len(found) == len(lines)
    return found


async def test_ten_thousand_apis_by_reason_are_seen_with_one_worker_and_with_two() -> None:
    counts, summed = many(), SummedMetrics()

    async def write_own() -> tuple[bytes, str]:
        return await counts.write(), CONTENT_TYPE

    async def write_summed() -> tuple[bytes, str]:
        text = await counts.write()
        summed.update({1: text, 2: text}, alive=[1, 2])
        return summed.write(), CONTENT_TYPE

    for workers, write in ((1, write_own), (2, write_summed)):
        admin = AdminListener(read_listen_address("127.0.0.1:0"), checks=no_checks, metrics=write)
        await admin.start()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{admin.port}/metrics") as response,
        ):
            assert response.headers["transfer-encoding"] == "chunked"
            found = read_lines(await response.text())
        await admin.stop()
        assert len(found) == APIS * (1 + len(REASONS))
        assert set(found.values()) == {workers}
        assert "otel" not in " ".join(found)
    assert counts.folded == 0


async def no_checks() -> list[ReadyCheck]:
    return []
