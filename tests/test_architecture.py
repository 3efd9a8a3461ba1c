"""The rules that keep the tree readable, held by machine.

Who may import whom stands in pyproject.toml (`[tool.importlinter]`); here it is only run.
"""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter import cli as import_linter

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".ci", ".github", "docs", "extauthz", "istio", "mixer_compat", "tests")
LOCK_FILES = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt")

MOST_LINES = {"tests": 700}
"""A test file is a list of cases, and may be longer than a module of the program."""
MOST_LINES_OF_PROGRAM = 400
"""About 300 is where a module usually holds two ideas; past this it is split."""

MOST_MODULES = 15
"""Of a folder, of the tests too; more are sorted into folders by what they do."""
MOST_LOOSE_MODULES = 6
"""In the package itself, with `__main__`; modules of a step or a part are in its folder."""

DRAWERS = re.compile(r"(^|_)(util|utils|helper|helpers|common|misc|stuff)(_|$)")
SLEEPS = {"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep"}
WAYS_NOT_TO_RUN = {"skip", "skipif", "xfail", "flaky", "importorskip"}

# Each is spelled so that it does not find itself.
WORDS_OF_ONE_MACHINE = {
    "a path of one developer's machine": r"(?<![\w.}])/(?:home|Users|root|work|farm)/\w",
    "a package registry's host": (
        r"pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian\.org|proxy\.golang|crates\.io"
    ),
    "unfinished work": r"\b(?:[T]ODO|[F]IXME|[X]XX)\b",
}


def _own_files() -> Iterator[Path]:
    loose = (path for path in ROOT.iterdir() if path.is_file())
    # A further work tree of git has a file `.git`, with the path of the first one.
    yield from (path for path in loose if path.suffix != ".pyc" and path.name != ".git")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and "_pb2" not in path.name:
                yield path


def _modules(*folders: str) -> list[Path]:
    return sorted(
        path
        for path in _own_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    )


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


PROGRAM = _modules("extauthz", "mixer_compat")
TESTS = _modules("tests")


def test_the_rules_see_the_tree() -> None:
    """An empty list would make every other test here pass for nothing."""
    assert {"extauthz/ports.py", "extauthz/model/request.py"} <= set(map(_name, PROGRAM))
    assert {"tests/builders.py", "tests/test_architecture.py"} <= set(map(_name, TESTS))


def test_every_import_contract_holds(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = import_linter.lint_imports(
        config_filename=str(ROOT / "pyproject.toml"), no_cache=True
    )
    # It sets logging up anew, and so silences every logger that was there before.
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
    said = capsys.readouterr().out
    assert exit_code == 0, said
    assert "The core knows no wire" in said


def test_importing_the_program_starts_nothing() -> None:
    watch = """
import sys, threading
started = []
def hook(event, arguments):
    if event in {"socket.bind", "socket.connect", "subprocess.Popen", "os.fork"}:
        started.append(event)
sys.addaudithook(hook)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
started += [thread.name for thread in threading.enumerate()][1:]
print(*started)
"""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in PROGRAM
        if path.name != "__main__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-c", watch, *names],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("path", [*PROGRAM, *TESTS], ids=_name)
def test_a_module_is_short_enough_to_hold_one_idea(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    folder = path.relative_to(ROOT).parts[0]
    assert lines <= MOST_LINES.get(folder, MOST_LINES_OF_PROGRAM)


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (*PROGRAM, *TESTS)} - {ROOT / "tests"}), ids=_name
)
def test_a_folder_is_small_enough_to_look_through(folder: Path) -> None:
    modules = [
        path.name
        for path in (*PROGRAM, *TESTS)
        if path.parent == folder and path.name != "__init__.py"
    ]
    most = MOST_LOOSE_MODULES if _name(folder) == "extauthz" else MOST_MODULES
    assert len(modules) <= most, modules


@pytest.mark.parametrize("path", [*PROGRAM, *TESTS], ids=_name)
def test_no_module_or_folder_is_a_drawer(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    assert not [part for part in parts if DRAWERS.search(part)]


@pytest.mark.parametrize("path", PROGRAM, ids=_name)
def test_a_module_and_its_public_names_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    defined = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    silent = [node.name for node in defined if not ast.get_docstring(node)]
    if tree.body and not ast.get_docstring(tree):
        silent.append("the module itself")
    assert not silent


@pytest.mark.parametrize("path", TESTS, ids=_name)
def test_no_test_sleeps_or_is_left_out(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SLEEPS:
            # sleep(0) gives others a turn and waits for no time to pass.
            if not (
                node.args and isinstance(node.args[0], ast.Constant) and not node.args[0].value
            ):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Attribute) and node.attr in WAYS_NOT_TO_RUN:
            owner = ast.unparse(node.value)
            if owner in {"pytest", "pytest.mark", "unittest"}:
                found.append(f"line {node.lineno}: {owner}.{node.attr}")
    assert not found


@pytest.mark.parametrize("what", WORDS_OF_ONE_MACHINE)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(WORDS_OF_ONE_MACHINE[what])
    found = []
    for path in _own_files():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # a picture or a golden wire message
        found += [
            f"{_name(path)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(lines, start=1)
            if pattern.search(line)
        ]
    assert not found


def _asked_for(requirements: list[str | dict[str, str]]) -> set[str]:
    names = (re.split(r"[^\w.-]", each)[0] for each in requirements if isinstance(each, str))
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def _locked(file: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / file).read_text(), flags=re.MULTILINE)
    return dict(pins)


def test_the_lock_files_pin_everything_that_is_asked_for() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = document["project"], document["dependency-groups"]
    runtime = _asked_for(project["dependencies"])
    extras = _asked_for(
        [name for extra in project["optional-dependencies"].values() for name in extra]
    )
    compiling = document["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    build = _asked_for(
        [*document["build-system"]["requires"], *groups["build"], *compiling["dependencies"]]
    )
    assert runtime <= _locked("requirements.txt").keys()
    assert build <= _locked("requirements-build.txt").keys()
    assert runtime | extras | build | _asked_for(groups["dev"]) <= (
        _locked("requirements-dev.txt").keys()
    )


def test_the_lock_files_agree_with_each_other() -> None:
    tested = _locked("requirements-dev.txt")
    for file in ("requirements.txt", "requirements-build.txt"):
        assert _locked(file).items() <= tested.items()


@pytest.mark.parametrize("file", LOCK_FILES)
def test_a_lock_file_has_hashes_and_names_no_index(file: str) -> None:
    text = (ROOT / file).read_text()
    comment, *pins = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)
    assert comment.startswith("#") and pins
    hashed = re.compile(r"[\w.-]+==\S+.* \\\n    --hash=sha256:[0-9a-f]{64}\b")
    assert not [pin for pin in pins if not hashed.match(pin)]
    assert not re.search(r"https?://|--index-url|--find-links|--trusted-host", text)
