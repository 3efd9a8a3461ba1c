"""Checks from where an API key is used: the client's address, and the page that sent the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.model.decision import Denial, Reason
from extauthz.model.deny_rules import Network, contains, read_address
from extauthz.model.referers import RefererPattern
from extauthz.model.request import ApiRequest

NETWORK_NOT_KNOWN: Final = Denial(
    reason=Reason.CREDENTIAL_NOT_PERMITTED,
    detail="The credential is bound to networks, and the client's address is not known.",
)
_NOT_PERMITTED: Final = Denial(
    reason=Reason.CREDENTIAL_NOT_PERMITTED,
    detail="The credential may not be used from this address or referer.",
)


def check_restrictions(
    request: ApiRequest,
    client_address: str,
    *,
    networks: Sequence[Network],
    referers: Sequence[str] = (),
    patterns: Sequence[RefererPattern] = (),
) -> Denial | None:
    """The denial when a key may not be used from here.

    Args:
        networks: of clients; empty for all.
        referers, patterns: beginnings of the Referer header and patterns of pages, one of which
            must fit; both empty for all.
    """
    if networks:
        if not client_address:
            return NETWORK_NOT_KNOWN
        family, number = read_address(client_address)
        if not any(contains(network, family, number) for network in networks):
            return _NOT_PERMITTED
    if not referers and not patterns:
        return None
    referer = request.headers.get("referer") or ""
    if any(_is_below(referer, prefix.rstrip("/")) for prefix in referers):
        return None
    return None if any(pattern.fits(referer) for pattern in patterns) else _NOT_PERMITTED


def _is_below(referer: str, prefix: str) -> bool:
    """Whether the URL continues at a boundary: a.example.evil is not below a.example."""
    if not referer.startswith(prefix):
        return False
    return referer[len(prefix) : len(prefix) + 1] in ("", "/", "?", "#")
