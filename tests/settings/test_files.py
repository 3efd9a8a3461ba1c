"""Files that settings name: each is found in any section, and is relative to the settings file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from extauthz.documents.document import StrictModel
from extauthz.settings.files import list_files, with_files
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings

EVERY_FILE = """\
server: {tls: {cert: a, key: b, client_ca: c}}
mixer:
  tls: {cert: d, key: e, client_ca: f}
  callers: {token_file: g}
catalog:
  files: [h]
  wso2: {url: https://apim.example, username: admin, password_file: ya, ca: yb, state_dir: yc,
    events: {urls: [amqps://apim.example], password_file: yd, ca: ye}}
counters:
  store: redis
  url: rediss://redis.example
  password_file: i
  sentinel_password_file: j
  tls: {ca: k, cert: l, key: m}
emergency:
  files: [n]
  redis:
    url: rediss://redis.example
    password_file: o
    sentinel_password_file: p
    tls: {ca: q, cert: r, key: s}
credentials: {api_key_pepper_file: t}
responses: {backend_jwt: {private_key_file: u}}
log:
  decisions:
    file: v
    hash_key_file: '1'
    redis:
      url: rediss://redis.example
      password_file: '2'
      sentinel_password_file: '3'
      tls: {ca: '4', cert: '5', key: '6'}
admin: {token_file: w, tls: {cert: x, key: y, client_ca: z}}
usage:
  file: {path: za}
  hash_key_file: zb
  redis:
    url: rediss://redis.example
    password_file: zc
    sentinel_password_file: zd
    tls: {ca: ze, cert: zf, key: zg}
"""
"""Names a file wherever one may be named. Whoever adds a setting of type Path adds it here."""


def find_path_settings(part: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Where a JSON Schema has a value of format path; * stands for a position or a name."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if part.get("format") == "path":
        yield ()
    for choice in part.get("anyOf", ()):
        yield from find_path_settings(choice, schema)
    inner = [
        *part.get("properties", {}).items(),
        ("*", part.get("items")),
        ("*", part.get("additionalProperties")),
    ]
    for name, value in inner:
        if isinstance(value, dict):
            for path in find_path_settings(value, schema):
                yield (name, *path)


def test_every_file_is_found_and_is_relative_to_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "extauthz.yaml").write_text(EVERY_FILE)
    settings = read_settings(tmp_path / "extauthz.yaml", {})
    found = {
        tuple("*" if isinstance(key, int) else key for key in at): file
        for at, file in list_files(settings)
    }
    schema = Settings.model_json_schema()
    assert set(found) == set(find_path_settings(schema, schema))
    usage = [f"z{letter}" for letter in "abcdefg"]
    wso2 = ["ya", "yb", "yc", "yd", "ye"]
    names = [*"123456abcdefghijklmnopqrstuvwxy", *wso2, "z", *usage]
    assert sorted(found.values()) == [tmp_path / name for name in names]


class Section(StrictModel):
    """As one of the settings."""

    file: Path
    other: str = "a/b"


class Tree(StrictModel):
    """Files in every way in which settings can hold them."""

    one: Path | None = None
    left_out: Path | None = None
    many: tuple[Path, ...] = ()
    named: dict[str, Path] = Field(default_factory=dict)
    section: Section | None = None
    sections: tuple[Section, ...] = ()
    by_name: dict[str, Section] = Field(default_factory=dict)


def test_a_file_is_found_by_its_type_and_nothing_else_changes() -> None:
    tree = Tree(
        one=Path("a"),
        many=(Path("b"), Path("/c")),
        named={"x": Path("d")},
        section=Section(file=Path("e")),
        sections=(Section(file=Path("f")),),
        by_name={"y": Section(file=Path("g"))},
    )
    assert dict(list_files(tree)) == {
        ("one",): Path("a"),
        ("many", 0): Path("b"),
        ("many", 1): Path("/c"),
        ("named", "x"): Path("d"),
        ("section", "file"): Path("e"),
        ("sections", 0, "file"): Path("f"),
        ("by_name", "y", "file"): Path("g"),
    }
    assert with_files(tree, lambda file: "/etc" / file) == Tree(
        one=Path("/etc/a"),
        many=(Path("/etc/b"), Path("/c")),
        named={"x": Path("/etc/d")},
        section=Section(file=Path("/etc/e")),
        sections=(Section(file=Path("/etc/f")),),
        by_name={"y": Section(file=Path("/etc/g"))},
    )
