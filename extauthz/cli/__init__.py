"""The command line. Each command is a module here with `add_arguments` and `run`.

Exit codes: 0 good, 1 problems found, 2 wrong usage, 3 could not start. Errors go to standard
error, one line each; never a traceback for what a user can put right.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Final

from extauthz.errors import ConfigError, ExtauthzError

PROBLEMS_FOUND: Final = 1
COULD_NOT_START: Final = 3

_COMMANDS: Final = {
    "serve": "run the service",
    "demo": "show it all on this machine, with a real Envoy",
    "validate": "check settings and catalog, and print every problem",
    "explain": "decide one request and show each step; charges nothing",
    "key": "make an API key, or hash one",
    "schema": "print a JSON Schema for editors",
    "envoy-config": "print configuration for Envoy",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="extauthz",
        description="API management for a service mesh: keys, tokens, subscriptions, scopes and "
        "rate limits, decided for Envoy.",
    )
    parser.add_argument("--version", action="version", version=f"extauthz {version('extauthz')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        _module(name).add_arguments(command)
    chosen = parser.parse_args(arguments)
    try:
        code: int = _module(chosen.command).run(chosen)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return COULD_NOT_START
    except ExtauthzError as error:
        print(f"extauthz: {error}", file=sys.stderr)
        return COULD_NOT_START
    except BrokenPipeError:
        # The reader of our output has seen enough, as with `| head`.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"extauthz.cli.{command.replace('-', '_')}")
