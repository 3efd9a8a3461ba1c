"""The values of a request that limits ask for by name: for keys, conditions and costs.

Each is a text, empty when the request lacks it. A header that comes several times is joined by
commas (RFC 9110 5.3), as proxies may have done before; of a query parameter the first counts;
a claim must be a text, a number or a boolean.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_plus

from extauthz.model.identity import Identity
from extauthz.model.request import ApiRequest


def find_header(request: ApiRequest, name: str) -> str:
    """A header's values; `name` in lower case."""
    return ",".join(request.headers.get_all(name))


def find_query(request: ApiRequest, name: str) -> str:
    """The first value of a query parameter, decoded."""
    return next(_values_of(request.query, name), "")


def find_all_query(request: ApiRequest, name: str) -> list[str]:
    """All values of a query parameter, decoded, in their order."""
    return list(_values_of(request.query, name))


def _values_of(query: str, wanted: str) -> Iterator[str]:
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if name == wanted or unquote_plus(name) == wanted:
            yield unquote_plus(value)


def find_claim(identity: Identity, name: str) -> str:
    """A claim that is one value, as text; lists and objects are not values."""
    value = identity.claims.get(name)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""
