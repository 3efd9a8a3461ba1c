"""``extauthz serve``: runs the service."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from extauthz.config import DEFAULT_FILE, read_settings


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
    start_log(settings.log)
    uvloop.run(serve(settings))
    return 0
