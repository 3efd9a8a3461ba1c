"""The stand-in reads expressions as Mixer does: grammar, types, defaults, and what it looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.mixer_compat.standin.expressions import (
    STOCK_ATTRIBUTES,
    Bag,
    ExpressionError,
    LookupFailed,
    compile_expression,
    read_duration,
)

ATTRIBUTES: dict[str, Any] = {
    "request.headers": {"a": "1"},
    "request.method": "GET",
    "request.host": "",
    "response.code": 404,
    "source.ip": bytes(4),
}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("request.method", "STRING", "GET"),
        ('request.method | "x"', "STRING", "GET"),
        ('request.path | "x"', "STRING", "x"),
        ('request.host | "x"', "STRING", ""),  # there, and empty
        ('request.path | request.url_path | "y"', "STRING", "y"),
        ('request.headers["a"]', "STRING", "1"),
        ('request.headers["b"]', "STRING", ""),
        ('request.headers["b"] | "x"', "STRING", "x"),
        ('request.query_params["b"] | "x"', "STRING", "x"),
        ("response.code | 0", "INT64", 404),
        ("response.size | 7", "INT64", 7),
        ('source.ip | ip("0.0.0.0")', "IP_ADDRESS", bytes(4)),
        ('ip("10.0.0.1")', "IP_ADDRESS", bytes(10) + b"\xff\xff\x0a\0\0\1"),
        ('ip("::1")', "IP_ADDRESS", bytes(15) + b"\1"),
        ('response.duration | "0ms"', "DURATION", timedelta()),
        ('request.time | timestamp("2020-01-02T03:04:05+00:00")', "TIMESTAMP",
         datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ('request.method == "GET"', "BOOL", True),
        ('request.method != "GET"', "BOOL", False),
        ('request.path | "x" == "x"', "BOOL", True),  # | binds tighter than ==
        ('(request.path | "x") != "y" && request.method == "GET"', "BOOL", True),
        ("false && true || true", "BOOL", True),
        ("true || true && false", "BOOL", True),
        ('true || (request.path == "x")', "BOOL", True),  # what is right is not looked at
        ('"a\\"b"', "STRING", 'a"b'),
        ("1.5", "DOUBLE", 1.5),
    ],
)  # fmt: skip
def test_an_expression_has_a_type_and_a_value(text: str, kind: str, value: object) -> None:
    expression = compile_expression(text, STOCK_ATTRIBUTES)
    assert expression.type == kind
    assert expression.value(Bag(ATTRIBUTES)) == value


@pytest.mark.parametrize(
    "text", ["request.path", 'request.query_params["a"]', 'request.path == "x"']
)
def test_what_is_missing_without_a_default_fails(text: str) -> None:
    expression = compile_expression(text, STOCK_ATTRIBUTES)
    with pytest.raises(LookupFailed):
        expression.value(Bag(ATTRIBUTES))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unable to parse"),
        ("request.method |", "unable to parse"),
        ("request.method request.path", "unable to parse"),
        ("(request.method", "unable to parse"),
        ("request.method %", "unable to parse"),
        ("foo.bar", "unknown attribute foo.bar"),
        ('foo("a")', "unknown function: foo"),
        ('request.method["a"]', "INDEX target typeError got STRING"),
        ("request.headers[1]", "expected STRING"),
        ('request.size | "a"', "got STRING, expected INT64"),
        ('request.method | "5m"', "got DURATION, expected STRING"),
        ("request.method == 1", "got INT64, expected STRING"),
        ("request.method && true", "got STRING, expected BOOL"),
        ("ip(1)", "typeError"),
    ],
)  # fmt: skip
def test_what_is_no_expression_is_told(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said):
        compile_expression(text, STOCK_ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "referenced"),
    [
        ('request.path | "x"', {("request.path", ""): False}),
        ("request.method", {("request.method", ""): True}),
        ('request.headers["a"] | ""', {("request.headers", "a"): True}),
        ('request.headers["b"] | ""', {("request.headers", "b"): False}),
        ('request.query_params["b"] | ""', {("request.query_params", ""): False}),
        ('request.method == "GET" || request.host == ""', {("request.method", ""): True}),
    ],
)
def test_what_was_looked_at_is_referenced(
    text: str, referenced: dict[tuple[str, str], bool]
) -> None:
    bag = Bag(ATTRIBUTES)
    compile_expression(text, STOCK_ATTRIBUTES).value(bag)
    assert bag.referenced == referenced


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1h30m", 5400), ("1.5s", 1.5), ("0", 0), ("", None), ("s", None), ("5", None)],
)
def test_a_text_that_reads_as_a_duration_is_one(text: str, seconds: float | None) -> None:
    found = read_duration(text)
    assert (None if found is None else found.total_seconds()) == seconds
