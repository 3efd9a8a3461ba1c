"""Mixer's expressions, and the alternatives that a match comes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer_compat.migrate.reading.conditions import Comparison, Condition, read_match
from mixer_compat.migrate.reading.expressions import (
    MAX_CHARACTERS,
    Attribute,
    Call,
    ExpressionError,
    Literal,
    Operation,
    read_expression,
)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a.b.c", Attribute("a.b.c")),
        ('request.headers["x-y"]', Attribute("request.headers", "x-y")),
        (r'"a\"b\n"', Literal('a"b\n')),
        ("`a\\b`", Literal("a\\b")),
        ("12", Literal(12)),
        ("1.5", Literal(1.5)),
        ("5s", Literal("5s")),
        ("true", Literal(True)),
        ('ip("10.0.0.1")', Call("ip", None, (Literal("10.0.0.1"),))),
        ('a.startsWith("b")', Call("startsWith", Attribute("a"), (Literal("b"),))),
        ("f()", Call("f", None, ())),
        (
            'a | "b" == "c"',
            Operation("==", Operation("|", Attribute("a"), Literal("b")), Literal("c")),
        ),
        (
            "a || b && c",
            Operation("||", Attribute("a"), Operation("&&", Attribute("b"), Attribute("c"))),
        ),
        (
            "(a || b) && c",
            Operation("&&", Operation("||", Attribute("a"), Attribute("b")), Attribute("c")),
        ),
        (
            "a && b && c",
            Operation("&&", Operation("&&", Attribute("a"), Attribute("b")), Attribute("c")),
        ),
    ],
)
def test_an_expression_is_read_as_mixer_read_it(text: str, tree: object) -> None:
    assert read_expression(text) == tree


@pytest.mark.parametrize(
    "text",
    ["", "a ==", "(a", "a)", 'a["b"', "a[b]", "a.", "a b", '"open', "a $ b", '"a".b', "a == == b",
     "(" * 100 + "a" + ")" * 100, "!" * 100 + "a", "a" * (MAX_CHARACTERS + 1)],
)  # fmt: skip
def test_what_is_no_expression_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        read_expression(text)


@given(st.text(alphabet='ab.|&=!()[]"` ,<*1', max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        read_match(text)
    except ExpressionError as error:
        assert str(error)  # noqa: PT017  (any other exception fails the test)


def say(condition: Condition) -> str:
    if isinstance(condition, Comparison):
        default = f" | {condition.default}" if condition.default else ""
        mark = "not " if condition.negated else ""
        return f"{mark}{condition.subject}{default} {condition.how.value} {condition.value}"
    return f"? {condition.about}"


@pytest.mark.parametrize(
    ("text", "alternatives"),
    [
        ("", [[]]),
        ("true", [[]]),
        ("false", []),
        ('a == "b"', [["a equals b"]]),
        ('"b" == a', [["a equals b"]]),
        ('a != "b"', [["not a equals b"]]),
        ('(a | "x") == "b"', [["a | x equals b"]]),
        ('a == "b" && c == "d"', [["a equals b", "c equals d"]]),
        ('a == "b" || c == "d"', [["a equals b"], ["c equals d"]]),
        (
            '(a == "1" || a == "2") && b == "3"',
            [["a equals 1", "b equals 3"], ["a equals 2", "b equals 3"]],
        ),
        ('!(a == "1" || b == "2")', [["not a equals 1", "not b equals 2"]]),
        ('!(a == "1" && b == "2")', [["not a equals 1"], ["not b equals 2"]]),
        ('match(h["c"], "u=*") == false', [['not h["c"] starts with u=']]),
        ('match(a, "*u")', [["a ends with u"]]),
        ('match(a, "u")', [["a equals u"]]),
        ('a.endsWith("b") != true', [["not a ends with b"]]),
        ('"^a".matches(p)', [["p matches ^a"]]),
        ('p.matches("^a")', [["p matches ^a"]]),
        ('source.ip == ip("10.0.0.1")', [["source.ip equals 10.0.0.1"]]),
        ("connection.mtls", [["connection.mtls equals true"]]),
        ("response.code == 404", [["response.code equals 404"]]),
        ("request.size > 5", [["? request.size"]]),
        ('a == b && c == "d"', [["? a, b", "c equals d"]]),
        ('!(request.size > 5) && c == "d"', [["? request.size", "c equals d"]]),
        ('a == "b" && false', []),
        ('a == "b" || true', [["a equals b"], []]),
        ('a == "b" && a == "b"', [["a equals b"]]),
    ],
)
def test_a_match_comes_to_alternatives(text: str, alternatives: list[list[str]]) -> None:
    assert [list(map(say, each)) for each in read_match(text)] == alternatives


def test_too_many_alternatives_are_left_unclear() -> None:
    pairs = " && ".join(f'(a{number} == "1" || b{number} == "2")' for number in range(20))
    found = read_match(pairs)
    assert 1 <= len(found) <= 64
    assert any(say(condition).startswith("? ") for each in found for condition in each)
