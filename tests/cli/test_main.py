"""Exit codes, errors of one line, and help that is there at once."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from extauthz.cli import COMMANDS
from tests.cli.conftest import Run


def test_help_names_every_command(run: Run) -> None:
    done = run("--help")
    assert done.code == 0 and not done.err
    for command, summary in COMMANDS.items():
        assert command in done.out and summary in " ".join(done.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, run: Run) -> None:
    done = run(command, "--help")
    assert done.code == 0 and not done.err
    assert done.out.startswith(f"usage: extauthz {command} ")


def test_says_its_version(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, f"extauthz {version('extauthz')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("--nonsense",),
        ("--nonsense", "serve"),
        ("serve", "--nonsense"),
        ("serve", "--host", "nginx"),
        ("explain",),
        ("explain", "--url", "/", "--conf", "x"),
        ("key",),
        ("key", "newer"),
        ("schema",),
        ("schema", "everything"),
        ("envoy-config", "--admin-port", "70000"),
        ("envoy-config", "--timeout-ms", "0"),
        ("envoy-config", "--max-body-bytes", "much"),
        ("envoy-config", "--upstream", "nowhere"),
        ("envoy-config", "--listen", "localhost:80"),
        ("envoy-config", "--ca", "ca.crt"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(arguments: tuple[str, ...], run: Run) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert "extauthz" in done.err and not done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("explain", "--url", "/"),
        ("envoy-config",),
        ("key", "new", "--pepper-file", "missing"),
    ],
)
def test_what_cannot_start_is_3_with_one_line_for_each_problem(
    arguments: tuple[str, ...], folder: Path, run_program: Run
) -> None:
    (folder / "extauthz.yaml").write_text("listen: {grpc: x}\nlog: {level: loud}\n")
    done = run_program(*arguments)
    assert done.code == 3 and not done.out
    assert "Traceback" not in done.err
    lines = done.err.splitlines()
    if arguments[0] == "key":
        assert lines == ["missing: does not exist; check the path"]
    else:
        assert [line.split(": ")[0] for line in lines] == [
            "extauthz.yaml:1",
            "extauthz.yaml:1",
            "extauthz.yaml:2",
        ]


def test_serve_says_in_one_line_that_its_address_is_taken(folder: Path, run_program: Run) -> None:
    (folder / "file").write_text("no socket")
    settings = (folder / "extauthz.yaml").read_text() + f"listen: {{grpc: 'unix:{folder}/file'}}\n"
    (folder / "extauthz.yaml").write_text(settings)
    done = run_program("serve")
    assert done.code == 3
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1] == (
        f"extauthz: unix:{folder}/file: there is a file that is no socket; move it away"
    )


def test_a_reader_that_has_seen_enough_is_no_error(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "extauthz", "schema", "catalog"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait() == 0


def test_help_imports_no_command(folder: Path) -> None:
    script = (
        "import sys\nfrom extauthz.cli import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "print(*sorted(name for name in sys.modules if name in "
        "{'grpc', 'httpx2', 'pydantic', 'rich', 'yaml', 'envoy_data_plane'}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == "\n"
    assert "usage: extauthz" in done.stdout


_HEAVY = (
    "aiohttp cryptography envoy_data_plane google.protobuf grpc httpx2 jwt opentelemetry "
    "prometheus_client pydantic pyvoy re2 redis rich uvloop watchfiles yaml"
)
_SETTINGS_ONLY = "pydantic re2 yaml"
_WITH_CATALOG = f"{_SETTINGS_ONLY} cryptography jwt watchfiles"
_WITH_CORE = f"{_WITH_CATALOG} google.protobuf httpx2"


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        ("key new", ""),
        ("schema settings", _SETTINGS_ONLY),
        ("schema catalog", _SETTINGS_ONLY),
        ("serve --help", _SETTINGS_ONLY),
        ("block --help", _WITH_CATALOG),
        ("mixer-manifests --help", _WITH_CORE),
        ("explain --url /pets/1", f"{_WITH_CORE} rich"),
        ("validate", f"{_WITH_CORE} prometheus_client"),
    ],
)
def test_a_command_imports_the_heavy_libraries_that_it_needs_and_no_other(
    arguments: str, imported: str, folder: Path
) -> None:
    script = (
        "import sys\nfrom extauthz.cli import main\n"
        f"try:\n    main({arguments.split()})\nexcept SystemExit:\n    pass\n"
        f"print(*sorted(sys.modules.keys() & {_HEAVY.split()}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr.splitlines() == [" ".join(sorted(imported.split()))]


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--workers", "two"),
        ("envoy-config", "--timeout-ms", "soon"),
        ("mixer-manifests", "--timeout-ms", "soon"),
    ],
    ids=" ".join,
)
def test_what_is_no_number_is_told_as_one_that_does_not_fit(
    arguments: tuple[str, ...], run: Run
) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert f"argument {arguments[1]}: must be a number from 1 to " in done.err


def test_a_folder_that_the_demonstration_cannot_use_is_one_line_and_3(
    run: Run, folder: Path
) -> None:
    done = run("demo", "--folder", str(folder / "extauthz.yaml"))
    assert (done.code, done.out) == (3, "")
    assert "cannot be written into: File exists; name another folder" in done.err
    assert done.err.count("\n") == 1
