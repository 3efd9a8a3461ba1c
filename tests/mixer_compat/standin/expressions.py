"""Mixer's expression language, as far as manifests use it: types, values, and what was looked at.

Rules, from the Mixer of Istio 1.1 to 1.7 (`mixer/pkg/lang`): expressions have Go's grammar and
precedence; `|` gives its right side when the left side is missing, and binds tighter than `==`;
a text that reads as a duration is one; an attribute that is missing without `|` fails the
evaluation; a key that is missing in a map that is there is "". Looking something up makes it a
referenced attribute, by which the proxy caches answers.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

STOCK_ATTRIBUTES: Final[Mapping[str, str]] = {
    "api.operation": "STRING",
    "api.protocol": "STRING",
    "api.service": "STRING",
    "api.version": "STRING",
    "context.protocol": "STRING",
    "context.reporter.kind": "STRING",
    "context.time": "TIMESTAMP",
    "destination.namespace": "STRING",
    "destination.service.host": "STRING",
    "destination.service.name": "STRING",
    "destination.service.namespace": "STRING",
    "request.api_key": "STRING",
    "request.headers": "STRING_MAP",
    "request.host": "STRING",
    "request.id": "STRING",
    "request.method": "STRING",
    "request.path": "STRING",
    "request.query_params": "STRING_MAP",
    "request.scheme": "STRING",
    "request.size": "INT64",
    "request.time": "TIMESTAMP",
    "request.url_path": "STRING",
    "request.useragent": "STRING",
    "response.code": "INT64",
    "response.duration": "DURATION",
    "response.size": "INT64",
    "response.time": "TIMESTAMP",
    "source.ip": "IP_ADDRESS",
    "source.namespace": "STRING",
    "source.principal": "STRING",
}
"""What the proxy and the Kubernetes adapter give, as far as it is of use here."""

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w.]*)'
    r"|(?P<sign>\|\||&&|==|!=|[|()\[\],]))"
)
_BINDS: Final = {"||": 1, "&&": 2, "==": 3, "!=": 3, "|": 4}
"""Go's precedence."""
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")


class ExpressionError(Exception):
    """The expression is no expression, or its types do not fit."""


class LookupFailed(Exception):
    """An attribute without a default is missing in this request."""


@dataclass(slots=True)
class Bag:
    """The attributes of one request, and which of them were looked at.

    Attributes:
        referenced: (attribute, key of a map or "") to whether it was there.
    """

    attributes: Mapping[str, Any]
    referenced: dict[tuple[str, str], bool] = field(default_factory=dict)

    def find(self, name: str) -> Any:
        """The value, or None. A map is looked at key by key."""
        value = self.attributes.get(name)
        if value is None or not isinstance(value, Mapping):
            self.referenced[name, ""] = value is not None
        return value

    def find_in_map(self, name: str, key: str) -> Any:
        """The value under a key of a map; None when there is no such key."""
        value = self.attributes[name].get(key)
        self.referenced[name, key] = value is not None
        return value


@dataclass(frozen=True, slots=True)
class Expression:
    """What is compiled: the type of the value, and how it is found (None for a missing one)."""

    type: str
    evaluate: Callable[[Bag], Any]
    text: str

    def value(self, bag: Bag) -> Any:
        """The value. Raises LookupFailed when it is missing."""
        value = self.evaluate(bag)
        if value is None:
            raise LookupFailed(f"lookup failed: '{self.text}'")
        return value


def compile_expression(text: str, vocabulary: Mapping[str, str]) -> Expression:
    """Raises ExpressionError, with Mixer's words where these are known."""
    parser = _Parser(text, vocabulary)
    found = parser.expression(0)
    parser.expect_end()
    return found


