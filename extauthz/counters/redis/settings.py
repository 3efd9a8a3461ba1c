"""How Redis is reached: URLs and settings, as values that need no client of Redis.

    redis://[user[:password]@]host[:6379][/db]
    unix:///path[?db=1]
    redis+sentinel://host[:26379],host2/[db]?service=mymaster
    redis+cluster://host[:6379],host2

`rediss` in place of `redis` asks for TLS, on every server, Sentinels included. A password
belongs in a file: it is read anew for each connection, so it can change while the service runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from extauthz.model.identity import Secret


class Deployment(Enum):
    """How Redis is run. The value is what follows the plus sign in a URL's scheme."""

    SINGLE = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_PORTS: Final = {Deployment.SINGLE: 6379, Deployment.SENTINEL: 26379, Deployment.CLUSTER: 6379}
_FORMS: Final = (
    "write redis://host:6379, rediss://host:6379, unix:///path, "
    "redis+sentinel://host,host2/?service=name or redis+cluster://host,host2"
)

Server = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """The parts of a Redis URL."""

    deployment: Deployment = Deployment.SINGLE
    servers: tuple[Server, ...] = ()
    path: str = ""
    """Path of a Unix socket; there are no servers then."""
    is_encrypted: bool = False
    db: int = 0
    service: str = ""
    """The primary's name at the Sentinels."""
    username: str = ""
    password: Secret | None = None

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return ",".join(write_server(server) for server in self.servers)


def write_server(server: Server) -> str:
    """Host and port as one text, with brackets around an IPv6 address."""
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_redis_url(url: str) -> RedisAddress:
    """The address that a URL gives; see the head of this module.

    Raises:
        ValueError: says what is wrong with it. The URL itself is not repeated, it may hold a
            password.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ValueError(f"is not a URL; {_FORMS}") from exc
    scheme, _, kind = parts.scheme.partition("+")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or parts.netloc:
            raise ValueError("a unix URL has three slashes and an absolute path: unix:///path")
        address = RedisAddress(path=unquote(parts.path), db=_read_db(options.pop("db", "")))
        return _check_no_more(address, options)
    if scheme not in ("redis", "rediss") or kind not in [d.value for d in Deployment]:
        raise ValueError(f"the scheme is not known; {_FORMS}")
    deployment = Deployment(kind)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    servers = tuple(_read_server(host, _PORTS[deployment]) for host in hosts.split(","))
    if deployment is Deployment.SINGLE and len(servers) > 1:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    db = _read_db(parts.path.strip("/"))
    if db and deployment is Deployment.CLUSTER:
        raise ValueError("a cluster has only database 0")
    service = options.pop("service", "") if deployment is Deployment.SENTINEL else ""
    if deployment is Deployment.SENTINEL and not service:
        raise ValueError("Sentinels need ?service= with the name of the primary they watch")
    address = RedisAddress(
        deployment=deployment,
        servers=servers,
        is_encrypted=scheme == "rediss",
        db=db,
        service=service,
        username=unquote(username),
        password=Secret(unquote(password)) if password else None,
    )
    return _check_no_more(address, options)


def _check_no_more(address: RedisAddress, options: dict[str, str]) -> RedisAddress:
    if options:
        raise ValueError(f"the URL has options that are not known: {', '.join(sorted(options))}")
    return address


def _read_db(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("the database is a number, like /0")
    return int(text or 0)


def _read_server(text: str, port: int) -> Server:
    host, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, digits = text, str(port)
    host = unquote(host.removeprefix("[").removesuffix("]"))
    if not host or not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) < 65536:
        raise ValueError("a server is host or host:port")
    return host, int(digits)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Everything about counting in Redis that an operator may choose.

    Attributes:
        username, password_file: an ACL user; instead of those in the URL. A line break at the
            file's end is no part of the password.
        sentinel_username, sentinel_password_file: when the Sentinels ask for their own.
        ca_file, cert_file, key_file: PEM; for TLS. Without `ca_file` the system's authorities
            are trusted; certificates are always checked, the host's name included.
        prefix: stands before every key, so that several services can share a Redis.
        timeout_s: the longest wait for an answer; a caller's deadline may make it shorter.
        connect_timeout_s: for connecting, TLS and authentication. Callers wait at most `timeout_s`.
        in_flight: calls to each server at the same time. One is best unless the latency is high.
        max_waiting: decisions that may wait for a server.
        dedup_ttl_us: how long the answer to a dedup id is remembered.
        first_pause_s, longest_pause_s: between attempts to connect.

    Raises:
        ValueError: the URL or another setting cannot be used.
    """

    address: RedisAddress
    username: str = ""
    password_file: Path | None = None
    sentinel_username: str = ""
    sentinel_password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    prefix: str = "extauthz:"
    timeout_s: float = 0.05
    connect_timeout_s: float = 1.0
    in_flight: int = 1
    max_waiting: int = 10_000
    dedup_ttl_us: int = 60_000_000
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0

    def __post_init__(self) -> None:
        if "{" in self.prefix or "}" in self.prefix:
            raise ValueError("the prefix may hold no braces: they choose a cluster's hash slot")
        if (self.cert_file is None) is not (self.key_file is None):
            raise ValueError("a client certificate needs both cert_file and key_file")
        if self.timeout_s <= 0 or self.connect_timeout_s <= 0:
            raise ValueError("a timeout must be above 0")
        if self.in_flight < 1 or self.max_waiting < 1 or self.dedup_ttl_us < 1000:
            raise ValueError("in_flight and max_waiting must be at least 1, dedup_ttl_us 1000")
