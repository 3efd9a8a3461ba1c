"""Reads and compares the addresses of listeners: `host:port`, `[v6]:port` or `unix:/path`."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from extauthz.errors import ConfigError, ExtauthzError, Problem

MAX_UNIX_PATH_BYTES = 107
"""`sockaddr_un.sun_path` on Linux, less the closing NUL."""


class ListenError(ExtauthzError):
    """An address cannot be listened on."""

    code = "listen_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """A TCP address, or a unix socket when `path` is set. Port 0 lets the system choose."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_listen_address(text: str) -> ListenAddress:
    """The address that the text names.

    Raises:
        ConfigError: it names none.
    """
    if text.startswith("unix:"):
        return _read_unix(text)
    host, _, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _problem(text, "write an IPv6 address in brackets, like [::1]:9001")
    if not host:
        raise _problem(text, "write host:port, like 0.0.0.0:9001, or unix:/path")
    if not (port_text.isascii() and port_text.isdecimal() and int(port_text) <= 65535):
        raise _problem(text, "the port must be a number from 0 to 65535")
    return ListenAddress(host=host, port=int(port_text))


def may_collide(one: ListenAddress, other: ListenAddress) -> bool:
    """Whether two listeners cannot both be opened, in whatever form their addresses are written.

    Names other than localhost are not resolved: two of them are the same only when they are equal.
    """
    if one.path or other.path:
        both = one.path and other.path
        return bool(both) and os.path.realpath(one.path) == os.path.realpath(other.path)
    if one.port != other.port or one.port == 0:
        return False
    hosts, others = _read_host(one.host), _read_host(other.host)
    # On Linux a socket on [::] takes IPv4, too.
    if not hosts.isdisjoint(others) or "::" in hosts | others:
        return True
    for these, those in ((hosts, others), (others, hosts)):
        if "0.0.0.0" in these and any(":" not in host for host in those):  # noqa: S104  # compared
            return True
    return False


def _read_host(text: str) -> frozenset[str]:
    """The addresses of a host in normal form; a name is returned as it is."""
    name = text.lower().rstrip(".")
    if name == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return frozenset({str(mapped or address)})
    try:
        # 127.1, and other forms of IPv4 that the resolver accepts.
        return frozenset({socket.inet_ntoa(socket.inet_aton(name))})
    except OSError:
        return frozenset({name})


def is_local(address: ListenAddress) -> bool:
    """Whether only processes of this machine can connect: a unix socket, or loopback.

    Names other than localhost are not resolved, and count as reachable from elsewhere.
    """
    if address.path:
        return True
    return all(_is_loopback(host) for host in _read_host(address.host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def remove_stale_socket(path: str) -> None:
    """Removes a socket file that no process listens on any more; does nothing when there is none.

    Raises:
        ListenError: a process listens there, or the file is no socket, or cannot be removed.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"unix:{path}: there is a file that is no socket; move it away")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            # A full backlog gives EAGAIN: a process listens and is busy.
            if probe.connect_ex(path) not in {errno.ECONNREFUSED, errno.ENOENT}:
                raise ListenError(f"unix:{path}: another process listens there; stop it first")
        Path(path).unlink()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ListenError(f"unix:{path}: {exc.strerror}") from exc


def remove_sockets(addresses: Iterable[ListenAddress]) -> None:
    """Removes the files of unix sockets that no process listens on any more."""
    for address in addresses:
        if address.path:
            Path(address.path).unlink(missing_ok=True)


def _read_unix(text: str) -> ListenAddress:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise _problem(text, "write the socket's whole path, like unix:/run/extauthz/grpc.sock")
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise _problem(text, f"a socket's path may have {MAX_UNIX_PATH_BYTES} bytes at most")
    return ListenAddress(path=path)


def _problem(text: str, advice: str) -> ConfigError:
    return ConfigError([Problem(message=f"cannot listen on {text!r}: {advice}")])
