"""Makes the TLS with which commands ask a service's admin listener."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extauthz.errors import ConfigError, Problem


def make_admin_tls(
    url: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext | None:
    """A client's context; None where no TLS is spoken.

    A socket (``unix:``) has no name that its certificate could have: who signed it is checked.

    Args:
        url: of the listener. A socket speaks TLS when one of the files is given.
        ca: authorities, PEM; the system's when left out.
        cert: a client certificate, PEM.
        key: its private key, when it is not in the same file.

    Raises:
        ConfigError: a file cannot be used.
    """
    is_socket = url.startswith("unix:")
    files = [file for file in (ca, cert, key) if file is not None]
    if not url.startswith("https:") and not (is_socket and files):
        if files:
            message = "is of no use for a listener without TLS; write https:// before its host"
            raise ConfigError([Problem(file=str(files[0]), message=message)])
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = not is_socket
    if ca is None:
        context.load_default_certs()
    else:
        with _naming(ca):
            context.load_verify_locations(ca)
    if cert is not None:
        with _naming(cert):
            # Without a password, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(cert, key, password="")
    elif key is not None:
        message = "is a key without a certificate; name the certificate with --cert"
        raise ConfigError([Problem(file=str(key), message=message)])
    return context


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as exc:  # OpenSSL's errors, too
        why = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or str(exc)
        message = f"cannot be used: {str(why).replace('_', ' ').lower()}"
        raise ConfigError([Problem(file=str(file), message=message)]) from exc
