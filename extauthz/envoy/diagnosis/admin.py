"""Reads admin interfaces over HTTP, Envoy's and our own, in bounded time and size.

Nothing is changed there. Envoy's interface has no authentication, and is reached over TCP or a Unix socket. Only GET requests of
paths without side effects are sent.
Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx2

from extauthz.envoy.configuration.trees import Tree, list_mappings
from extauthz.envoy.diagnosis.clusters import list_asked
from extauthz.envoy.diagnosis.state import EnvoyState, clean_stat, read_count, read_state
from extauthz.errors import ExtauthzError

MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest answer that is read. The configuration dump of a large mesh's sidecar has 10 MB."""
TIMEOUT_S: Final = 10.0
"""The time for all requests together."""


class AdminError(ExtauthzError):
    """An admin interface does not answer, or the server is not the expected one."""

    code = "admin_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Which interface is asked, for errors.

    Attributes:
        example: a URL of one.
        when_large: what to do when an answer is too large.
        ca_option: the option that names its certificate authorities; empty where it has no TLS.
    """

    example: str
    when_large: str
    ca_option: str = ""


ENVOY: Final = Interface(
    example="http://127.0.0.1:9901", when_large="ask an Envoy with less configuration"
)
EXTAUTHZ: Final = Interface(
    example="http://127.0.0.1:9003", when_large="ask for less", ca_option="--ca"
)


class AdminClient:
    """Sends GET requests to one HTTP server, with one deadline for all of them together.

    Args:
        url: ``http://host:port``, ``https://host:port``, or ``unix:/path`` of a socket.
        option: the command line's option with this URL, for errors.
        interface: which one it is.
        tls: for https, and for a socket that speaks TLS; left out: the system's authorities.
        timeout_s: the seconds for all requests together.
        max_bytes: the largest body that is read.
        headers: are sent with each request.

    Raises:
        AdminError: the URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        option: str,
        interface: Interface = ENVOY,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url, self._option, self._interface = url, option, interface
        self._headers = {"accept-encoding": "identity", **(headers or {})}
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._deadline_s = time.monotonic() + timeout_s
        path = url.removeprefix("unix:") if url.startswith("unix:") else None
        if path is None and not re.match(r"https?://[^/?#]", url):
            raise self.fail(f"is not a URL like {interface.example}, nor unix:/path")
        scheme = "http" if tls is None else "https"
        try:
            self._base = httpx2.URL(
                f"{scheme}://localhost" if path is not None else url.rstrip("/")
            )
        except httpx2.InvalidURL as exc:
            raise self.fail(f"is not a URL: {exc}") from exc
        self._transport = httpx2.HTTPTransport(uds=path, verify=True if tls is None else tls)

    def fail(self, message: str) -> AdminError:
        """Makes an error about this server."""
        return AdminError(f"{self._option} {self.url}: {message}")

    def get(self, path: str, **query: str) -> tuple[int, bytes]:
        """Sends a GET request, and returns the status and body of its answer.

        Args:
            path: the path, without a query.
            query: the query's parameters, not escaped.

        Raises:
            AdminError: there was no answer, or it came too late, or it is too large.
        """
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._late()
        body = bytearray()
        # Envoy does not decode "+" to a space.
        written = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        url = self._base.copy_with(
            path=self._base.path.rstrip("/") + path, query=written.encode() or None
        )
        try:
            with (
                httpx2.Client(transport=self._transport, timeout=left_s, trust_env=False) as client,
                client.stream("GET", url, headers=self._headers) as response,
            ):
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise self.fail(
                            f"{path} is larger than {self._max_bytes // (1024 * 1024)} MiB, which "
                            f"is more than this command reads; {self._interface.when_large}"
                        )
                    if time.monotonic() > self._deadline_s:
                        raise self._late()
                return response.status_code, bytes(body)
        except httpx2.TimeoutException as exc:
            raise self._late() from exc
        except httpx2.ConnectError as exc:
            raise self._explain_connection(exc) from exc
        except httpx2.HTTPError as exc:
            if isinstance(_find_cause(exc), ssl.SSLError):  # TLS 1.3 refuses after the handshake
                raise self._explain_connection(exc) from exc
            hint = "; if it speaks TLS, write https://" if self._base.scheme == "http" else ""
            raise self.fail(f"does not answer with HTTP ({_say_cause(exc)}){hint}") from exc

    def get_json(self, path: str, *, accepted: tuple[int, ...] = (200,), **query: str) -> Tree:
        """Sends a GET request, and returns the JSON object of its answer.

        Args:
            path: the path, without a query.
            accepted: the statuses that the answer may have.
            query: the query's parameters, not escaped.

        Raises:
            AdminError: as `get`, or the answer has another status or is not a JSON object.
        """
        status, body = self.get(path, **query)
        if status not in accepted:
            raise self.fail(f"{path} is answered with {status}; allow this path")
        try:
            tree = json.loads(body)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            raise self.fail(f"{path} is not a JSON object: this is not the right interface")
        return tree

    def _explain_connection(self, error: httpx2.HTTPError) -> AdminError:
        match _find_cause(error):
            case ssl.SSLCertVerificationError() as cause:
                ca = self._interface.ca_option
                todo = f"; name who has signed it with {ca}" if ca else ""
                return self.fail(f"its certificate is not good ({cause.verify_message}){todo}")
            case ssl.SSLError() as cause if "CERTIFICATE_REQUIRED" in str(cause.reason):
                return self.fail("asks for a client certificate")
            case ssl.SSLError() as cause:
                what = (cause.reason or "TLS failed").replace("_", " ").lower()
                return self.fail(f"does not speak TLS as expected ({what}); is it http://?")
            case _:
                said = _say_cause(error)
                return self.fail(f"cannot connect ({said}); is this its address?")

    def _late(self) -> AdminError:
        return self.fail(f"did not answer within {self._timeout_s:g} s")


