"""HTTP clients for issuers, with their certificate authorities, proxy and error messages.

An issuer's certificate must be signed by the authority that the catalog names for it (`Issuer.ca`),
else by one of the system's: those of OpenSSL, or of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``. Only
the settings can name a proxy: one from the environment, meant for other programs, would see client
secrets and tokens of issuers without TLS.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Final, Self

import httpx2

from extauthz.model.issuers import Issuer

HTTP_TIMEOUT: Final = httpx2.TimeoutException
"""What a client raises for an answer that takes too long."""

_LOG: Final = logging.getLogger(__name__)
_LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=10)
"""No bound here: callers bound the calls to each issuer. With a common bound, an issuer that hangs
would prevent calls to the others."""
_PROXY_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy")
_UNTRUSTED: Final = frozenset((18, 19, 20, 21))
"""X509_V_ERR codes of chains without a trusted authority (openssl-verification-options)."""


class IssuerHttp:
    """HTTP clients, one for each authority, with and without proxy; closed at the end of the block.

    Args:
        proxy: http or https URL, may hold a user and a password; empty for none.
        no_proxy: hosts that are asked directly, with all hosts below them.
    """

    def __init__(self, *, proxy: str = "", no_proxy: Sequence[str] = ()) -> None:
        self._proxy = proxy
        self._no_proxy = tuple(host.lstrip(".").lower() for host in no_proxy)
        # An authority changes about once a year: none is worth forgetting.
        self._clients: dict[tuple[str, bool], httpx2.AsyncClient] = {}
        self._system = ssl.create_default_context()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    def find_client(self, issuer: Issuer, url: str) -> httpx2.AsyncClient:
        """The client for a URL of an issuer's.

        Raises:
            httpx2.InvalidURL: it is none.
        """
        key = (issuer.ca, bool(self._proxy) and not self._is_direct(httpx2.URL(url).host))
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._make_client(*key)
        return client

    def _make_client(self, ca: str, is_proxied: bool) -> httpx2.AsyncClient:  # noqa: FBT001  (its key)
        verify = self._system
        if ca:
            verify = ssl.create_default_context(cadata=ca)
            # As of Python 3.13: whom the catalog names need not be at the end of the chain.
            verify.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        proxy = None
        if is_proxied:
            is_https = self._proxy.startswith("https:")
            proxy = httpx2.Proxy(self._proxy, ssl_context=self._system if is_https else None)
        return httpx2.AsyncClient(
            verify=verify,
            proxy=proxy,
            limits=_LIMITS,
            trust_env=False,
            # Issuers share a client, and what one sets is of no use to any.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    def _is_direct(self, host: str) -> bool:
        host = host.strip("[]").lower()
        return any(host == one or host.endswith(f".{one}") for one in self._no_proxy)


def warn_of_unused_proxy(environment: Mapping[str, str] = os.environ) -> None:
    """Logs that a proxy from the environment is not used."""
    for name in _PROXY_VARIABLES:
        if environment.get(name):
            _LOG.info("%s is not used; to connect to issuers through a proxy, set http.proxy", name)
            return


def say_failure(error: BaseException, issuer: Issuer) -> str:
    """Why a request failed, and what to do, without quoting a URL: that may hold a password."""
    cause: BaseException | None = error
    seen = 0
    while cause is not None and seen < 10:
        told = _say_cause(cause, issuer)
        if told:
            return told
        cause = cause.__cause__ or cause.__context__
        seen += 1
    return type(error).__name__


def _say_cause(cause: BaseException, issuer: Issuer) -> str:
    match cause:
        case ssl.SSLCertVerificationError():
            told = f"its certificate was not accepted: {cause.verify_message.rstrip('.')}"
            if cause.verify_code not in _UNTRUSTED:
                return told
            if issuer.ca:
                return f"{told}; tls.ca of the issuer does not hold the authority that signed it"
            return (
                f"{told}; name the authority that signed it in tls.ca of the issuer, or add it to "
                "the system's (or to the file that SSL_CERT_FILE names)"
            )
        case ssl.SSLError():
            return f"TLS failed: {cause.reason or type(cause).__name__}"
        case httpx2.ProxyError():
            return f"the proxy of the settings (http.proxy) refused: {cause}"
        case socket.gaierror():
            return "its host's name cannot be resolved"
        case ConnectionRefusedError():
            return "connection refused"
        case _:
            return ""
