"""The documentation is true: its settings and catalogs are good, its commands run, its links lead
somewhere, and the reference of the settings names every key."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from extauthz.answers.upstream import IdentityFact, default_identity_headers
from extauthz.catalog.documents.shapes import catalog_schema
from extauthz.catalog.files.source import FileCatalogSource
from extauthz.cli import COMMANDS, read_arguments
from extauthz.emergency.entries import emergency_schema
from extauthz.emergency.files import read_blocks_file
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import PlaceSettings, settings_schema
from tests.commands import Command, Streams
from tests.json_schema import find_schema_faults
from tests.keys import public_pem, rsa_key
from tests.settings.settings_reference import list_rows, write_row

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS_PAGE = (ROOT / "docs" / "reference" / "settings.md").read_text()
CLI_PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()

BESIDE_A_CATALOG = {
    "pets.yaml": 'openapi: 3.0.3\npaths:\n  "/pets/{id}":\n    get: {}\n    delete: {}\n',
    "client-secret": "an-example\n",
    "secret": "an-example\n",
    "apim-password": "an-example\n",
    "apim-ca.pem": (ROOT / "tests/catalog/good/keys/ca.pem").read_text(),
    "server.pem": public_pem(rsa_key()),
}
"""What the catalogs of the documentation refer to."""

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```\s*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|^\[[^\]\n]+\]: (\S+)$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} (.+?)\s*#*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in _FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            indent = len(found[1])
            body = "".join(line[indent:] for line in found[3].splitlines(keepends=True))
            yield Block(page, line, found[2], body)


BLOCKS = list(_blocks())


def _tree(block: Block) -> dict[str, object]:
    if block.language != "yaml":
        return {}
    trees = list(yaml.load_all(block.text, Loader=yaml.BaseLoader))  # knows strings only
    return trees[0] if len(trees) == 1 and isinstance(trees[0], dict) else {}


def _blocks_below(schema: dict[str, object]) -> list[Block]:
    """Blocks whose names are all at the top of the schema."""
    properties = schema["properties"]
    assert isinstance(properties, dict)
    return [block for block in BLOCKS if _tree(block) and _tree(block).keys() <= properties.keys()]


SETTINGS = _blocks_below(settings_schema())
CATALOGS = _blocks_below(catalog_schema())
BLOCKED = [block for block in _blocks_below(emergency_schema()) if block not in CATALOGS]


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_settings_that_are_shown_are_good(block: Block, tmp_path: Path) -> None:
    text = block.text if "catalog" in _tree(block) else f"catalog: {{files: [a]}}\n{block.text}"
    (tmp_path / "extauthz.yaml").write_text(text)
    catalog = read_settings(tmp_path / "extauthz.yaml", {}).catalog
    assert catalog.files or catalog.wso2
    assert not list(find_schema_faults(yaml.safe_load(text), settings_schema()))


@pytest.mark.parametrize("block", CATALOGS, ids=str)
async def test_a_catalog_that_is_shown_is_good(block: Block, tmp_path: Path) -> None:
    for name, text in {**BESIDE_A_CATALOG, "catalog.yaml": block.text}.items():
        (tmp_path / name).write_text(text)
    assert (await FileCatalogSource([tmp_path / "catalog.yaml"]).load()).revision


@pytest.mark.parametrize("block", BLOCKED, ids=str)
def test_blocks_that_are_shown_are_good(block: Block, tmp_path: Path) -> None:
    (tmp_path / "blocks.yaml").write_text(block.text)
    reading, _ = read_blocks_file(tmp_path / "blocks.yaml")
    assert reading.entries and not reading.problems
    assert not list(find_schema_faults(yaml.load(block.text, yaml.BaseLoader), emergency_schema()))


def test_there_are_settings_and_catalogs_to_check() -> None:
    assert len(SETTINGS) >= 3 and len(CATALOGS) >= 9 and BLOCKED


# Commands


def _commands(text: str) -> Iterator[list[str]]:
    """Words of each ``extauthz`` command in a shell block; prompts and pipes are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("();<>|&"):
                words.append(word)
                continue
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                del words[0]
            if words[:1] == ["extauthz"]:
                yield words[1:]
            words = []


SHOWN = {
    f"{block}: {' '.join(words)}"[:80]: words
    for block in BLOCKS
    if block.language in ("sh", "shell", "bash", "console")
    for words in _commands(block.text)
}


