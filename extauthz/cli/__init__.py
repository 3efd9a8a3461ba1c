"""The command line. Each command is a module here with `add_arguments` and `run`.

Exit codes: 0 good, 1 problems found, 2 wrong usage, 3 could not start. Errors go to standard
error, one line each; never a traceback for what a user can put right. Only the module of the
chosen command is imported, so that help is there at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Final

from extauthz.errors import ConfigError, ExtauthzError
from extauthz.plain_text import write_plain

PROBLEMS_FOUND: Final = 1
WRONG_USAGE: Final = 2
COULD_NOT_START: Final = 3
INTERRUPTED: Final = 130
"""What shells give to a program that SIGINT ended."""

COMMANDS: Final = {
    "serve": "run the service",
    "demo": "show it all on this machine, with a real Envoy",
    "validate": "check settings and catalog, and print every problem",
    "explain": "decide one request and show each step; charges nothing",
    "top": "show in the terminal what a running service decides, and keep it current",
    "doctor": "say why a running Envoy does not ask the service, or gets no answer",
    "block": "an emergency: refuse a client, application, user or API on every replica, at once",
    "unblock": "take blocks and revocations back",
    "revoke": "an emergency: take back a token, an API key, or all tokens of somebody",
    "blocks": "list what is blocked and revoked beside the catalog",
    "key": "make an API key, or hash one",
    "schema": "print a JSON Schema for editors",
    "envoy-config": "print configuration for Envoy",
    "mixer-manifests": "print objects for an Istio Mixer",
    "migrate": "turn Mixer's objects into a catalog, settings and Istio policies",
    "usage": "sum what applications used, from the files that `usage.file` names",
    "compare": "list where Envoy's door and Mixer's decided differently",
}

_FOLDERS: Final = {
    **dict.fromkeys(("block", "unblock", "revoke", "blocks"), "emergency"),
    "top": "watching",
}
"""Where commands are that are not in this folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code. Wrong usage raises SystemExit(2)."""
    chosen = read_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        code: int = _module(chosen.command).run(chosen)
        sys.stdout.flush()
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return COULD_NOT_START
    except ExtauthzError as error:
        print(f"extauthz: {write_plain(str(error))}", file=sys.stderr)
        return COULD_NOT_START
    except BrokenPipeError:
        # The reader of our output has seen enough, as with `| head`. What is still buffered
        # must not fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its arguments. Raises SystemExit: 2 for wrong usage, 0 after help."""
    parser = argparse.ArgumentParser(
        prog="extauthz",
        description="API management for a service mesh: keys, tokens, subscriptions, scopes and "
        "rate limits, decided for Envoy.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"extauthz {version('extauthz')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
        )
        if name == chosen:
            _module(name).add_arguments(command)
    return parser.parse_args(arguments)


def _module(command: str) -> ModuleType:
    folder = f"{_FOLDERS[command]}." if command in _FOLDERS else ""
    return importlib.import_module(f"extauthz.cli.{folder}{command.replace('-', '_')}")