class _Parser:
    def __init__(self, text: str, vocabulary: Mapping[str, str]) -> None:
        self._text, self._at, self._vocabulary = text, 0, vocabulary
        self._tokens: list[tuple[str, str]] = []
        while self._at < len(text.rstrip()):
            match = _TOKEN.match(text, self._at)
            if match is None:
                raise ExpressionError(f"unable to parse expression '{text}'")
            assert match.lastgroup is not None
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            self._at = match.end()
        self._tokens.append(("end", ""))

    def expect_end(self) -> None:
        self._take("end", "")

    def expression(self, least: int) -> Expression:
        left = self._operand()
        while (kind := self._tokens[0])[0] == "sign" and _BINDS.get(kind[1], 0) > least:
            sign = self._tokens.pop(0)[1]
            left = _combine(sign, left, self.expression(_BINDS[sign]), self._text)
        return left

    def _take(self, kind: str, text: str) -> None:
        if self._tokens.pop(0) != (kind, text):
            raise ExpressionError(f"unable to parse expression '{self._text}'")

    def _operand(self) -> Expression:
        kind, token = self._tokens.pop(0)
        match kind:
            case "text":
                return _literal(json.loads(token))
            case "number":
                number = float(token) if "." in token else int(token)
                return Expression("DOUBLE" if "." in token else "INT64", lambda _: number, token)
            case "name" if token in ("true", "false"):
                return Expression("BOOL", lambda _: token == "true", token)
            case "name" if self._tokens[0] == ("sign", "("):
                return self._call(token)
            case "name" if self._tokens[0] == ("sign", "["):
                return self._index(token)
            case "name":
                return Expression(self._type_of(token), lambda bag: bag.find(token), token)
            case "sign" if token == "(":
                found = self.expression(0)
                self._take("sign", ")")
                return found
        raise ExpressionError(f"unable to parse expression '{self._text}'")

    def _type_of(self, name: str) -> str:
        if name not in self._vocabulary:
            raise ExpressionError(f"unknown attribute {name}")
        return self._vocabulary[name]

    def _index(self, name: str) -> Expression:
        if self._type_of(name) != "STRING_MAP":
            raise ExpressionError(f"INDEX target typeError got {self._type_of(name)}")
        self._tokens.pop(0)
        key = self.expression(0)
        self._take("sign", "]")
        if key.type != "STRING":
            raise ExpressionError(f"INDEX arg 2 typeError got {key.type}, expected STRING")

        def evaluate(bag: Bag) -> Any:
            return None if bag.find(name) is None else bag.find_in_map(name, key.value(bag))

        def value(bag: Bag) -> Any:
            # Not below `|`: the map must be there, and a key that is not is "".
            found = evaluate(bag)
            return "" if found is None and name in bag.attributes else found

        defaulted = self._tokens[0] == ("sign", "|")
        return Expression("STRING", evaluate if defaulted else value, f"{name}[{key.text}]")

    def _call(self, name: str) -> Expression:
        self._tokens.pop(0)
        arguments: list[Expression] = []
        while self._tokens[0] != ("sign", ")"):
            if arguments:
                self._take("sign", ",")
            arguments.append(self.expression(0))
        self._take("sign", ")")
        return _call(name, arguments)


def _literal(text: str) -> Expression:
    duration = read_duration(text)
    if duration is not None:
        return Expression("DURATION", lambda _: duration, text)
    return Expression("STRING", lambda _: text, text)


def read_duration(text: str) -> timedelta | None:
    """What Go's time.ParseDuration makes of it, or None."""
    if text == "0":
        return timedelta()
    if not text or _DURATION.sub("", text):
        return None
    return timedelta(seconds=sum(float(n) * _UNITS_S[u] for n, u in _DURATION.findall(text)))


def _combine(sign: str, left: Expression, right: Expression, text: str) -> Expression:
    wanted = "BOOL" if sign in ("||", "&&") else left.type
    for side in (left, right):
        if side.type != wanted:
            raise ExpressionError(f"{text} typeError got {side.type}, expected {wanted}")
    if sign == "|":

        def either(bag: Bag) -> Any:
            value = left.evaluate(bag)
            return right.evaluate(bag) if value is None else value

        return Expression(left.type, either, text)
    judge: dict[str, Callable[[Bag], bool]] = {
        "||": lambda bag: bool(left.value(bag) or right.value(bag)),
        "&&": lambda bag: bool(left.value(bag) and right.value(bag)),
        "==": lambda bag: bool(left.value(bag) == right.value(bag)),
        "!=": lambda bag: bool(left.value(bag) != right.value(bag)),
    }
    return Expression("BOOL", judge[sign], text)


def _read_ip(text: str) -> bytes:
    """Go keeps an IPv4 address in 16 bytes."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


_FUNCTIONS: Final[dict[str, tuple[tuple[str, ...], str, Callable[..., Any]]]] = {
    "ip": (("STRING",), "IP_ADDRESS", _read_ip),
    "timestamp": (("STRING",), "TIMESTAMP", datetime.fromisoformat),
    "uri": (("STRING",), "URI", str),
    "dnsName": (("STRING",), "DNS_NAME", str),
    "email": (("STRING",), "EMAIL_ADDRESS", str),
    "emptyStringMap": ((), "STRING_MAP", dict),
}


def _call(name: str, arguments: list[Expression]) -> Expression:
    if name not in _FUNCTIONS:
        raise ExpressionError(f"unknown function: {name}")
    wanted, result, function = _FUNCTIONS[name]
    if tuple(each.type for each in arguments) != wanted:
        raise ExpressionError(f"{name} typeError got {[each.type for each in arguments]}")
    return Expression(result, lambda bag: function(*(each.value(bag) for each in arguments)), name)