@pytest.mark.parametrize("words", list(SHOWN.values()), ids=list(SHOWN))
def test_a_command_that_is_shown_is_well_formed(words: list[str]) -> None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            read_arguments(words)
    except SystemExit as end:
        assert not end.code, said.getvalue()  # noqa: PT017  (0 is what --help and --version give)


def test_every_command_is_shown() -> None:
    assert set(COMMANDS) <= {words[0] for words in SHOWN.values() if words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_is_named_in_passing_exists(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text())
    named = set(re.findall(r"`extauthz ([a-z][\w-]*)", prose))
    assert named <= set(COMMANDS)


def _examples() -> Iterator[tuple[str, str]]:
    """Command and output: of every ``$`` line in the page of commands."""
    for block in BLOCKS:
        if block.language == "console" and block.page.name == "cli.md":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                end = re.search(r"(?<!\\)\n", part)
                assert end is not None
                yield part[: end.start()], part[end.end() :]


def _run(command: str, folder: Path) -> str:
    """What a line prints on both streams. A shell runs it, where it is more than one command."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    if re.match(r"extauthz [^|;&<>$`*]+$", command):
        with tempfile.TemporaryDirectory() as made:
            words = shlex.split(command.replace("\\\n", " "))
            printed = Path(made, "printed")
            streams = Streams(printed, printed)
            Command(*words[1:], streams=streams, folder=folder, environment=environment).wait(60)
            return printed.read_text()
    program = f"{shlex.quote(sys.executable)} -m extauthz "
    return subprocess.run(
        ["/bin/sh", "-c", re.sub(r"(^|[|;] )extauthz ", rf"\1{program}", command)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


@pytest.mark.parametrize(("command", "output"), list(_examples()), ids=lambda text: text[:40])
def test_a_command_prints_what_the_page_shows(command: str, output: str, tmp_path: Path) -> None:
    """A line of "…" stands for any lines, and "…" in a line for any text."""
    files = re.findall(r"^# (\S+)\n(.*?)^```$", CLI_PAGE, re.DOTALL | re.MULTILINE)
    assert {name for name, _ in files} >= {"extauthz.yaml", "catalog.yaml"}
    for name, text in files:
        (tmp_path / name).write_text(f"# {name}\n{text}")
    printed = "".join(f"{line.rstrip()}\n" for line in _run(command, tmp_path).splitlines())
    pattern = "".join(
        "(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
        for line in output.splitlines()
    )
    assert re.fullmatch(pattern, printed), printed


def test_the_page_of_commands_has_examples_of_most() -> None:
    commands = {
        name
        for command, _ in _examples()
        for name in re.findall(r"(?:^|[|;] )extauthz ([\w-]+)", command)
    }
    assert commands >= set(COMMANDS) - {"serve", "demo"}


# Links


def _anchors(page: Path) -> set[str]:
    """What GitHub and mkdocs make of headings."""
    text = _FENCE.sub("", page.read_text())
    anchors: set[str] = set()
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 1
        unique = slug
        while unique in anchors:
            unique, number = f"{slug}-{number}", number + 1
        anchors.add(unique)
    return anchors


LINKS = [
    pytest.param(page, target, id=f"{page.relative_to(ROOT)}: {target}")
    for page in PAGES
    for found in _LINK.finditer(_FENCE.sub("", page.read_text()))
    for target in [found[1] or found[2]]
    if not re.match(r"[a-z]+:", target)
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = unquote(target).partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists()
    assert file.is_relative_to(ROOT)
    if anchor:
        assert anchor in _anchors(file)


def test_there_are_links_to_follow() -> None:
    assert len(LINKS) > 10


# The reference of the settings


def test_the_reference_has_a_row_for_every_setting_and_no_other() -> None:
    rows = re.findall(r"^\| `[a-z_]+\.[^\n]+ \|$", SETTINGS_PAGE, re.MULTILINE)
    assert rows == [write_row(row) for row in list_rows()]


def test_the_reference_lists_the_places_and_the_facts() -> None:
    for name, field in PlaceSettings.model_fields.items():
        assert f"| `{name}` | {field.description} |" in SETTINGS_PAGE
    defaults = default_identity_headers()
    for fact in IdentityFact:
        default = f"`{defaults[fact]}`" if fact in defaults else ""
        assert f"| `{fact.value}` | {default} | " in SETTINGS_PAGE


def test_no_other_variable_is_named() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r"\bEXTAUTHZ_\w+", page.read_text())
        if "__" in name
    }
    sections = {"EXTAUTHZ_SERVER__TLS"}
    assert named == {variable for _, _, variable, _ in list_rows()} | sections
