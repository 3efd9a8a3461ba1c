"""Files of objects: several in one, broken ones beside good ones, lists, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixer_compat.migrate.reading.objects import MAX_FILE_BYTES, MixerObject, read_objects
from mixer_compat.migrate.report import Report

API = "apiVersion: config.istio.io/v1alpha2\n"


def a_rule(name: str, **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "rule",
        "metadata": {"name": name, "namespace": "n"},
        "spec": spec,
    }


def read(folder: Path, *files: str) -> tuple[list[str], list[str]]:
    """Names of the objects, and what was told, without the folder."""
    report = Report()
    objects = read_objects([folder / file for file in files] or [folder], report)
    told = [str(finding).replace(f"{folder}/", "") for finding in report.findings()]
    return [str(found) for found in objects], told


def test_reads_all_documents_of_all_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yml").write_text(f"{API}kind: rule\nmetadata: {{name: a}}\n")
    (tmp_path / "b.yaml").write_text(
        f"# nothing\n---\n{API}kind: rule\nmetadata: {{name: b}}\n---\n---\n"
        f"{API}kind: handler\nmetadata: {{name: c, namespace: n}}\n"
    )
    (tmp_path / "d.json").write_text(json.dumps(a_rule("d")))
    (tmp_path / ".hidden.yaml").write_text(": nonsense")
    (tmp_path / "notes.txt").write_text(": nonsense")
    names, told = read(tmp_path)
    assert names == ["rule default/b", "handler n/c", "rule default/a", "rule n/d"]
    assert told == []


@pytest.mark.parametrize("kind", ["List", "RuleList"])
def test_a_list_stands_for_its_items(kind: str, tmp_path: Path) -> None:
    listed = {"apiVersion": "v1", "kind": kind, "items": [a_rule("a"), a_rule("b")]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    assert read(tmp_path) == (["rule n/a", "rule n/b"], [])


@pytest.mark.parametrize(
    ("broken", "line", "message"),
    [
        ("kind: {open\n", 8, "is not YAML"),
        ("kind: a\nkind: b\n", 6, "key 'kind' stands twice"),
        ("kind: !secret a\n", 5, "tags"),
        ("just text\n", 5, "is not a Kubernetes object"),
        ("kind: rule\n", 5, "is not a Kubernetes object: kind or apiVersion is missing"),
        (f"{API}kind: rule\n", 5, "'rule' has no name"),
    ],
)
def test_a_broken_document_does_not_hide_the_others(
    broken: str, line: int, message: str, tmp_path: Path
) -> None:
    good = f"{API}kind: rule\nmetadata: {{name: NAME}}\n"
    text = f"{good.replace('NAME', 'a')}---\n{broken}---\n{good.replace('NAME', 'b')}"
    (tmp_path / "a.yaml").write_text(text)
    names, told = read(tmp_path)
    assert names == ["rule default/a", "rule default/b"]
    assert len(told) == 1
    assert message in told[0]
    found = int(told[0].split(":")[1])
    assert abs(found - line) <= 2
    assert found >= 4


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.json").write_text("{")
    names, told = read(tmp_path, "a.yaml", "empty", "none.yaml", "b.json")
    assert names == []
    assert [line.split(": ")[0] for line in told] == ["a.yaml:1", "b.json:1", "empty", "none.yaml"]


def test_a_file_may_not_be_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_FILE_BYTES <= 1 << 28
    monkeypatch.setattr("mixer_compat.migrate.reading.objects.MAX_FILE_BYTES", 100)
    (tmp_path / "a.yaml").write_text("#" * 101)
    assert "is larger than 100 bytes" in read(tmp_path)[1][0]


def test_all_files_together_may_not_be_endless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixer_compat.migrate.reading.objects.MAX_TOTAL_BYTES", 250)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.json").write_text(json.dumps(a_rule(name)))
    names, told = read(tmp_path)
    assert names == ["rule n/a", "rule n/b"]
    assert told[0].startswith("c.json: is larger than ")


@pytest.mark.parametrize(("limit", "told"), [("MAX_FILES", "files"), ("MAX_OBJECTS", "objects")])
def test_more_than_anybody_has_is_told(
    limit: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"mixer_compat.migrate.reading.objects.{limit}", 2)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.json").write_text(json.dumps(a_rule(name)))
    names, said = read(tmp_path)
    assert names == ["rule n/a", "rule n/b"]
    assert f"more than 2 {told}" in said[0]


def test_other_objects_and_doubles_are_told(tmp_path: Path) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    items = [service, a_rule("a"), a_rule("a")]
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    (tmp_path / "a.json").write_text(json.dumps(listed, indent=1))
    names, told = read(tmp_path)
    assert names == ["rule n/a"]
    assert told == [
        "a.json:21: rule n/a: was there before, in an earlier place; the first one is used",
        "a.json:5: Service default/s: is not a Mixer object",
    ]


def read_one(tmp_path: Path, spec: str) -> MixerObject:
    (tmp_path / "a.yaml").write_text(
        f"{API}kind: rule\nmetadata: {{name: a, uid: x}}\nspec: {spec}\nstatus: {{a: 1}}\n"
    )
    (found,) = read_objects([tmp_path], Report())
    return found


def test_what_is_given_out_counts_as_read(tmp_path: Path) -> None:
    found = read_one(tmp_path, "{aB: 1, c: [x, {d: y, e: null, f: {}}], g: {h: 1, i: 2}}")
    assert found.list_unread() == [("spec",)]
    assert found.spec.text("a_b") == "1"
    assert found.list_unread() == [("spec", "c"), ("spec", "g")]
    first, second = found.spec.list_parts("c")
    assert (first.read(), second.read(), second.text("d")) == ("x", "", "y")
    assert found.list_unread() == [("spec", "c", 1, "f"), ("spec", "g")]
    assert [name for name, _ in found.spec.entries_of("g")] == ["h", "i"]
    assert found.list_unread() == [("spec", "c", 1, "f"), ("spec", "g")]
    found.spec.mark()
    assert found.list_unread() == []


def test_parts_of_another_shape_give_nothing(tmp_path: Path) -> None:
    spec = read_one(tmp_path, "[a]").spec
    assert spec.find("a") is None
    assert spec.text("a") == ""
    assert (spec.list_parts("a"), spec.entries(), spec.entries_of("a")) == ([], [], [])
    assert read_one(tmp_path, "text").spec.items() == []
