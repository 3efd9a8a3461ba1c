"""Tells when the certificates in a file expire. A file that has changed is read again."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from extauthz.serving.tls import find_certificates, stamp_file


class CertificateFile:
    """A PEM file with a certificate and its chain, or with authorities.

    Args:
        holds_authorities: whether any one of the certificates suffices. Then the file expires with
            its last certificate, as an old authority and a new one stand side by side for a while;
            a chain expires with its first.
    """

    def __init__(self, path: Path, *, holds_authorities: bool = False) -> None:
        self._path = path
        self._find_end = max if holds_authorities else min
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
            ends_s = [certificate.not_valid_after_utc.timestamp() for certificate in self._read()]
            if ends_s:
                self._expiry_s = self._find_end(ends_s)
        return self._expiry_s

    def _read(self) -> list[x509.Certificate]:
        try:
            return find_certificates(self._path.read_bytes())
        except OSError:
            return []
