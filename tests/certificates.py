"""Certificates for tests, with names of any kind (trustme knows no URI SANs)."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from extauthz.serving.tls import TlsFiles
from tests.keys import ec_key

LOCAL = x509.DNSName("localhost")

_TIMES_NS = itertools.count(10**9, 10**9)


def renew_file(path: Path, content: bytes) -> None:
    """Writes a file, so that its time is new whatever its size.

    The kernel's own times go by ticks, of 10 ms on some: a test writes twice within one.
    """
    path.write_bytes(content)
    os.utime(path, ns=(0, next(_TIMES_NS)))


def a_uri(uri: str) -> x509.GeneralName:
    """A URI SAN."""
    return x509.UniformResourceIdentifier(uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A certificate and its key, as PEM."""

    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates. Two authorities differ by their names alone."""

    name: str

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._sign(self._key, self._subject, is_authority=True)

    def issue(
        self, *names: x509.GeneralName, common_name: str = "leaf", is_expired: bool = False
    ) -> Leaf:
        """A certificate with these SANs; an empty common name leaves its subject empty."""
        key = ec_key(name=f"leaf of {self.name}")
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        subject = _name(common_name) if common_name else x509.Name([])
        ends_in = timedelta(minutes=-30 if is_expired else 60)
        return Leaf(cert=self._sign(key, subject, *names, ends_in=ends_in), key=written)

    @property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        return ec_key(name=self.name)

    @property
    def _subject(self) -> x509.Name:
        return _name(self.name)

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        *names: x509.GeneralName,
        is_authority: bool = False,
        ends_in: timedelta = timedelta(hours=1),
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + ends_in)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


class MutualFiles:
    """Files of a listener with mTLS in a folder, and the credentials of its callers."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.client_ca = (
            folder / name for name in ("tls.crt", "tls.key", "ca.crt")
        )
        self.authority = Authority("first")
        self.renew(self.authority)

    def renew(self, authority: Authority) -> None:
        """Another authority, for the listener's certificate and for its callers'."""
        self.authority = authority
        leaf = authority.issue(LOCAL, x509.IPAddress(IPv4Address("127.0.0.1")))
        renew_file(self.client_ca, authority.pem)
        renew_file(self.cert, leaf.cert)
        renew_file(self.key, leaf.key)

    def let_in(self, *uris: str) -> TlsFiles:
        """What a host is given."""
        return TlsFiles(
            cert=self.cert, key=self.key, client_ca=self.client_ca, client_uri_sans=uris
        )

    def show(self, *names: x509.GeneralName) -> grpc.ChannelCredentials:
        """Trusts the listener; shows a certificate with these SANs."""
        leaf = self.authority.issue(*names)
        return grpc.ssl_channel_credentials(self.authority.pem, leaf.key, leaf.cert)

    def show_nothing(self) -> grpc.ChannelCredentials:
        """Trusts the listener, and has no certificate."""
        return grpc.ssl_channel_credentials(self.authority.pem)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
