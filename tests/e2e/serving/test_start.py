"""What cannot be started says why, one line for each problem, and leaves with its own exit code."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import pytest
import yaml

from tests.commands import run_command

pytestmark = pytest.mark.e2e

CATALOG: Final = {
    "apis": [
        {
            "name": "Any",
            "version": "1.0.0",
            "context": "/any",
            "resources": [{"methods": ["GET"], "path": "/open"}],
        }
    ]
}
SETTINGS: Final = {"listen": {"grpc": "127.0.0.1:0"}, "catalog": {"files": ["catalog"]}}


def run(*arguments: str, folder: Path, **environment: str) -> CompletedProcess[str]:
    """Runs extauthz in a folder until it ends."""
    done = run_command(*arguments, folder=folder, environment={**os.environ, **environment})
    return CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def problems_of(done: CompletedProcess[str]) -> list[str]:
    """What a start that was refused as it should be says on standard error, but for its log."""
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if not _is_logged(line)]


def _is_logged(line: str) -> bool:
    """What went well before the problem; or what gRPC's core says on its own, in glog's form."""
    return re.match(r"\d{4}-\d\d-\d\d \S+ INFO |E\d{4} ", line) is not None


@pytest.fixture
def folder(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings and a catalog that are good, until a test spoils them. `run` takes the host."""
    monkeypatch.setenv("EXTAUTHZ_SERVER__HOST", host)
    write(tmp_path / "extauthz.yaml", SETTINGS)
    (tmp_path / "catalog").mkdir()
    write(tmp_path / "catalog" / "apis.yaml", CATALOG)
    return tmp_path


def write(file: Path, tree: Any) -> None:
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def test_good_files_are_no_problem(folder: Path) -> None:
    assert run("validate", folder=folder).returncode == 0


SPOILT_SETTINGS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "no YAML": ("listen: [\n", (r"extauthz\.yaml:\d+: .+",)),
    "empty": ("", (r"extauthz\.yaml:1: .+",)),
    "an unknown key": (
        "catalog: {files: [catalog]}\nlisten:\n  grcp: 127.0.0.1:0\n",
        (r"extauthz\.yaml:3: listen\.grcp: .+",),
    ),
    "no catalog": ("listen: {grpc: 127.0.0.1:0}\n", (r"extauthz\.yaml:1: catalog is missing; .+",)),
    "several problems": (
        "catalog:\n  files: []\nlisten:\n  grpc: nowhere\nserver:\n  grace: soon\n  color: red\n",
        (
            r"extauthz\.yaml:2: catalog\.files: .+",
            r"extauthz\.yaml:4: listen\.grpc: .+",
            r"extauthz\.yaml:6: server\.grace: .+",
            r"extauthz\.yaml:7: server\.color: .+",
        ),
    ),
    "a catalog that is not there": (
        "catalog: {files: [nowhere.yaml]}\n",
        (r"extauthz\.yaml:1: catalog\.files\[0\]: .*nowhere\.yaml does not exist; .+",),
    ),
    "certificates that are not there": (
        "catalog: {files: [catalog]}\nlisten: {grpc: 127.0.0.1:0}\n"
        "server: {tls: {cert: no.crt, key: no.key, client_ca: no-ca.crt}}\n",
        tuple(
            rf"extauthz\.yaml:3: server\.tls\.{key}: .*{file} cannot be read: .+"
            for key, file in (
                ("cert", r"no\.crt"),
                ("key", r"no\.key"),
                ("client_ca", r"no-ca\.crt"),
            )
        ),
    ),
    "a pepper that is not there": (
        "catalog: {files: [catalog]}\ncredentials: {api_key_pepper_file: no-pepper}\n",
        (r"extauthz\.yaml:2: credentials\.api_key_pepper_file: .*no-pepper does not exist; .+",),
    ),
}


@pytest.mark.parametrize(("settings", "expected"), SPOILT_SETTINGS.values(), ids=SPOILT_SETTINGS)
def test_bad_settings_are_refused_with_every_problem(
    folder: Path, settings: str, expected: tuple[str, ...]
) -> None:
    (folder / "extauthz.yaml").write_text(settings)
    problems = problems_of(run("serve", folder=folder))
    assert len(problems) == len(expected), problems
    for problem, pattern in zip(sorted(problems), sorted(expected), strict=True):
        assert re.fullmatch(pattern, problem), problem


