"""What a request says that it costs, where its resource lets it say so.

Whoever writes the header or the parameter chooses the cost. So it is bounded: 1 is the least,
the resource's maximum the most. Of several values the largest counts, so that nobody is charged
for the one and served the other. What is no number does not count; the resource's own cost does
when nothing else is left.
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
"""More are refused: the largest could stand among those that are not looked at."""


def read_cost(source: CostSource, request: ApiRequest, default: int) -> int:
    """The cost of a request; `default` where it says none that counts.

    Raises:
        MalformedRequest: it says more costs than can be read in bounded time.
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
    """A whole number in ASCII digits; 0 when it is none."""
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return int(text)
    return 0
