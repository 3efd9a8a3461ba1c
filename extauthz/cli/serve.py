"""``extauthz serve``: runs the service."""

from __future__ import annotations

import argparse
import logging
import os
import sys
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
    parser.add_argument("--host", choices=["grpcio"], help="overrides server.host")


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is told to stop."""
    # gRPC's core would print lines of its own beside the clear ones.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import uvloop

    from extauthz.app.service import serve

    settings = read_settings(arguments.config)
    logging.basicConfig(
        level=settings.log.level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # They log each request's URL, and each change of a file, at INFO.
    for name in ("httpx", "httpcore", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uvloop.run(serve(settings))
    return 0
