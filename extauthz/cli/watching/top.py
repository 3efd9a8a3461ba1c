"""``extauthz top``: shows in the terminal what a running service decides, and keeps it current.

It asks the API of the service's admin listener. While that does not answer, the last frame stays
there, with a line that says so.
"""

from __future__ import annotations

import argparse
import signal
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from extauthz.cli.watching.admin_api import AdminApi, add_admin_arguments
from extauthz.cli.watching.frame import draw_frame
from extauthz.envoy.diagnosis.admin import AdminError
from extauthz.plain_text import write_plain

_PATHS: Final = ("status", "rates", "limits?limit=8")
_SHORTEST_S: Final = 0.5
_LONGEST_S: Final = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    add_admin_arguments(parser)
    parser.add_argument(
        "--every",
        type=_read_seconds,
        default=2.0,
        metavar="SECONDS",
        help="how often it asks (default: 2)",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="print one frame and end; so it does where the output is no terminal",
    )


def _read_seconds(text: str) -> float:
    seconds = float(text)
    if not _SHORTEST_S <= seconds <= _LONGEST_S:  # nor a NaN
        raise ValueError(text)
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Shows frames until Ctrl-C, or one.

    Raises:
        AdminError: the first frame could not be had; the text says why.
    """
    api = AdminApi(arguments)
    console = Console(highlight=False, markup=False, emoji=False)
    frame = _make_frame(api, console)
    if arguments.once or not console.is_terminal or console.is_dumb_terminal:
        console.print(frame)
        return 0
    # A terminal that is left as it was needs an end that can be caught.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        _show(api, console, frame, arguments.every)
    return 0


def _show(api: AdminApi, console: Console, frame: Group, every_s: float) -> None:
    never = Event()
    with Live(frame, console=console, screen=True, auto_refresh=False) as live:
        while True:
            never.wait(every_s)
            try:
                frame = _make_frame(api, console)
                live.update(frame, refresh=True)
            except AdminError as error:
                said = Text(write_plain(str(error)), style="bold red", overflow="fold")
                live.update(Group(said, frame), refresh=True)


def _make_frame(api: AdminApi, console: Console) -> Group:
    status, rates, limits = api.ask(*_PATHS)
    return draw_frame(
        status, rates, limits, url=api.url, now=datetime.now(UTC), width=console.width
    )
