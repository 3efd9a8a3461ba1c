"""What CONTRIBUTING.md names is there, and its lists of files leave no table out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.test_enumerations import NAMED

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
_PATH = re.compile(
    r"`((?:\.ci|\.github|docs|extauthz|mixer_compat|tests)/[\w./-]+|[\w-]+\.(?:md|toml|txt))`"
)

PLACES = dict(re.findall(r"^### (.+)\n((?:(?!^###? ).*\n)+)", PAGE, re.MULTILINE))
"""What can be added, and the text below its heading."""
TOLD_APART = {"A reason": "Reason", "A credential place": "PlaceKind", "A limit rule": "Algorithm"}
"""What can be added, and the enumeration that has a member for each."""


def _list_paths(text: str) -> set[str]:
    return set(_PATH.findall(text))


def test_every_file_and_folder_that_is_named_exists() -> None:
    paths = _list_paths(PAGE)
    assert len(paths) > 80
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_says_where_to_add_what_is_added_most() -> None:
    assert list(PLACES) == [
        "A reason",
        "A credential place",
        "A limit rule",
        "A catalog source",
        "A host",
        "A setting",
        "A metric",
        "A field of the log of decisions",
        "A place that decisions are written to",
        "An endpoint of the admin API",
        "A command",
        "A property of Mixer's instances",
        "A Mixer template",
    ]


@pytest.mark.parametrize("place", PLACES)
def test_each_step_of_adding_names_its_files_and_numbers_go_up(place: str) -> None:
    steps = re.findall(r"^(\d+)\. (.*)$", PLACES[place], re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 3
    assert [step for _, step in steps if not _list_paths(step)] == []


@pytest.mark.parametrize("place", TOLD_APART)
def test_each_module_that_tells_members_apart_is_listed(place: str) -> None:
    files = {file for enumeration, file in NAMED if enumeration == TOLD_APART[place]}
    assert files
    assert files - _list_paths(PLACES[place]) == set()


def test_the_commands_that_are_named_exist() -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", PAGE)) - {"pytest"}
    assert modules and all(importlib.util.find_spec(name) for name in modules)
    targets = set(re.findall(r"^`?make ([a-z-]+)|(?<=`)make ([a-z-]+)", PAGE, re.MULTILINE))
    named = {name for pair in targets for name in pair if name}
    makefile = (ROOT / "Makefile").read_text()
    assert named >= {"test", "check", "setup"}
    assert [name for name in sorted(named) if f"\n{name}: ##" not in makefile] == []
