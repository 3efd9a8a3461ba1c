"""``extauthz schema``: what editors get."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.cli.conftest import CATALOG, SETTINGS, Run
from tests.json_schema import find_schema_faults


@pytest.mark.parametrize(("which", "text"), [("settings", SETTINGS), ("catalog", CATALOG)])
def test_prints_a_schema_that_takes_what_is_good_and_no_more(
    which: str, text: str, run: Run
) -> None:
    done = run("schema", which)
    assert done.code == 0 and not done.err
    schema = json.loads(done.out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    tree = yaml.safe_load(text)
    assert not list(find_schema_faults(tree, schema))
    assert list(find_schema_faults({**tree, "nonsense": {}}, schema)) == ["$: has nonsense"]
