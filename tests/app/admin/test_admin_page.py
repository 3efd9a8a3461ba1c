"""docs/reference/admin-api.md shows what the API answers, and each of its paths and parameters."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Final

import pytest

from extauthz.serving.admin.access import MAX_FAILURES
from tests.app.admin.services import Running, running
from tests.json_schema import find_schema_faults

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "reference" / "admin-api.md"
EXAMPLES: Final = re.findall(
    r"^```console\n\$ curl -s '?http://127\.0\.0\.1:9003(\S+?)'?\n(.*?)^```$",
    PAGE.read_text(),
    re.DOTALL | re.MULTILINE,
)
_VARIES: Final = r'"\d{4}-\d\d-\d\dT[\d:.]+Z"|"[0-9a-f]{64}"'


async def decide_some(it: Running) -> None:
    for _ in range(3):
        await it.decide("/pets/v1/dog/few")


def shape(value: Any) -> Any:
    """What is the same in every answer: names and kinds."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return re.sub(_VARIES, '"…"', json.dumps(value)) if isinstance(value, str) else type(value)


def read_example(text: str) -> Any:
    """An example, where "…" stands for what is left out."""
    text = re.sub(r"\{…\}", '{"…": 1}', text)
    return json.loads(re.sub(r",\s*…(?=\s*\])", "", re.sub(r"\[…\]", '["…"]', text)))


def leave_out(example: Any, answer: Any) -> Any:
    """The answer without what the example leaves out."""
    if example in ({"…": 1}, ["…"]):
        assert answer, "what is left out is there"
        return example
    if isinstance(example, dict) and isinstance(answer, dict):
        assert example.keys() == answer.keys()
        return {name: leave_out(example[name], answer[name]) for name in example}
    if isinstance(example, list) and isinstance(answer, list) and example:
        return [leave_out(one, two) for one, two in zip(example, answer, strict=False)]
    return answer


@pytest.mark.parametrize(("path", "text"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
async def test_the_page_shows_what_is_answered(
    path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as it:
        await decide_some(it)
        if "rates" in path:
            now_s = time.time()
            monkeypatch.setattr("extauthz.app.admin.recent.time.time", lambda: now_s + 10)
        answer = await it.get(path)
    example = read_example(text)
    assert shape(leave_out(example, answer)) == shape(example)


async def test_the_page_has_every_path_and_parameter(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        document = await it.get("/api/openapi.json")
    page = PAGE.read_text()
    sections = dict(
        re.findall(r"^## `(\w+ /api/\S+)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    )
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            section = sections.pop(f"{method.upper()} {path}")
            for parameter in operation["parameters"]:
                assert f"`{parameter['name']}`" in section, (path, parameter)
    assert not sections, "these are not there any more"


def test_the_page_tells_the_bounds() -> None:
    assert f"from the {MAX_FAILURES + 1}st of an address" in PAGE.read_text()


async def test_every_answer_fits_what_the_document_says(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        await decide_some(it)
        document = await it.get("/api/openapi.json")
        for path, methods in document["paths"].items():
            if "get" in methods and "{" not in path:
                content = methods["get"]["responses"]["200"]["content"]
                schema = content["application/json"]["schema"]
                faults = list(find_schema_faults(await it.get(path), schema, document))
                assert faults == [], path
