"""Says which address a request came from, without believing what the client says of itself."""

from __future__ import annotations

from extauthz.model.request import ApiRequest


def read_client_address(request: ApiRequest, trusted_hops: int) -> str:
    """The client's address; empty when the proxy did not send one.

    trusted_hops: how many proxies of our own stand in front of this Envoy. 0 takes the
        address that Envoy saw; each further one takes a step to the left in
        ``X-Forwarded-For``, counted from the right, where only our own proxies write.
    """
    seen = request.source.address
    if trusted_hops == 0:
        return seen
    forwarded = request.headers.get_all("x-forwarded-for")
    entries = [entry.strip() for field in forwarded for entry in field.split(",")]
    chain = [_strip_port(entry) for entry in entries if entry]
    # An Envoy that appends the peer's address itself has written it last already.
    if not chain or chain[-1] != seen:
        chain.append(seen)
    return chain[max(0, len(chain) - 1 - trusted_hops)]


def _strip_port(entry: str) -> str:
    """Some proxies write the port too: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
