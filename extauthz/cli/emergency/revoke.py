"""``extauthz revoke``: revokes a token, an API key, or all tokens of a consumer or user, at once.

Tokens and keys are read from a file or from standard input: a command line is visible to every user
of the machine, and is kept by the shell.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import hmac
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from extauthz.cli.emergency.block import give
from extauthz.cli.emergency.orders import add_common_arguments, complain, make_order
from extauthz.documents.document import read_file
from extauthz.model.decision import Denial
from extauthz.model.identity import Secret
from extauthz.policy.authentication.claims import read_numeric_date_us
from extauthz.policy.authentication.tokens import (
    MAX_TOKEN_BYTES,
    UnverifiedToken,
    has_bearer_form,
    read_claims,
    read_token,
    token_digest,
)
from extauthz.settings.reading import read_secret_file, read_settings
from extauthz.settings.tree import Settings

_KEPT_AFTER_EXPIRY: Final = timedelta(hours=1)
"""Longer than any leeway for clocks."""
_LONGEST_TYPED: Final = 4095
"""Bytes of a line that Linux passes on from a terminal; the rest is lost."""
_MAX_TEXT: Final = MAX_TOKEN_BYTES + 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.description = (
        "Take back a token, an API key, or all tokens of a consumer key or user, on every "
        "replica within a second. `extauthz unblock ID` undoes it."
    )
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--token-file", metavar="FILE", help="file with the token; - to type it in")
    kinds.add_argument("--jti", help="the token's jti claim")
    kinds.add_argument("--api-key-file", metavar="FILE", help="file with the key; - to type it in")
    kinds.add_argument("--api-key-hash", metavar="HEX", help="as the catalog has it")
    kinds.add_argument("--consumer-key", help="all tokens of this consumer key (client id)")
    kinds.add_argument("--user", help="all tokens of this user")
    parser.add_argument(
        "--issuer", help="issuer of the jti, consumer key or user; any when left out"
    )
    parser.add_argument(
        "--issued-before", metavar="TIME", help="for --consumer-key and --user (default: now)"
    )
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when nothing was done, or a process does not have it in force."""
    settings = read_settings(arguments.config)
    try:
        fields, key = _read_fields(arguments)
        order = make_order("revoked", arguments, **fields)
    except ValueError as error:
        complain(str(error))
        return 2
    keys: tuple[bytes, ...] = ()
    if arguments.api_key_file or arguments.api_key_hash:
        keys = (bytes.fromhex(order.document.conditions["sha256"]), *_hash(key, settings))
    return asyncio.run(give(order, settings, arguments, keys))


def _read_fields(arguments: argparse.Namespace) -> tuple[dict[str, Any], Secret | None]:
    """The fields of the order, and the API key when the key itself was given.

    Raises:
        ValueError: it cannot be read; the text repeats nothing of it.
    """
    fields: dict[str, Any] = {}
    key: Secret | None = None
    if arguments.token_file:
        text = _read_secret(arguments.token_file, "token")
        if text[:7].lower() == "bearer ":
            text = text[7:].strip()
        if not has_bearer_form(text):
            # Who sent it would be asked for another credential: nothing would be taken back.
            raise ValueError("what stands there is no token; write it alone, without quotes")
        fields["sha256"] = token_digest(text).hex()
        token = read_token(text)
        claims = read_claims(token) if isinstance(token, UnverifiedToken) else token
        if not isinstance(claims, Denial):
            expires_us = read_numeric_date_us(claims.get("exp"))
            if expires_us is not None:
                ends = datetime.fromtimestamp(expires_us // 1_000_000, UTC)
                fields["until"] = ends + _KEPT_AFTER_EXPIRY
    elif arguments.api_key_file:
        key = Secret(_read_secret(arguments.api_key_file, "API key"))
        fields["sha256"] = key.digest().hex()
    elif arguments.api_key_hash:
        fields["sha256"] = arguments.api_key_hash
    else:
        for name in ("jti", "consumer_key", "user"):
            fields[name] = getattr(arguments, name)
        if not arguments.jti:
            # Tokens have whole seconds: those of the current second are revoked, too.
            now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
            fields["issued_before"] = arguments.issued_before or now
    if arguments.issued_before and "issued_before" not in fields:
        raise ValueError("--issued-before goes with --consumer-key or --user")
    return {**fields, "issuer": arguments.issuer}, key


def _read_secret(name: str, what: str) -> str:
    """A secret from a file, or from standard input without an echo."""
    if name == "-" and sys.stdin.isatty():
        text = getpass.getpass(f"{what}: ")
        if len(text) >= _LONGEST_TYPED:
            raise ValueError(f"a terminal cuts what is typed in; put the {what} into a file")
    elif name == "-":
        text = sys.stdin.read(_MAX_TEXT)
    else:
        text = read_file(Path(name), max_bytes=_MAX_TEXT).decode("utf-8", "replace")
    text = text.strip()
    if not text or not text.isprintable():
        raise ValueError(f"no {what} stands there on one line")
    return text


def _hash(key: Secret | None, settings: Settings) -> tuple[bytes, ...]:
    """How a catalog with a pepper knows an API key."""
    file = settings.credentials.api_key_pepper_file
    if key is None or file is None:
        return ()
    pepper = read_secret_file(file).reveal().encode()
    return (hmac.digest(pepper, key.reveal().encode(), "sha256"),)
