"""Reads a listener's TLS files, and reads them again when they change.

The files are checked whenever a client connects, and read again when they have changed, so a
renewed certificate is used without a restart. New files that cannot be used (half written, or a key
of another certificate) are refused as a whole, logged once, and read again with the next change;
the old ones stay in use. Open connections keep their certificate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from extauthz.errors import ConfigError, Problem

_log = logging.getLogger(__name__)

FileStamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files. With `client_ca` (mTLS) clients need a certificate signed by it."""

    cert: Path
    """The server's certificate, then the intermediate ones."""
    key: Path
    client_ca: Path | None = None
    client_uri_sans: tuple[str, ...] = ()
    """URI SANs of which a client certificate must have one; empty admits all of `client_ca`.

    Every host enforces this for each method of the door.
    """

    def __post_init__(self) -> None:
        if self.client_uri_sans and self.client_ca is None:
            raise ValueError("client_uri_sans without client_ca: nobody shows a certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """What was read from the files. The key stays out of `repr`."""

    cert_pem: bytes
    key_pem: bytes
    client_ca_pem: bytes | None = None
    client_uri_sans: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"TlsMaterial(mutual={self.client_ca_pem is not None})"


class TlsReloader:
    """Reads the files, and again when they change. Calls may come from any thread."""

    def __init__(self, files: TlsFiles) -> None:
        """Reads the files for the first time.

        Raises:
            ConfigError: they cannot be used; every problem is named.
        """
        self._files = files
        self._stamp = _stamp(files)
        self.current = read_tls_files(files)

    def find_change(self) -> TlsMaterial | None:
        """New material when the files have changed and can be used; else None."""
        stamp = _stamp(self._files)
        if stamp == self._stamp:
            return None
        # Read before the files, so that a change during reading is seen the next time.
        self._stamp = stamp
        try:
            material = read_tls_files(self._files)
        except ConfigError as exc:
            _log.error("new TLS files are not usable, the old ones stay: %s", exc)
            return None
        if material == self.current:
            return None
        self.current = material
        _log.info("TLS files were read again: %s", self._files.cert)
        return material


def read_tls_files(files: TlsFiles) -> TlsMaterial:
    """Reads the files and checks that they belong together.

    Raises:
        ConfigError: a file is missing or is no PEM, or the key is not the certificate's.
    """
    problems: list[Problem] = []
    cert_pem = _read(files.cert, problems)
    key_pem = _read(files.key, problems)
    client_ca_pem = _read(files.client_ca, problems) if files.client_ca else None
    if not problems:
        problems.extend(_find_problems(files, cert_pem, key_pem, client_ca_pem))
    if problems:
        raise ConfigError(problems)
    return TlsMaterial(
        cert_pem=cert_pem,
        key_pem=key_pem,
        client_ca_pem=client_ca_pem,
        client_uri_sans=files.client_uri_sans,
    )


def _read(path: Path, problems: list[Problem]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        problems.append(Problem(file=str(path), message=f"cannot be read: {exc.strerror}"))
        return b""


def _find_problems(
    files: TlsFiles, cert_pem: bytes, key_pem: bytes, client_ca_pem: bytes | None
) -> Iterable[Problem]:
    chain = find_certificates(cert_pem)
    if not chain:
        yield Problem(file=str(files.cert), message="holds no PEM certificate")
    if client_ca_pem is not None and not find_certificates(client_ca_pem):
        yield Problem(file=str(files.client_ca), message="holds no PEM certificate")
    try:
        key = load_pem_private_key(key_pem, password=None)
    except TypeError:
        yield Problem(file=str(files.key), message="is encrypted; give a key without a password")
    except (ValueError, UnsupportedAlgorithm):
        yield Problem(file=str(files.key), message="holds no PEM private key that can be used")
    else:
        if chain and _public_bytes(chain[0]) != _public_bytes(key):
            yield Problem(
                file=str(files.key),
                message=f"is not the key of the first certificate in {files.cert}",
            )


def _public_bytes(holder: x509.Certificate | PrivateKeyTypes) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def find_certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates in PEM text; none when it cannot be read."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _stamp(files: TlsFiles) -> FileStamp:
    return tuple(stamp_file(path) for path in (files.cert, files.key, files.client_ca) if path)


def stamp_file(path: Path) -> tuple[int, int, int, int] | None:
    """What changes when a file is written or replaced; None when it is not there."""
    try:
        seen = path.stat()  # follows links: Kubernetes renews a secret by moving one
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
