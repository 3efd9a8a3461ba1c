"""What was refused or counted before is refused or counted now, whatever the match was.

The old answer comes from an evaluation of the expression that knows nothing of the migration.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.catalog.documents.build import build_catalog, read_catalog_file
from extauthz.documents.values import SourceText
from mixer_compat.migrate.convert import convert
from mixer_compat.migrate.reading.expressions import (
    Attribute,
    Call,
    Expression,
    Literal,
    Not,
    Operation,
    read_expression,
)
from mixer_compat.migrate.reading.objects import read_objects
from mixer_compat.migrate.report import Report, is_complete
from tests.builders import a_request
from tests.deciding import Deciding
from tests.mixer_compat.migrate.test_migrated_decisions import a_check, a_list, a_quota

SETTINGS = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class Request:
    """One request, as Mixer's attributes told it."""

    service: str
    client: str
    header: str | None
    source_app: str
    size: int

    def find(self, attribute: Attribute) -> str | int | None:
        """What an attribute was."""
        match attribute:
            case Attribute(name="request.headers"):
                return self.header
            case Attribute(name="source.labels"):
                return self.source_app
        found: dict[str, str | int | None] = {
            "source.ip": self.client,
            "destination.service.name": self.service,
            "destination.namespace": "default",
            "destination.labels": self.service,
            "api.version": "v1",
            "request.size": self.size,
            "context.reporter.kind": "inbound",
        }
        return found[attribute.name]


CALLS = st.builds(
    Request,
    service=st.sampled_from(["one", "two"]),
    client=st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.1"]),
    header=st.sampled_from([None, "a", "ab", "b", "d", "x.y"]),
    source_app=st.sampled_from(["x", "y"]),
    size=st.sampled_from([1, 9]),
)

ATOMS = st.sampled_from(
    [
        'source.ip == ip("192.0.2.1")', 'source.ip != ip("192.0.2.2")',
        'request.headers["h"] == "a"', 'request.headers["h"] != "a"',
        'request.headers["h"] == ""', 'request.headers["h"] != ""',
        '(request.headers["h"] | "d") == "d"', '(request.headers["h"] | "d") != "d"',
        '(request.headers["h"] | "d") == "a"', '(request.headers["h"] | "d") != "a"',
        'request.headers["h"].startsWith("a")', 'match(request.headers["h"], "*b")',
        'match(request.headers["h"], "x.y") == false', '"^b".matches(request.headers["h"])',
        'destination.service.name == "one"', 'destination.service.name != "one"',
        'destination.labels["app"] == "two"', 'destination.namespace == "default"',
        'api.version == "v1"', 'api.version == "v2"', 'source.labels["app"] == "x"',
        "request.size > 5", 'context.reporter.kind == "inbound"', "true", "false",
    ]
)  # fmt: skip
MATCHES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) && ({two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) || ({two[1]})"),
        inner.map(lambda one: f"!({one})"),
        inner.map(lambda one: f"({one}) == false"),
    ),
    max_leaves=5,
)


def evaluate(expression: Expression, call: Request) -> str | int | float | bool | None:
    match expression:
        case Literal(value=value):
            return value
        case Attribute():
            return call.find(expression)
        case Not(inner=inner):
            return not evaluate(inner, call)
        case Operation(operator="|", left=left, right=right):
            first = evaluate(left, call)
            return evaluate(right, call) if first is None else first
        case Operation(operator="&&", left=left, right=right):
            return bool(evaluate(left, call)) and bool(evaluate(right, call))
        case Operation(operator="||", left=left, right=right):
            return bool(evaluate(left, call)) or bool(evaluate(right, call))
        case Operation(operator=operator, left=left, right=right):
            first, second = evaluate(left, call), evaluate(right, call)
            first = "" if first is None else first
            if operator == ">":
                return int(first) > int(second or 0)
            return (first == second) is (operator == "==")
        case Call(name="ip", arguments=(only,)):
            return evaluate(only, call)
        case Call(name="match", arguments=(text, pattern)):
            value, glob = str(evaluate(text, call) or ""), str(evaluate(pattern, call))
            return value.endswith(glob[1:]) if glob.startswith("*") else value == glob
        case Call(name="startsWith", target=target, arguments=(only,)) if target is not None:
            return str(evaluate(target, call) or "").startswith(str(evaluate(only, call)))
        case Call(name="matches", arguments=(only,)):
            return str(evaluate(only, call) or "").startswith("b")
        case _:
            raise AssertionError(expression)


def migrate(*texts: str) -> tuple[Deciding, Report]:
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            (Path(folder) / f"{number}.yaml").write_text(text)
        migration = convert(read_objects([Path(folder)], report), report)
    source = SourceText(file="catalog.yaml", text=migration.files["catalog/catalog.yaml"])
    return Deciding(build_catalog([read_catalog_file(source, Path())])), report


async def answer(deciding: Deciding, call: Request) -> str:
    headers = {} if call.header is None else {"h": call.header}
    request = a_request("/", host=call.service, client=call.client, headers=headers)
    return await deciding.reason(request)


