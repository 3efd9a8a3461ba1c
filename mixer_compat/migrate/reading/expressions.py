"""Reads Mixer's expressions: attributes, literals, calls and operators, as a small tree.

The language is the part of Go's expressions that Mixer supported: ``request.headers["x"] |
"none"``, ``source.ip == ip("10.0.0.1")``, ``(a || b) && c.startsWith("d")``. ``|`` gives a default
and has a higher precedence than ``==``, as in Go. Depth and length are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_CHARACTERS: Final = 16_384
MAX_DEPTH: Final = 40


class ExpressionError(ValueError):
    """A text is not an expression of Mixer. The message quotes nothing of the text."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, number, duration or boolean."""

    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Attribute:
    """A name like ``request.headers``; with a key, an entry of the map of that name."""

    name: str
    key: str | None = None

    def __str__(self) -> str:
        return self.name if self.key is None else f'{self.name}["{self.key}"]'


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function, or with a target the call of a method on it."""

    name: str
    target: Expression | None
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions joined by ``||``, ``&&``, a comparison or ``|``."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Not:
    """The negation of an expression."""

    inner: Expression


Expression = Literal | Attribute | Call | Operation | Not

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
      | (?P<number>\d+(?:\.\d+)?(?:[a-zµ]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_-]*(?<!-))
      | (?P<mark>\|\||&&|==|!=|<=|>=|[|<>!()\[\],.+*/-])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_LEVELS: Final = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "|": 4, "+": 4, "-": 4,
    "*": 5, "/": 5,
}  # fmt: skip
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


def read_expression(text: str) -> Expression:
    """Parses an expression.

    Raises:
        ExpressionError: the text is not an expression, or it is too long or nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"is longer than {MAX_CHARACTERS} characters")
    return _Parser(text).read()


def list_attributes(expression: Expression) -> list[Attribute]:
    """All attributes of an expression, in their order."""
    match expression:
        case Attribute():
            return [expression]
        case Call():
            parts = [] if expression.target is None else [expression.target]
            return [
                one for part in (*parts, *expression.arguments) for one in list_attributes(part)
            ]
        case Operation():
            return [*list_attributes(expression.left), *list_attributes(expression.right)]
        case Not():
            return list_attributes(expression.inner)
        case Literal():
            return []


def list_defaults(expression: Expression) -> list[Expression]:
    """The alternatives of ``a | b | "c"``, in their order; the expression alone without ``|``."""
    if isinstance(expression, Operation) and expression.operator == "|":
        return [*list_defaults(expression.left), *list_defaults(expression.right)]
    return [expression]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while not self._tokens or self._tokens[-1][0] != "end":
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise ExpressionError(f"cannot be read at character {at + 1}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._next = 0

    def read(self) -> Expression:
        found = self._read_level(1, 0)
        if self._peek()[0] != "end":
            raise ExpressionError("has something left over at its end")
        return found

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str]:
        token = self._tokens[self._next]
        self._next += token[0] != "end"
        return token

    def _expect(self, mark: str) -> None:
        if self._take() != ("mark", mark):
            raise ExpressionError(f"lacks a {mark!r}")

    def _read_level(self, level: int, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"is nested more than {MAX_DEPTH} deep")
        left = self._read_unary(depth)
        while True:
            kind, word = self._peek()
            binds = _LEVELS.get(word, 0) if kind == "mark" else 0
            if binds < level:
                return left
            self._take()
            # Operators of one precedence are left-associative.
            left = Operation(word, left, self._read_level(binds + 1, depth + 1))

    def _read_unary(self, depth: int) -> Expression:
        if self._peek() == ("mark", "!"):
            self._take()
            if depth > MAX_DEPTH:
                raise ExpressionError(f"is nested more than {MAX_DEPTH} deep")
            return Not(self._read_unary(depth + 1))
        return self._read_postfix(self._read_primary(depth), depth)

    def _read_primary(self, depth: int) -> Expression:
        kind, word = self._take()
        if kind == "text":
            return Literal(_unquote(word))
        if kind == "number":
            return Literal(_read_number(word))
        if kind == "name":
            if word in ("true", "false"):
                return Literal(word == "true")
            if self._peek() == ("mark", "("):
                return Call(word, None, self._read_arguments(depth))
            return Attribute(word)
        if (kind, word) == ("mark", "("):
            inner = self._read_level(1, depth + 1)
            self._expect(")")
            return inner
        raise ExpressionError("ends too early" if kind == "end" else f"has a {word!r} too many")

    def _read_postfix(self, found: Expression, depth: int) -> Expression:
        while True:
            if self._peek() == ("mark", "."):
                self._take()
                kind, word = self._take()
                if kind != "name":
                    raise ExpressionError("has a '.' without a name behind it")
                if self._peek() == ("mark", "("):
                    found = Call(word, found, self._read_arguments(depth))
                elif isinstance(found, Attribute) and found.key is None:
                    found = Attribute(f"{found.name}.{word}")
                else:
                    raise ExpressionError("has a '.' where none can be")
            elif self._peek() == ("mark", "["):
                self._take()
                kind, word = self._take()
                if kind != "text" or not isinstance(found, Attribute) or found.key is not None:
                    raise ExpressionError("has a '[' where none can be")
                found = Attribute(found.name, _unquote(word))
                self._expect("]")
            else:
                return found

    def _read_arguments(self, depth: int) -> tuple[Expression, ...]:
        self._expect("(")
        arguments: list[Expression] = []
        if self._peek() == ("mark", ")"):
            self._take()
            return ()
        while True:
            arguments.append(self._read_level(1, depth + 1))
            if self._peek() != ("mark", ","):
                break
            self._take()
        self._expect(")")
        return tuple(arguments)


def _unquote(word: str) -> str:
    if word.startswith("`"):
        return word[1:-1]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), word[1:-1])


def _read_number(word: str) -> str | int | float:
    if word.isdigit():
        return int(word)
    try:
        return float(word)
    except ValueError:
        return word  # a duration, like 5s