def _say_cause(error: BaseException) -> str:
    """The operating system's text for an error, if it has one; otherwise the error's class name."""
    cause = _find_cause(error)
    return type(error).__name__ if cause is None else str(cause.strerror)


def _find_cause(error: BaseException) -> OSError | None:
    """The operating system's error, or OpenSSL's, that an error is about."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            break
        if isinstance(cause, OSError) and cause.strerror:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def ask_envoy(client: AdminClient) -> EnvoyState:
    """Reads everything that a diagnosis needs.

    Raises:
        AdminError: it does not answer, or is not Envoy.
    """
    info = client.get_json("/server_info")
    if "hot_restart_version" not in info or "version" not in info:
        raise client.fail("/server_info is not that of Envoy: this is not its admin interface")
    dump = client.get_json("/config_dump")
    clusters = client.get_json("/clusters", format="json")
    state = read_state(info, dump, clusters, {})
    names = {one.cluster for one in list_asked(state.managers, state.version)}
    stats = client.get_json("/stats", format="json", filter=_write_filter(state, names))
    return read_state(info, dump, clusters, dict(_list_stats(stats)))


def _write_filter(state: EnvoyState, clusters: Iterable[str]) -> str:
    """The regular expression for the needed statistics; a mesh has tens of thousands."""
    names = [
        clean_stat(str(state.clusters.get(name, {}).get("alt_stat_name") or name))
        for name in sorted(clusters)
    ]
    asked = "|".join(map(re.escape, names))
    return rf"^http\..*\.(downstream_rq_total|ext_authz\..*)$|^cluster\.({asked})\."


def _list_stats(stats: Tree) -> Iterable[tuple[str, int]]:
    for one in list_mappings(stats.get("stats")):
        value: Any = one.get("value")
        if "name" in one:
            yield str(one["name"]), read_count(value)
