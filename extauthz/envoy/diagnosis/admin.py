"""Reads Envoy's admin interface, in bounded time and size, and changes nothing there.

The interface has no authentication, and is reached over TCP or a Unix socket. Only GET requests of
paths without side effects are sent.
Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
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


class AdminClient:
    """Sends GET requests to one HTTP server, with one deadline for all of them together.

    Args:
        url: ``http://host:port``, or ``unix:/path`` of a socket.
        option: the command line's option with this URL, for errors.
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
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url, self._option = url, option
        self._headers = {"accept-encoding": "identity", **(headers or {})}
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._deadline_s = time.monotonic() + timeout_s
        path = url.removeprefix("unix:") if url.startswith("unix:") else None
        if path is None and not re.match(r"https?://[^/?#]", url):
            raise self.fail("is not a URL like http://127.0.0.1:9901, nor unix:/path")
        try:
            self._base = httpx2.URL("http://localhost" if path is not None else url.rstrip("/"))
        except httpx2.InvalidURL as exc:
            raise self.fail(f"is not a URL: {exc}") from exc
        self._transport = httpx2.HTTPTransport(uds=path)

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
                            "is more than this command reads; ask an Envoy with less configuration"
                        )
                    if time.monotonic() > self._deadline_s:
                        raise self._late()
                return response.status_code, bytes(body)
        except httpx2.TimeoutException as exc:
            raise self._late() from exc
        except httpx2.ConnectError as exc:
            raise self.fail(f"cannot connect ({_say_cause(exc)}); is this its address?") from exc
        except httpx2.HTTPError as exc:
            raise self.fail(f"does not answer with HTTP ({_say_cause(exc)})") from exc

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

    def _late(self) -> AdminError:
        return self.fail(f"did not answer within {self._timeout_s:g} s")


def _say_cause(error: BaseException) -> str:
    """The operating system's text for an error, if it has one; otherwise the error's class name."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            break
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


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
