"""Reads values of a request that limits use by name: for keys, conditions and costs.

Each is a text, empty when the request lacks it. Repeated header fields are joined by commas
(RFC 9110 5.3), as proxies may have done before; of repeated query parameters the first counts;
a claim must be a text, a number or a boolean.
"""

from __future__ import annotations

from extauthz.model.identity import Identity, Place, PlaceKind
from extauthz.model.request import ApiRequest
from extauthz.policy.request.caller_claims import DIALECT, list_caller_claims
from extauthz.policy.request.parameters import read_values


def find_header(request: ApiRequest, name: str) -> str:
    """A header's values; `name` in lower case."""
    return ",".join(request.headers.get_all(name))


def find_query(request: ApiRequest, name: str) -> str:
    """The first value of a query parameter, decoded; raises as `read_values` does."""
    return next(iter(find_all_query(request, name)), "")


def find_all_query(request: ApiRequest, name: str) -> list[str]:
    """All values of a query parameter, decoded, in their order; raises as `read_values` does."""
    return read_values(request, Place(PlaceKind.QUERY, name))


def find_claim(identity: Identity, name: str) -> str:
    """A claim as text; empty when it is missing, a list or an object.

    Names of WSO2 API Manager's backend JWT say what that says of the caller, whatever the token has.
    """
    if name.startswith(DIALECT):
        known = list_caller_claims(identity).get(name.removeprefix(DIALECT), "")
        if known:
            return known
    value = identity.claims.get(name)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""
