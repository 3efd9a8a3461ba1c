"""``extauthz demo``: a real Envoy, a sample upstream and the service, on this machine."""

from __future__ import annotations

import argparse
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.demo.api_manager.demonstration import (
    REFRESH,
    Seed,
    change_and_call,
    publish_seed,
)
from extauthz.demo.api_manager.demonstration import script_calls as script_wso2_calls
from extauthz.demo.api_manager.server import USER, ApiManager, run_api_manager
from extauthz.demo.calls import Outcome, make_call, script_calls
from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import choose_host, find_envoy, run_envoy, run_extauthz
from extauthz.demo.stage import (
    BASE_PATH,
    Ports,
    Stage,
    Surroundings,
    set_stage,
    write_surroundings,
)
from extauthz.demo.upstream import run_upstream
from extauthz.errors import ConfigError, Problem

_ENVOY_PORT: Final = 10000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--keep", action="store_true", help="leave it running, and print curl lines to try"
    )
    parser.add_argument(
        "--wso2",
        action="store_true",
        help="take the catalog from a stand-in for WSO2 API Manager, and change it meanwhile",
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="write the configuration here, and keep it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when any call shows something else than it should."""
    console = Console(highlight=False, markup=False)
    # Ends as Ctrl-C does: what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demonstrate = _run_wso2 if arguments.wso2 else _run
    if arguments.folder is not None:
        _make_folder(arguments.folder)
        return demonstrate(arguments.folder.absolute(), console, keep=arguments.keep)
    with tempfile.TemporaryDirectory(prefix="extauthz-demo-") as folder:
        return demonstrate(Path(folder), console, keep=arguments.keep)


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
    host = choose_host()
    with run_upstream() as upstream:
        stage = set_stage(folder, upstream, _find_ports(), host=host)
        console.print(f"[1/3] upstream on {upstream}, configuration in {folder}")
        with _running(stage, host, console, first=2, steps=3) as client:
            outcomes = [make_call(client, call) for call in script_calls(stage)]
            is_good = _print_outcomes(outcomes, console)
            if keep:
                with suppress(KeyboardInterrupt):
                    _print_curl_lines(stage, console)
                    signal.pause()
    return 0 if is_good else 1


def _run_wso2(folder: Path, console: Console, *, keep: bool) -> int:
    host, password = choose_host(), secrets.token_urlsafe(16)
    with run_upstream() as upstream, run_api_manager(folder, password=password) as manager:
        console.print(f"[1/4] upstream on {upstream}, configuration in {folder}")
        console.print(f"[2/4] stand-in for an API Manager {manager.release} on {manager.url}")
        seed = publish_seed(manager)
        (folder / "apim-password").touch(mode=0o600)
        (folder / "apim-password").write_text(password)
        wso2 = {
            "url": manager.url,
            "username": USER,
            "password_file": "apim-password",
            "ca": manager.ca_file.name,
            "refresh": REFRESH,
        }
        stage = write_surroundings(folder, upstream, _find_ports(), {"wso2": wso2}, host=host)
        with _running(stage, host, console, first=3, steps=4) as client:
            outcomes = [make_call(client, call) for call in script_wso2_calls(manager, seed)]
            outcomes += change_and_call(manager, seed, client, console.print)
            is_good = _print_outcomes(outcomes, console)
            if keep:
                with suppress(KeyboardInterrupt):
                    _print_wso2_lines(stage, manager, seed, console)
                    signal.pause()
    return 0 if is_good else 1


def _find_ports() -> Ports:
    return Ports(
        grpc=find_free_port(),
        admin=find_free_port(),
        envoy=find_free_port(_ENVOY_PORT),
        envoy_admin=find_free_port(),
    )


@contextmanager
def _running(
    stage: Surroundings, host: str, console: Console, *, first: int, steps: int
) -> Iterator[httpx2.Client]:
    """Runs the service and Envoy during the block; gives a client of Envoy.

    Args:
        first, steps: the number of the first step that is told, and of all.
    """
    envoy = find_envoy()
    console.print(f"[{first}/{steps}] extauthz on {stage.grpc_address}, host {host} …")
    url = f"http://127.0.0.1:{stage.envoy_port}"
    folder = stage.folder
    with run_extauthz(stage.settings_file, stage.grpc_address, folder / "extauthz.log"):
        console.print(f"[{first + 1}/{steps}] Envoy on 127.0.0.1:{stage.envoy_port} …")
        with (
            run_envoy(stage.bootstrap_file, stage.envoy_admin_port, folder / "envoy.log", envoy),
            httpx2.Client(base_url=url, timeout=30, trust_env=False) as client,
        ):
            yield client


def _print_outcomes(outcomes: list[Outcome], console: Console) -> bool:
    """Prints the table; whether all calls showed what they should."""
    console.print(_table(outcomes))
    good = sum(outcome.as_expected for outcome in outcomes)
    console.print(f"{good} of {len(outcomes)} calls showed what they should.")
    return good == len(outcomes)


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
    _print_lines(
        console,
        f"  curl -i {url}/ip",
        f"  curl -i -H 'x-api-key: {stage.keys['mobile']}' {url}/ip",
        f"  curl -i -H 'authorization: Bearer {token}' {url}/headers",
        f"Change the files in {stage.folder / 'catalog'}: they are read again within a second or two.",
        *_list_questions(stage),
    )


def _print_wso2_lines(
    stage: Surroundings, manager: ApiManager, seed: Seed, console: Console
) -> None:
    url = f"http://127.0.0.1:{stage.envoy_port}{BASE_PATH}"
    token = manager.keys.sign(seed.stranger, "scope_ip")
    _print_lines(
        console,
        f"  curl -i {url}/ip",
        f"  curl -i -H 'authorization: Bearer {token}' {url}/ip",
        *_list_questions(stage),
    )


def _list_questions(stage: Surroundings) -> Iterator[str]:
    yield f"Watch: http://127.0.0.1:{stage.admin_port}/ in a browser, or"
    yield f"  extauthz top --admin http://127.0.0.1:{stage.admin_port}"
    url = f"http://127.0.0.1:{stage.envoy_port}{BASE_PATH}"
    yield f"Ask why: extauthz explain --config {stage.settings_file} --url {url}/ip"
    yield f"Ask Envoy: extauthz doctor --envoy-admin http://127.0.0.1:{stage.envoy_admin_port}"


def _print_lines(console: Console, *lines: str) -> None:
    for line in ("", "It stays up until Ctrl-C. Try:", *lines):
        console.print(line, soft_wrap=True)
