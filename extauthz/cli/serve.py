"""``extauthz serve``: runs the service."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from extauthz.settings.reading import (
    DEFAULT_FILE,
    check_conflicts,
    read_settings,
    say_where_files_are_named,
)
from extauthz.settings.tree import MAX_WORKERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_FILE),
        metavar="FILE",
        help=f"settings file (default: {DEFAULT_FILE})",
    )
    parser.add_argument("--host", choices=["grpcio", "envoy"], help="overrides server.host")
    parser.add_argument(
        "--workers", type=_read_workers, metavar="N", help="overrides server.workers"
    )


def _read_workers(text: str) -> int:
    try:
        workers = int(text)
    except ValueError:
        workers = 0
    if not 1 <= workers <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MAX_WORKERS}")
    return workers


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is told to stop."""
    # gRPC's core would print lines of its own beside the clear ones.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import uvloop

    from extauthz.app.log import start_log
    from extauthz.app.serve import serve

    settings = read_settings(arguments.config)
    if arguments.host is not None:
        settings = settings.with_host(arguments.host)
    if arguments.workers is not None:
        settings = settings.with_workers(arguments.workers)
        check_conflicts(settings)
    start_log(settings.log)
    with say_where_files_are_named(arguments.config, settings):
        uvloop.run(serve(settings))
    return 0
