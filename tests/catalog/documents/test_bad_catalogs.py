"""Every file in bad/ says, on the line of each fault, what must be said about it."""

# ruff: noqa: ASYNC240  # small files of a test's own
from __future__ import annotations

import re
from pathlib import Path

import pytest

from extauthz.catalog.files.source import FileCatalogSource
from extauthz.errors import ConfigError

BAD = Path(__file__).parent / "bad"
EXPECT = re.compile(r"# expect: (.+)")


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yaml")), ids=lambda path: path.stem)
async def test_names_every_fault_with_file_and_line(path: Path) -> None:
    expected = [
        (line, found[1])
        for line, text in enumerate(path.read_text().splitlines(), 1)
        if (found := EXPECT.search(text))
    ]
    with pytest.raises(ConfigError) as caught:
        await FileCatalogSource([path]).load()
    problems = caught.value.problems
    assert [(it.file, it.line) for it in problems] == [(str(path), line) for line, _ in expected], (
        str(caught.value)
    )
    for problem, (_, text) in zip(problems, expected, strict=True):
        assert text in problem.message


def test_there_are_bad_catalogs() -> None:
    assert len(list(BAD.glob("*.yaml"))) > 100


async def test_never_shows_a_value_that_may_be_a_secret() -> None:
    for path in BAD.glob("*.yaml"):
        with pytest.raises(ConfigError) as caught:
            await FileCatalogSource([path]).load()
        for secret in ("my-secret-key", "password@", "0123456789abcdef", "short\n"):
            assert secret not in str(caught.value)