DENIER = "{compiledAdapter: denier, params: {status: {code: 7}}}"
NOTHING = "{compiledTemplate: checknothing}"
UNUSED = a_quota("{quotas: [{name: rq, maxAmount: 1000, validDuration: 1s}]}")


def quote(text: str) -> str:
    return (
        yaml.safe_dump(text, width=10_000, default_style="'")
        .strip()
        .removesuffix("...")
        .strip()[1:-1]
    )


@SETTINGS
@given(match=MATCHES, calls=st.lists(CALLS, min_size=1, max_size=6))
async def test_a_denier_refuses_at_least_what_it_refused(match: str, calls: list[Request]) -> None:
    deciding, _ = migrate(a_check(DENIER, NOTHING, quote(match)), UNUSED)
    for call in calls:
        if evaluate(read_expression(match), call):
            assert await answer(deciding, call) == "blocked", (match, call)


@SETTINGS
@given(
    match=MATCHES.filter(lambda text: not any(
        word in text for word in ("headers", "labels", "size")
    )),
    call=CALLS,
)  # fmt: skip
async def test_a_denier_of_addresses_and_services_refuses_exactly_what_it_refused(
    match: str, call: Request
) -> None:
    deciding, report = migrate(a_check(DENIER, NOTHING, quote(match)), UNUSED)
    told = [str(one) for one in report.findings() if "left out" in one.message]
    refused = await answer(deciding, call) == "blocked"
    old = bool(evaluate(read_expression(match), call))
    assert refused is old or (refused and told), (match, call)


@SETTINGS
@given(match=MATCHES, calls=st.lists(CALLS, min_size=1, max_size=6))
async def test_a_quota_counts_at_least_what_it_counted(match: str, calls: list[Request]) -> None:
    quota = a_quota("{quotas: [{name: rq, maxAmount: 1, validDuration: 600s}]}")
    deciding, _ = migrate(
        quota.replace("spec: {actions:", f"spec: {{match: '{quote(match)}', actions:")
    )
    passed = 0
    for call in calls:
        got = await answer(deciding, call)
        if evaluate(read_expression(match), call):
            passed += got == "allowed"
    assert passed <= 1, (match, calls)


@SETTINGS
@given(
    match=MATCHES,
    networks=st.lists(
        st.sampled_from(["192.0.2.0/31", "192.0.2.2", "198.51.100.0/24", "2001:db8::/32"]),
        max_size=3,
        unique=True,
    ),
    black=st.booleans(),
    call=CALLS,
)
async def test_a_list_of_networks_refuses_at_least_what_it_refused(
    match: str, networks: list[str], *, black: bool, call: Request
) -> None:
    entries = f"[{', '.join(repr(one) for one in networks)}]"
    handler = a_list(entries, f"entryType: IP_ADDRESSES, blacklist: {str(black).lower()}")
    instance = "{compiledTemplate: listentry, params: {value: source.ip}}"
    deciding, _ = migrate(a_check(handler, instance, quote(match)), UNUSED)
    listed = (
        (call.client == "192.0.2.1" and "192.0.2.0/31" in networks)
        or call.client in networks
        or (call.client == "198.51.100.1" and "198.51.100.0/24" in networks)
    )
    if evaluate(read_expression(match), call) and listed is black:
        assert await answer(deciding, call) == "blocked"


@SETTINGS
@given(
    calls=st.lists(CALLS, min_size=2, max_size=12),
    overrides=st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from(["header", "service", "client", "app"]),
                st.sampled_from(["a", "d", "one", "192.0.2.1", "x"]),
                min_size=1,
                max_size=2,
            ),
            st.integers(1, 3),
        ),
        max_size=3,
    ),
)
async def test_each_cell_of_a_quota_lets_no_more_through_than_before(
    calls: list[Request], overrides: list[tuple[dict[str, str], int]]
) -> None:
    written = [
        {"dimensions": dimensions, "maxAmount": amount, "validDuration": "600s"}
        for dimensions, amount in overrides
    ]
    quota = yaml.safe_dump(
        {"quotas": [{"name": "rq", "maxAmount": 2, "validDuration": "600s", "overrides": written}]},
        default_flow_style=True,
        width=10_000,
    ).strip()
    dimensions = (
        "{header: 'request.headers[`h`] | `d`', service: destination.service.name, "
        "client: source.ip, app: 'source.labels[`app`]'}"
    )
    deciding, report = migrate(a_quota(quota, dimensions=dimensions))
    assert not is_complete(report.findings())  # the label of the source is told
    passed: dict[tuple[tuple[str, str], ...], int] = {}
    for call in calls:
        cell = {
            "header": "d" if call.header is None else call.header,
            "service": call.service,
            "client": call.client,
            "app": call.source_app,
        }
        key = tuple(cell.items())
        most = next((amount for wanted, amount in overrides if wanted.items() <= cell.items()), 2)
        passed[key] = passed.get(key, 0) + (await answer(deciding, call) == "allowed")
        assert passed[key] <= most, (overrides, key)
