"""Asks the API of a service's admin listener, for the commands that show what a service does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from extauthz.cli.watching.admin_tls import make_admin_tls
from extauthz.envoy.diagnosis.admin import EXTAUTHZ, AdminClient, AdminError
from extauthz.settings.reading import read_secret_file

_DEFAULT: Final = "http://127.0.0.1:9003"
_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 8 * 1024 * 1024
_OPTION: Final = "--admin"


def add_admin_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which listener is asked, and with which token."""
    parser.add_argument(
        _OPTION,
        default=_DEFAULT,
        metavar="URL",
        help="the service's admin listener (listen.admin): a URL, or unix:/path "
        f"(default: {_DEFAULT})",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        help="a PEM file: who may have signed its certificate, with https (default: the system's "
        "authorities)",
    )
    parser.add_argument(
        "--cert",
        type=Path,
        metavar="FILE",
        help="a PEM file: the client certificate that the listener lets in (admin.tls.client_ca)",
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="a PEM file: its private key, if not in --cert"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a file with the token of the listener, where it asks for one",
    )


class AdminApi:
    """The API behind the arguments of `add_admin_arguments`.

    Raises:
        AdminError: the URL is invalid.
        ConfigError: a file cannot be used.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.url: str = arguments.admin
        self._headers = {"accept": "application/json"}
        if arguments.token_file is not None:
            token = read_secret_file(arguments.token_file)
            self._headers["authorization"] = f"Bearer {token.reveal()}"
        self._has_token = arguments.token_file is not None
        self._has_certificate = arguments.cert is not None
        self._tls = make_admin_tls(
            self.url, ca=arguments.ca, cert=arguments.cert, key=arguments.key
        )
        self._make_client()

    def _make_client(self) -> AdminClient:
        return AdminClient(
            self.url,
            option=_OPTION,
            interface=EXTAUTHZ,
            tls=self._tls,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
            headers=self._headers,
        )

    def ask(self, *paths: str) -> list[dict[str, Any]]:
        """The answers to GET of paths below ``/api/``, all of them within five seconds.

        Raises:
            AdminError: one of them is not answered with 200; the text says what to do.
        """
        client = self._make_client()
        return [self._read(client, path) for path in paths]

    def _read(self, client: AdminClient, path: str) -> dict[str, Any]:
        name, _, query = path.partition("?")
        parameters = dict(pair.split("=") for pair in query.split("&") if pair)
        status, body = client.get(f"/api/{name}", **parameters)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        raise self._explain(client, status, answer)

    def _explain(self, client: AdminClient, status: int, answer: object) -> AdminError:
        error = answer.get("error") if isinstance(answer, dict) else None
        said = f": {error['message']}" if isinstance(error, dict) and "message" in error else ""
        code = error.get("code") if isinstance(error, dict) else None
        if status == 401:
            todo = "the token is not one of its own" if self._has_token else "give --token-file"
            if self._has_certificate:
                todo += ", or another --cert"
            return client.fail(f"asks for a token; {todo}{said}")
        if code == "certificate_needed":
            return client.fail(f"asks for a client certificate; give --cert and --key{said}")
        if error is None and status in (200, 404):
            return client.fail(
                "has no API: set admin.api in the settings of the service, or is this the address "
                "of another server?"
            )
        return client.fail(f"answers with {status}{said}")
