"""``extauthz demo``: a real Envoy, a sample upstream and the service, on this machine."""

from __future__ import annotations

import argparse
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.demo.calls import Outcome, make_call, script_calls
from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import choose_host, find_envoy, run_envoy, run_extauthz
from extauthz.demo.stage import BASE_PATH, Stage, set_stage
from extauthz.demo.upstream import run_upstream
from extauthz.errors import ConfigError, Problem

_ENVOY_PORT: Final = 10000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--keep", action="store_true", help="leave it running, and print curl lines to try"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="write the configuration here, and keep it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when any call shows something else than it should."""
    console = Console(highlight=False, markup=False)
    # Ends as Ctrl-C does: what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.folder is not None:
        _make_folder(arguments.folder)
        return _run(arguments.folder.absolute(), console, keep=arguments.keep)
    with tempfile.TemporaryDirectory(prefix="extauthz-demo-") as folder:
        return _run(Path(folder), console, keep=arguments.keep)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Said now, in place of a failure half way.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        message = f"cannot be written into: {exc.strerror}; name another folder"
        raise ConfigError([Problem(file=str(folder), message=message)]) from exc


def _run(folder: Path, console: Console, *, keep: bool) -> int:
    envoy, host = find_envoy(), choose_host()
    with run_upstream() as upstream:
        stage = set_stage(
            folder,
            upstream,
            grpc=find_free_port(),
            admin=find_free_port(),
            envoy=find_free_port(_ENVOY_PORT),
            envoy_admin=find_free_port(),
            host=host,
        )
        console.print(f"[1/3] upstream on {upstream}, configuration in {folder}")
        console.print(f"[2/3] extauthz on {stage.grpc_address}, host {host} …")
        with run_extauthz(stage.settings_file, stage.grpc_address, folder / "extauthz.log"):
            console.print(f"[3/3] Envoy on 127.0.0.1:{stage.envoy_port} …")
            with run_envoy(
                stage.bootstrap_file, stage.envoy_admin_port, folder / "envoy.log", envoy
            ):
                outcomes = _make_calls(stage)
                console.print(_table(outcomes))
                good = sum(outcome.as_expected for outcome in outcomes)
                console.print(f"{good} of {len(outcomes)} calls showed what they should.")
                if keep:
                    with suppress(KeyboardInterrupt):
                        _print_curl_lines(stage, console)
                        signal.pause()
    return 0 if good == len(outcomes) else 1


def _make_calls(stage: Stage) -> list[Outcome]:
    url = f"http://127.0.0.1:{stage.envoy_port}"
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        return [make_call(client, call) for call in script_calls(stage)]


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="What Envoy's clients get")
    table.add_column("call", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("seen", overflow="fold")
    for outcome in outcomes:
        style = "green" if outcome.status < 400 else "yellow"
        answer = Text(str(outcome.status), style=style)
        if not outcome.as_expected:
            answer = Text(f"{outcome.status}, not {outcome.call.expected_status}", style="bold red")
        table.add_row(outcome.call.title, answer, outcome.reason or "allowed", outcome.remark)
    return table


def _print_curl_lines(stage: Stage, console: Console) -> None:
    url = f"http://127.0.0.1:{stage.envoy_port}{BASE_PATH}"
    token = stage.sign_token("scope_ip", "scope_headers")
    lines = (
        "",
        "It stays up until Ctrl-C. Try:",
        f"  curl -i {url}/ip",
        f"  curl -i -H 'x-api-key: {stage.keys['mobile']}' {url}/ip",
        f"  curl -i -H 'authorization: Bearer {token}' {url}/headers",
        f"Change the files in {stage.folder / 'catalog'}: they are read again within a second or two.",
        f"Watch: http://127.0.0.1:{stage.admin_port}/ in a browser, or",
        f"  extauthz top --admin http://127.0.0.1:{stage.admin_port}",
        f"Ask why: extauthz explain --config {stage.settings_file} --url {url}/ip",
        f"Ask Envoy: extauthz doctor --envoy-admin http://127.0.0.1:{stage.envoy_admin_port}",
    )
    for line in lines:
        console.print(line, soft_wrap=True)
