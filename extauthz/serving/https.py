"""HTTPS: a context that takes new files with the next connection.

A client certificate that the client CA did not sign ends the connection.
"""

from __future__ import annotations

import logging
import ssl

from extauthz.errors import ConfigError, Problem
from extauthz.serving.tls import TlsFiles, TlsReloader

_log = logging.getLogger(__name__)


def make_context(files: TlsFiles, *, demands_client: bool = False) -> ssl.SSLContext:
    """A context for a server with these files; new files are looked for with each connection.

    Args:
        demands_client: whether a client must show a certificate where there is a client CA; else
            it is asked for one, and may have none.

    Raises:
        ConfigError: the files cannot be used.
    """
    reloader = TlsReloader(files)
    context = _load(files, demands_client=demands_client)

    def choose(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        nonlocal context
        if reloader.find_change() is not None:
            try:
                context = _load(files, demands_client=demands_client)
            except ConfigError as exc:
                _log.error("new TLS files are not usable, the old ones stay: %s", exc)
        connection.context = context

    context.sni_callback = choose
    return context


def _load(files: TlsFiles, *, demands_client: bool) -> ssl.SSLContext:
    # Not the default context: from Python 3.13 on it refuses authorities without key usage.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.cert, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if demands_client else ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            [Problem(file=str(files.cert), message=f"cannot be used: {exc}")]
        ) from exc
    return context
