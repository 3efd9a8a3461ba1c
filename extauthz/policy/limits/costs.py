"""Reads the cost that a request states, where its resource allows that.

The cost is chosen by whoever writes the header or the parameter. So it is bounded: it is at least
1 and at most the resource's maximum. Of several values the largest counts, so that nobody is
charged for one and served the other. Values that are no numbers are ignored; when no value is
left, the resource's own cost counts.
"""

from __future__ import annotations

from typing import Final

from extauthz.errors import MalformedRequest
from extauthz.model.apis import CostSource
from extauthz.model.identity import PlaceKind
from extauthz.model.request import ApiRequest
from extauthz.policy.request.values import find_all_query, find_header

_MOST_DIGITS: Final = 18
_MOST_VALUES: Final = 16
"""Values that a request may state. With more it is refused, as the largest might not be read."""


def read_cost(source: CostSource, request: ApiRequest, default: int) -> int:
    """The cost of a request; `default` when it states none.

    Raises:
        MalformedRequest: the request states more costs than can be read in bounded time.
    """
    name = source.place.name
    if source.place.kind is PlaceKind.HEADER:
        values = find_header(request, name).split(",", _MOST_VALUES)
    else:
        values = find_all_query(request, name)
    if len(values) > _MOST_VALUES:
        raise MalformedRequest(f"The request says more than {_MOST_VALUES} costs.")
    costs = [cost for value in values if (cost := _read_number(value.strip()))]
    return min(max(costs), source.maximum) if costs else default


def _read_number(text: str) -> int:
    """A whole number in ASCII digits; 0 for any other text."""
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return int(text)
    return 0
