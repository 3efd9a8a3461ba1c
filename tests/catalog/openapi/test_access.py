"""Nothing that an OpenAPI document says about access is dropped without a word.

Each row of `tests.catalog.openapi.access`, `openapi_references` and `openapi_servers` is a place in
the grammar of OpenAPI 3.0 and 3.1 or of Swagger 2.0, what a document says there, and what becomes
of it: the access that the catalog then asks for, or a problem on the marked line.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.catalog.files.reading import CatalogReader
from extauthz.catalog.parts import index_catalog
from extauthz.errors import ConfigError
from extauthz.model.apis import Api, Resource
from tests.catalog.openapi.access import (
    BY_SCOPE,
    CATALOG,
    CREATE,
    KEYS,
    MARK,
    OPENAPI_3,
    REQUIREMENTS,
    SWAGGER_2,
    TEMPLATES,
    Row,
    paths,
)
from tests.catalog.openapi.references import REFERENCES
from tests.catalog.openapi.servers import SERVERS, SWAGGER


def write_access(resource: Resource) -> str:
    schemes = ",".join(scheme.value for scheme in resource.security)
    scopes = (" and " if resource.all_scopes else " or ").join(resource.scopes)
    return f"{' '.join(resource.methods)} {resource.template}: {schemes}" + (
        f" [{scopes}]" if scopes else ""
    )


def write_files(row: Row, folder: Path) -> None:
    texts = {"catalog.yaml": row.catalog, "api.yaml": row.head + row.text, **row.files}
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(row: Row, folder: Path) -> Api:
    write_files(row, folder)
    (api,) = index_catalog(CatalogReader([folder / "catalog.yaml"]).read()).apis.values()
    return api


def marked(row: Row, folder: Path) -> list[str]:
    """``file:line`` of each line with a mark."""
    return [
        f"{folder / name}:{line}"
        for name, text in {"api.yaml": row.head + row.text, **row.files}.items()
        for line, written in enumerate(text.splitlines(), 1)
        if MARK in written
    ]


ALL = [
    pytest.param(row, id=f"{name}: {row.place}")
    for name, rows in {
        "$ref": REFERENCES,
        "key": KEYS,
        "security": REQUIREMENTS,
        "template": TEMPLATES,
        "servers": SERVERS,
        "Swagger 2.0": [
            replace(row, head=SWAGGER_2) if row.head is OPENAPI_3 else row for row in SWAGGER
        ],
    }.items()
    for row in rows
]


@pytest.mark.parametrize("row", ALL)
def test_what_is_said_of_access_is_read_or_refused_with_file_and_line(
    row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    if not row.refused:
        api = load(row, tmp_path)
        assert [write_access(resource) for resource in api.resources] == row.access.splitlines()
        assert not marked(row, tmp_path)
        if row.warned:
            assert row.warned in caplog.text
            assert f"{tmp_path / 'api.yaml'}:" in caplog.text
        return
    with pytest.raises(ConfigError) as caught:
        load(row, tmp_path)
    (problem,) = caught.value.problems
    assert row.refused in problem.message
    assert [f"{problem.file}:{problem.line}"] == marked(row, tmp_path)


def test_every_place_is_named_once() -> None:
    assert len({param.id for param in ALL}) == len(ALL) > 100


def test_files_beside_the_document_may_lie_anywhere_below_the_catalog(tmp_path: Path) -> None:
    row = Row(
        place="",
        text=paths("/a: {get: {$ref: ../elsewhere/ops.yaml}}"),
        files={"elsewhere/ops.yaml": CREATE},
        catalog=CATALOG.replace("api.yaml", "specs/api.yaml"),
    )
    write_files(row, tmp_path)
    (tmp_path / "specs").mkdir()
    (tmp_path / "api.yaml").rename(tmp_path / "specs" / "api.yaml")
    (api,) = CatalogReader([tmp_path / "catalog.yaml"]).read().apis
    assert [write_access(resource) for resource in api.resources] == [BY_SCOPE]


def test_a_long_chain_of_references_is_refused_and_many_short_ones_are_not(tmp_path: Path) -> None:
    chain = "".join(f"  op{n}: {{$ref: '#/x-ops/op{n + 1}'}}\n" for n in range(40))
    text = paths("/a:\n  get: {$ref: '#/x-ops/op0'}  # here") + f"x-ops:\n{chain}  op40: {{}}\n"
    with pytest.raises(ConfigError, match="through too many others"):
        load(Row(place="", text=text), tmp_path)
    many = "".join(f"/a{n}: {{get: {{$ref: '#/x-ops/create'}}}}\n" for n in range(3000))
    row = Row(place="", text=paths(many, f"x-ops: {{create: {CREATE}}}"))
    assert len(load(row, tmp_path).resources) == 3000


def test_references_cannot_stand_for_more_and_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.catalog.openapi.document.MAX_REFERRED", 10_000)
    scopes = ", ".join(f"s{number}" for number in range(1_000))
    many = "".join(f"/a{n}: {{get: {{$ref: '#/x-ops/create'}}}}\n" for n in range(20))
    text = paths(many, f"x-ops: {{create: {{security: [{{t: [{scopes}]}}]}}}}")
    with pytest.raises(ConfigError, match="stand for more than 10000 values"):
        load(Row(place="", text=text), tmp_path)


def test_no_more_warnings_than_can_be_read_and_a_word_on_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = "".join(f"/a{n}: {{get: {{unknown{n}: 1}}}}\n" for n in range(120))
    load(Row(place="", text=paths(many)), tmp_path)
    assert len(caplog.messages) == 101
    assert caplog.messages[-1].endswith("api.yaml: 20 more warnings are not listed")


def test_operations_that_are_served_elsewhere_are_compared_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.catalog.openapi.placing.MAX_COMPARED", 400)
    here = "".join(f"/a{n}: {{get: {{security: [{{t: []}}]}}}}\n" for n in range(30))
    for elsewhere, is_read in ((10, True), (20, False)):
        there = "".join(f"/b{n}: {{get: {{servers: [{{url: /v2}}]}}}}\n" for n in range(elsewhere))
        row = Row(place="", text=paths(here + there, "servers: [{url: /v1}]"))
        if is_read:
            assert len(load(row, tmp_path).resources) == 30
        else:
            with pytest.raises(ConfigError, match="the same request may be meant for"):
                load(row, tmp_path)
