"""The glossary of the documentation is about this program: its terms, where the code has them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Term(NamedTuple):
    """One row of the glossary."""

    name: str
    meaning: str
    code: str


TERMS = [
    Term(*row)
    for row in re.findall(
        r"^\| (.+?) \| (.+?) \| `([\w.]+)` \|$",
        (ROOT / "docs" / "reference" / "glossary.md").read_text(),
        re.MULTILINE,
    )
]
PROGRAM = "\n".join(
    path.read_text()
    for package in ("extauthz", "mixer_compat")
    for path in sorted((ROOT / package).rglob("*.py"))
)


def _find_code(name: str) -> object:
    """What a dotted name stands for: a module, or something that a module defines."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        return getattr(import_module(module), member)


def test_the_glossary_has_terms_in_alphabetical_order_and_none_twice() -> None:
    names = [term.name.lower() for term in TERMS]
    assert len(names) > 40
    assert names == sorted(set(names))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_the_program_uses_the_term_and_has_what_the_glossary_names(term: Term) -> None:
    words = r"[\s_]+".join(map(re.escape, term.name.split()))
    plural = rf"{words[:-1]}ies" if words.endswith("y") else rf"{words}s"
    assert re.search(rf"\b({words}|{plural})\b", PROGRAM, re.IGNORECASE)
    assert _find_code(term.code) is not None


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_meaning_is_one_or_two_full_sentences(term: Term) -> None:
    assert re.fullmatch(r"[A-Z].*\.", term.meaning)
    assert len(term.meaning) < 200