def test_a_bad_catalog_is_refused_with_every_problem(folder: Path) -> None:
    tree: dict[str, Any] = {
        **CATALOG,
        "subscriptions": [{"application": "nobody", "api": "Any", "version": "1.0.0"}],
        "applications": [{"name": "mobile", "tier": "Golden"}],
    }
    file = folder / "catalog" / "apis.yaml"
    write(file, tree)
    (folder / "catalog" / "more.yaml").write_text("apis: [\n")
    lines = file.read_text().splitlines()
    first = problems_of(run("serve", folder=folder))
    # What the others lack may be in the file that cannot be read.
    assert len(first) == 1, first
    assert re.fullmatch(r".*more\.yaml:\d+: .+", first[0])
    (folder / "catalog" / "more.yaml").unlink()
    problems = problems_of(run("serve", folder=folder))
    assert len(problems) == 2, problems
    for word in ("nobody", "Golden"):
        number = next(n for n, line in enumerate(lines, start=1) if word in line)
        assert any(
            problem.startswith(f"{file}:{number}: ") and word in problem for problem in problems
        ), problems


def test_a_folder_without_a_catalog_is_refused(folder: Path) -> None:
    (folder / "catalog" / "apis.yaml").unlink()
    (problem,) = problems_of(run("serve", folder=folder))
    assert str(folder / "catalog") in problem


def test_missing_settings_are_refused(folder: Path) -> None:
    (problem,) = problems_of(run("serve", "--config", "nowhere.yaml", folder=folder))
    assert problem == "nowhere.yaml: does not exist; check the path"
    (folder / "extauthz.yaml").unlink()
    (problem,) = problems_of(run("serve", folder=folder))
    assert problem.startswith("extauthz.yaml: does not exist")
    (problem,) = problems_of(run("serve", "--config", "catalog", folder=folder))
    assert problem.startswith("catalog: is a folder")


def test_a_bad_variable_is_named(folder: Path) -> None:
    (problem,) = problems_of(run("serve", folder=folder, EXTAUTHZ_SERVER__GRACE="soon"))
    assert problem.startswith("EXTAUTHZ_SERVER__GRACE: ")


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        write(folder / "extauthz.yaml", {**SETTINGS, "listen": {"grpc": address}})
        (problem,) = problems_of(run("serve", folder=folder))
    assert problem.startswith(f"extauthz: {address}: cannot be listened on")


def test_a_file_in_the_place_of_the_socket_stays_and_is_named(folder: Path) -> None:
    path = folder / "precious"
    path.write_text("keep me")
    write(folder / "extauthz.yaml", {**SETTINGS, "listen": {"grpc": f"unix:{path}"}})
    (problem,) = problems_of(run("serve", folder=folder))
    assert problem.startswith(f"extauthz: unix:{path}: there is a file that is no socket")
    assert path.read_text() == "keep me"


def test_a_problem_does_not_repeat_a_secret(folder: Path) -> None:
    secret = "xak_that-nobody-may-see"
    tree = {**CATALOG, "applications": [{"name": "mobile", "api_keys": [{"key": secret}]}]}
    write(folder / "catalog" / "apis.yaml", tree)
    problems = problems_of(run("serve", folder=folder))
    assert any("applications[0].api_keys[0]" in problem for problem in problems)
    assert secret not in "\n".join(problems)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    tree = {**CATALOG, "applications": [{"name": "mobile", "api_keys": [{"sha256": digest + "0"}]}]}
    write(folder / "catalog" / "apis.yaml", tree)
    assert digest not in "\n".join(problems_of(run("serve", folder=folder)))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("serve", "--nothing"),
        ("serve", "--host", "nothing"),
        ("serve", "extra"),
        ("explain",),
        ("key",),
        ("schema", "nothing"),
    ],
    ids=" ".join,
)
def test_wrong_usage_has_its_own_exit_code(folder: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("usage: extauthz")
    assert "Traceback" not in done.stderr
