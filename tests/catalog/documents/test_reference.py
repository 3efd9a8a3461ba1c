"""The reference documentation is true: its examples load, and it names every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extauthz.catalog.documents.shapes import catalog_schema
from extauthz.catalog.files.source import FileCatalogSource

TEXT = (Path(__file__).parents[3] / "docs" / "reference" / "catalog.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
FILES = {
    "pets.yaml": 'openapi: 3.0.3\npaths:\n  "/pets/{id}":\n    get: {}\n    delete: {}\n',
    "client-secret": "an-example\n",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.partition(":")[0])
async def test_an_example_is_a_whole_catalog(example: str, tmp_path: Path) -> None:
    for name, text in {**FILES, "catalog.yaml": example}.items():
        (tmp_path / name).write_text(text)
    catalog = await FileCatalogSource([tmp_path / "catalog.yaml"]).load()
    assert catalog.revision


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == TEXT.count("```") // 2 >= 9


def test_every_key_is_described_as_in_the_schema() -> None:
    schema = catalog_schema()
    rows = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]*\| ([^|]+) \|$", TEXT, re.MULTILINE))
    described = {
        (key, part["description"])
        for holder in [schema, *schema["$defs"].values()]
        for key, part in holder.get("properties", {}).items()
    }
    assert rows == described
