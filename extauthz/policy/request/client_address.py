"""Finds the client's IP address, without trusting what the client itself writes.

The address is known or not known; it is never guessed. When it is not known, deny rules and limits
by address refuse the request: otherwise a client could escape them by making its address unknown.

With trusted proxies in front (`trusted_hops`) the address is in ``X-Forwarded-For``, counted from
the right, where only those proxies write. Whether the Envoy that asks has added its own peer at the
right end follows from its ``use_remote_address`` (in the settings, or in the context extension
`REMOTE_ADDRESS_EXTENSION`), or else from whether the last entry is the peer. For a peer at
127.0.0.1 or ::1 the latter says nothing: Envoy writes an address of its own interfaces instead
(source/common/http/conn_manager_utility.cc). A peer without an IP address is never added.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
"""

from __future__ import annotations

from typing import Final

from extauthz.errors import ExtauthzError
from extauthz.model.decision import Denial, Reason
from extauthz.model.deny_rules import read_address
from extauthz.model.request import ApiRequest, Peer

REMOTE_ADDRESS_EXTENSION: Final = "extauthz.use_remote_address"
"""The route's context extension, which overrides the settings: "true" or "false". Any other value
leaves it open."""

ADDRESS_NOT_KNOWN: Final = Denial(
    reason=Reason.MALFORMED_REQUEST,
    detail="The client's address is not known, and a rule asks for it.",
)

_WORDS: Final = {"true": True, "false": False}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


class ClientAddressUnknown(ExtauthzError):
    """A request was refused because the client's address is not known; the text says why."""

    code = "client_address_unknown"


def read_client_address(
    request: ApiRequest, trusted_hops: int, *, use_remote_address: bool | None = None
) -> str:
    """The client's address; empty when it is not known.

    Looks at no more than the last `trusted_hops` + 1 entries of ``X-Forwarded-For``.

    Args:
        trusted_hops: number of trusted proxies in front of this Envoy. 0 takes the address that
            Envoy saw; each further proxy takes one entry more to the left.
        use_remote_address: whether this Envoy adds its peer; None when the settings do not say.
    """
    peer = request.source
    if trusted_hops == 0:
        return peer.address if _is_address(peer.address) else ""
    entries = _read_last_entries(request, trusted_hops + 1)
    use = _find_use(request, said=use_remote_address)
    added = _count_added(entries, peer, said=use)
    if added is None or len(entries) < trusted_hops + added:
        return ""
    address = _strip_port(entries[trusted_hops + added - 1])
    return address if _is_address(address) else ""


def say_why_unknown(
    request: ApiRequest, trusted_hops: int, *, use_remote_address: bool | None = None
) -> str:
    """Explains to an operator why `read_client_address` gives no address, and what to do."""
    peer = request.source
    if trusted_hops == 0:
        return (
            "the proxy told no source address; at Mixer's door, give the instance source.ip, and "
            "behind an internal listener or a Unix socket, set credentials.trusted_hops"
        )
    count = len(_read_last_entries(request, trusted_hops + 1))
    if peer.address in _LOOPBACK and _find_use(request, said=use_remote_address) is None:
        return (
            "the peer is on loopback, and whether Envoy has added it to X-Forwarded-For cannot be "
            "told; set credentials.use_remote_address as it is in Envoy"
        )
    return (
        f"credentials.trusted_hops is {trusted_hops}, and X-Forwarded-For, as it arrived, does not "
        f"have the client's address there (entries looked at: {count}); let the header through to "
        "ext_authz, and count the proxies that write it"
    )


def _find_use(request: ApiRequest, *, said: bool | None) -> bool | None:
    told = request.context.get(REMOTE_ADDRESS_EXTENSION)
    return said if told is None else _WORDS.get(told)


def _count_added(entries: list[str], peer: Peer, *, said: bool | None) -> int | None:
    """How many entries the Envoy that asks has added itself, 0 or 1; None when it is not known."""
    if not _is_address(peer.address):
        return 0 if peer.is_local else None
    if peer.address in _LOOPBACK:
        return None if said is None else int(said)
    is_last = bool(entries) and read_address(entries[0]) == read_address(peer.address)
    # When the request contradicts the settings, neither is trusted.
    return int(is_last) if said in {None, is_last} else None


def _read_last_entries(request: ApiRequest, most: int) -> list[str]:
    """Entries of X-Forwarded-For from the right; empty ones count, as they do for Envoy."""
    entries: list[str] = []
    for field in reversed(request.headers.get_all("x-forwarded-for")):
        left = most - len(entries)
        if left <= 0:
            break
        entries += [entry.strip() for entry in reversed(field.rsplit(",", left)[-left:])]
    return entries


def _strip_port(entry: str) -> str:
    """Some proxies write the port too: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _is_address(text: str) -> bool:
    """Whether a text is an IP address. The unspecified ones stand for a missing one."""
    return read_address(text)[1] != 0
