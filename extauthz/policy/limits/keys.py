"""Writes the keys of counters: the subject that is counted, and the rule.

A key is ``{subject}what|rule``. Redis Cluster hashes the part in braces, so all limits of one
consumer share a slot, while consumers are spread. Every part that comes from outside is written as
its length, a colon and the part itself, so that two different lists of parts never give the same
text. A part longer than 64 characters is written as ``#`` and 32 hex digits of its SHA-256. The
number of a limit is not in the key: raising a limit keeps its count. The limits of a condition
group have ``g`` and the group's name before the ``|``.

Custom limits have key templates, like ``$clientIp:$api`` or ``${claim.https://idp/tenant}``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

from extauthz.model.deny_rules import read_address
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.request.values import find_claim, find_header, find_query

_LONGEST_PART: Final = 64


def write_parts(*parts: str) -> str:
    """Joins parts to a text that no other list of parts gives; at most 67 characters for each."""
    return "".join(_write_part(part) for part in parts)


def _write_part(part: str) -> str:
    if len(part) <= _LONGEST_PART:
        return f"{len(part)}:{part}"
    # Header values may hold lone surrogates where bytes were not UTF-8.
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()
    return f"#{digest[:32]}"


def write_client(address: str) -> str:
    """The text by which a client is counted: its IPv4 address, or the /64 of its IPv6 address."""
    family, number = read_address(address)
    if family == 0:
        return f"?{address}" if address else ""
    return f"4-{number:x}" if family == 4 else f"6-{number >> 64:x}"


def find_origin(client: str) -> str:
    """The network of a client as `write_client` names it: an IPv4 /24, or an IPv6 /48.

    A caller with many addresses usually has them in one such network. All texts that are no
    addresses have one origin.
    """
    family, _, digits = client.partition("-")
    if family == "4":
        return f"4-{int(digits, 16) >> 8:x}"
    return f"6-{int(digits, 16) >> 16:x}" if family == "6" else "?"


_PLAIN: Final[dict[str, Callable[[LimitedRequest], str]]] = {
    "api": lambda limited: limited.route.api.name,
    "version": lambda limited: limited.route.api.version,
    "resource": lambda limited: limited.route.resource.template,
    "application": lambda limited: (
        limited.identity.application.name if limited.identity.application else ""
    ),
    "user": lambda limited: _of_issuer(limited, limited.identity.user),
    "clientIp": lambda limited: write_client(limited.client_address),
    "consumerKey": lambda limited: _of_issuer(limited, limited.identity.consumer_key),
    "method": lambda limited: limited.request.method,
}
_NAMED: Final[dict[str, Callable[[LimitedRequest, str], str]]] = {
    "header": lambda limited, name: find_header(limited.request, name.lower()),
    "claim": lambda limited, name: find_claim(limited.identity, name),
    "query": lambda limited, name: find_query(limited.request, name),
}
_WITHOUT_END: Final = ("clientIp", "header", "query", "user", "claim", "consumerKey")
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<braced>[^{}]*)\}|(?P<bare>[A-Za-z]+(?:\.[A-Za-z0-9_-]+)?))"
)
_KNOWN: Final = ", ".join([*(f"${name}" for name in _PLAIN), *(f"${name}.NAME" for name in _NAMED)])


def _of_issuer(limited: LimitedRequest, name: str) -> str:
    """A name with its issuer: "alice" of one issuer is not "alice" of another."""
    return write_parts(limited.identity.issuer, name) if name else ""


def check_template(text: str) -> str | None:
    """What is wrong with a key template and what to write instead; None when it is good."""
    if not text:
        return "the key is empty; name a variable, or write a word like all for one count of all"
    for match in _VARIABLE.finditer(text):
        name = match["braced"] if match["braced"] is not None else match["bare"]
        if name is None:
            continue
        kind, dot, rest = name.partition(".")
        if kind in _PLAIN and not dot:
            continue
        if kind in _NAMED:
            if rest:
                continue
            return f"${name} needs a name, like ${kind}.x-tenant"
        return f"${name} is not known; known are {_KNOWN}, each also as ${{…}}"
    if "$" in _VARIABLE.sub("", text):
        return "a $ stands alone; write $$ for a dollar sign, or ${name} for a variable"
    return None


class KeyTemplate:
    """A key template, parsed once and filled in for each request.

    Raises:
        ValueError: `check_template` finds a problem.
    """

    __slots__ = ("_text", "_variables")

    def __init__(self, text: str) -> None:
        problem = check_template(text)
        if problem is not None:
            raise ValueError(problem)
        self._text = text
        names = [match["braced"] or match["bare"] for match in _VARIABLE.finditer(text)]
        self._variables = tuple(name.partition(".") for name in names if name is not None)

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """Kind (header, claim or query) and name of each value that it uses by name."""
        return tuple((kind, name) for kind, dot, name in self._variables if dot)

    @property
    def asks_address(self) -> bool:
        """Whether it uses the client's address."""
        return any(kind == "clientIp" for kind, _, _ in self._variables)

    @property
    def is_open(self) -> bool:
        """Whether its values are unbounded, because callers or issuers choose them."""
        return any(kind in _WITHOUT_END for kind, _, _ in self._variables)

    def find_subject(self, limited: LimitedRequest) -> str | None:
        """The subject to count; None when the request lacks a value that the template uses."""
        values = [
            _NAMED[kind](limited, name) if dot else _PLAIN[kind](limited)
            for kind, dot, name in self._variables
        ]
        if not all(values):
            return None
        return write_parts(self._text, *values)
