"""``extauthz key``: makes an API key, or hashes one. The key itself is shown once, here."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import hmac
import secrets
import sys
from pathlib import Path
from typing import Final

from extauthz.model.identity import Secret

_BYTES: Final = 32
_PREFIX: Final = "xak_"
"""Lets secret scanners find keys that leaked into a repository."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="new|hash")
    for name, summary in (
        ("new", "make a key and print it with its hash"),
        ("hash", "hash the key on standard input"),
    ):
        action = actions.add_parser(name, help=summary, description=summary.capitalize() + ".")
        action.add_argument(
            "--pepper-file",
            type=Path,
            metavar="FILE",
            help="hash with HMAC-SHA-256 under this secret (settings: api_key_pepper_file)",
        )


def run(arguments: argparse.Namespace) -> int:
    """Prints the line that goes into a catalog. Exit code 1 when there is no key to hash."""
    file: Path | None = arguments.pepper_file
    pepper = None if file is None else _read_pepper(file)
    if arguments.action == "new":
        key = _PREFIX + secrets.token_urlsafe(_BYTES)
        print(f"key: {key}")
    else:
        try:
            key = _read_key()
            key.encode()
        except UnicodeError:
            print("extauthz: the key on standard input is not UTF-8 text", file=sys.stderr)
            return 1
        if not key:
            print("extauthz: no key came on standard input", file=sys.stderr)
            return 1
    print(write_digest(key, pepper))
    return 0


def _read_pepper(file: Path) -> Secret:
    from extauthz.settings.reading import read_secret_file  # takes most of a second to import

    return read_secret_file(file)


def _read_key() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("API key: ").strip()
    return sys.stdin.readline().strip()


def write_digest(key: str, pepper: Secret | None = None) -> str:
    """A key's digest as a catalog holds it: ``sha256: …`` or ``hmac_sha256: …``."""
    if pepper is None:
        return f"sha256: {hashlib.sha256(key.encode()).hexdigest()}"
    return f"hmac_sha256: {hmac.digest(pepper.reveal().encode(), key.encode(), 'sha256').hex()}"
