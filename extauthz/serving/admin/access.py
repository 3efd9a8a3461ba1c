"""Decides who may use the API of the admin listener.

- Where only this machine can connect (loopback, a unix socket), everybody who can may use it,
  unless tokens or a client CA are configured. Everywhere else a caller shows one of the tokens, or a
  client certificate; which of the two does not matter where both are configured.
- A browser on this machine can be made to ask by any page that it shows. So the ``Host`` must be a
  name of this listener (a page whose own name was pointed here, DNS rebinding, sends its own name),
  and a request that a page of another origin makes is refused (``Origin``, ``Sec-Fetch-Site``).
- All tokens are compared, by their hashes, so that the time reveals nothing. A wrong token and a
  missing one get the same answer. Wrong ones are logged by one line in ten seconds at most; an
  address that sends many gets 429 for them, while a right token is always taken, so that nobody is
  locked out by a neighbour.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from extauthz.errors import ExtauthzError
from extauthz.model.identity import Secret
from extauthz.model.routing.authority import read_host
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.serving.admin.errors import ApiError

MAX_FAILURES: Final = 30
"""Wrong tokens of one address in `FAILURES_S` that are answered with 401; further ones get 429."""
FAILURES_S: Final = 60.0
MAX_ADDRESSES: Final = 1_000
"""Addresses whose wrong tokens are counted; beyond that the oldest is forgotten."""

_OWN_SITE: Final = ("same-origin", "none")
"""Values of Sec-Fetch-Site: a page of this listener, or a person who typed the address."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: for logs: the token by its hash, the certificate by a name in it, or ``local``.
        is_known: whether a token or a certificate said so.
    """

    name: str
    is_known: bool


LOCAL: Final = Caller("local", is_known=False)
"""Somebody who can connect to loopback or the unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Who may use the API, and under which names.

    Attributes:
        is_local: whether only processes of this machine can connect.
        is_socket: whether it is a unix socket, which no browser can reach: any ``Host`` is taken.
        hosts: names and addresses of the listener besides the obvious ones, as `read_host` gives
            them.
        tokens: gives the tokens that are taken now; None when there are none to take.
        has_client_ca: whether a client certificate is a credential; TLS has verified it already.
        client_sans: URI or DNS SANs, of which a certificate must have one; empty takes every one.
    """

    is_local: bool
    is_socket: bool = False
    hosts: frozenset[str] = frozenset()
    tokens: Callable[[], Sequence[Secret]] | None = None
    has_client_ca: bool = False
    client_sans: frozenset[str] = frozenset()


class _Refused(ExtauthzError):
    """Somebody is not let in; for the log."""

    code = "admin_refused"


class Access:
    """Checks each request of the API. `monotonic` is in seconds, of a clock that never goes back."""

    def __init__(
        self, rules: AccessRules, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._monotonic = monotonic
        self._warnings = RepeatedWarnings(
            _log, "a caller of the admin API was refused", monotonic=monotonic
        )
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By address: when counting began, and how many wrong tokens have come since."""

    def check(self, request: web.BaseRequest) -> Caller:
        """Who asks.

        Raises:
            ApiError: 401, 403, 421 or 429: this request is not to be answered.
        """
        self._check_host(request)
        _check_site(request)
        rules = self._rules
        if rules.tokens is None and not rules.has_client_ca:
            return LOCAL
        caller = self._find_certificate(request) or self._find_token(request)
        if caller is None:
            raise self._refuse(request)
        return caller

    def _check_host(self, request: web.BaseRequest) -> None:
        if self._rules.is_socket:
            return
        named = request.headers.getall("host", [])
        host = read_host(named[0]) if len(named) == 1 else None
        # A target in absolute form names a host of its own (RFC 9112 3.2.2).
        if host is None or not request.raw_path.startswith("/") or not self._is_own(host):
            message = (
                "the API is not served under this host name; call it by a name of its listener, or "
                "add the name to admin.allowed_hosts"
            )
            raise ApiError(421, "unknown_host", message)

    def _is_own(self, host: str) -> bool:
        if host in _LOOPBACK or host in self._rules.hosts:
            return True
        # No page can have an address for its name and be served by another machine.
        return not self._rules.is_local and _is_address(host)

    def _find_certificate(self, request: web.BaseRequest) -> Caller | None:
        transport = request.transport
        if not self._rules.has_client_ca or transport is None:
            return None
        certificate = transport.get_extra_info("peercert")
        if not certificate:
            return None
        sans = [
            str(value)
            for kind, value in certificate.get("subjectAltName", ())
            if kind in ("URI", "DNS")
        ]
        allowed = self._rules.client_sans
        if not allowed:
            return Caller(sans[0] if sans else "a certificate without a name", is_known=True)
        fitting = [san for san in sans if san in allowed]
        return Caller(fitting[0], is_known=True) if fitting else None

    def _find_token(self, request: web.BaseRequest) -> Caller | None:
        if self._rules.tokens is None:
            return None
        sent = request.headers.getall("authorization", [])
        scheme, _, text = (sent[0] if len(sent) == 1 else "").partition(" ")
        presented = Secret(text.strip() if scheme.lower() == "bearer" else "").digest()
        fitting = [
            token
            for token in self._rules.tokens()
            if hmac.compare_digest(presented, token.digest())
        ]
        return Caller(f"token {fitting[0].digest().hex()[:8]}", is_known=True) if fitting else None

    def _refuse(self, request: web.BaseRequest) -> ApiError:
        address = request.remote or "a unix socket"
        if "authorization" in request.headers:
            self._warnings.warn(_Refused(f"wrong token from {address}"))
            if self._count_failure(address) > MAX_FAILURES:
                message = "too many wrong tokens came from this address; try again in a minute"
                return ApiError(
                    429, "too_many_failures", message, {"retry-after": f"{FAILURES_S:.0f}"}
                )
        message = "send one of the tokens of admin.token_file: `authorization: Bearer …`"
        if self._rules.tokens is None:
            message = "a client certificate that admin.tls.client_ca and admin.client_sans admit is needed"
            return ApiError(403, "certificate_needed", message)
        return ApiError(401, "token_needed", message, {"www-authenticate": "Bearer"})

    def _count_failure(self, address: str) -> int:
        now_s = self._monotonic()
        since_s, count = self._failures.pop(address, (now_s, 0))
        if now_s >= since_s + FAILURES_S:
            since_s, count = now_s, 0
        self._failures[address] = since_s, count + 1
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return count + 1


def _check_site(request: web.BaseRequest) -> None:
    """Refuses what a page of another origin asks for."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = request.headers.get("host", "").lower()
    is_foreign = site is not None and site not in _OWN_SITE
    if origin is not None and origin.lower() not in (f"http://{own}", f"https://{own}"):
        is_foreign = True
    if is_foreign:
        message = "pages of other origins may not use the API; open it by its own address"
        raise ApiError(403, "foreign_origin", message)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
