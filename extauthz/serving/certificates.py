"""Tells when certificates expire. A file that has changed is read again.

A certificate expires with the first of its chain, and authorities expire with the last of them: an
old authority and a new one stand side by side for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from extauthz.serving.tls import find_certificates, stamp_file


class CertificateFile:
    """A PEM file with a certificate and its chain, or with authorities."""

    def __init__(self, path: Path, *, holds_authorities: bool = False) -> None:
        self._path = path
        self._find_end: Callable[[bytes], float | None] = (
            find_authorities_end_s if holds_authorities else find_chain_end_s
        )
        self._stamp: tuple[int, ...] | None = None
        self._expiry_s: float | None = None

    def find_expiry_s(self) -> float | None:
        """When it expires, in seconds of Unix time.

        Of a file that cannot be used it is that of the last one that could, which is still in use;
        None when there was none.
        """
        stamp = stamp_file(self._path)
        if stamp != self._stamp:
            # Read before the file, so that a change during reading is seen the next time.
            self._stamp = stamp
            end_s = self._find_end(self._read())
            if end_s is not None:
                self._expiry_s = end_s
        return self._expiry_s

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""


def find_chain_end_s(pem: bytes) -> float | None:
    """When a certificate with its chain expires, in seconds of Unix time; None without any."""
    return min(_list_ends_s(pem), default=None)


def find_authorities_end_s(pem: bytes) -> float | None:
    """When the last of some authorities expires, in seconds of Unix time; None without any."""
    return max(_list_ends_s(pem), default=None)


def find_first_end_s(authorities: Iterable[str]) -> float | None:
    """When the first of several sets of authorities expires; None without any."""
    ends_s = (_remembered_end_s(pem) for pem in authorities)
    return min((end_s for end_s in ends_s if end_s is not None), default=None)


@lru_cache(maxsize=256)
def _remembered_end_s(pem: str) -> float | None:
    return find_authorities_end_s(pem.encode())


def _list_ends_s(pem: bytes) -> list[float]:
    return [one.not_valid_after_utc.timestamp() for one in find_certificates(pem)]
