"""Reading documents: values, lines, limits and messages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime

from extauthz.documents import lines as document_lines
from extauthz.documents import values as document_values
from extauthz.documents.document import (
    Duration,
    PositiveDuration,
    StrictModel,
    check_model,
    read_duration_us,
    read_file,
    read_mapping,
    write_duration,
)
from extauthz.documents.lines import find_lines, write_path
from extauthz.documents.values import SourceText
from extauthz.errors import ConfigError

TEXT = st.text("ab é{}[]:,\"\\\n#'-&*", max_size=6)


def trees(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def inner(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4)

    return st.dictionaries(TEXT, st.recursive(scalars, inner, max_leaves=12), max_size=5)


@pytest.fixture(name="_loader", params=["CSafeLoader", "SafeLoader"], autouse=True)
def use_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with PyYAML's C parser and without it."""
    for module in (document_values, document_lines):
        monkeypatch.setattr(module, "_LOADER", getattr(yaml, request.param))


def read(text: str, file: str = "x.yaml") -> dict[str, Any]:
    return read_mapping(SourceText(file=file, text=text))


def reads_or_refuses(text: str, file: str) -> bool:
    try:
        return isinstance(read(text, file), dict)
    except ConfigError as error:
        return bool(error.problems)


def find_problem(text: str, file: str = "x.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, file)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1.10", "1.10"),
        ("on", "on"),
        ("no", "no"),
        ("0777", "0777"),
        ("1e3", "1e3"),
        ("2030-01-31", "2030-01-31"),
        ("12:30:00", "12:30:00"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ('"null"', "null"),
        ("''", ""),
        ("!!str true", "true"),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_resolves_only_null_and_booleans(written: str, value: object) -> None:
    assert read(f"key: {written}") == {"key": value}


def test_an_alias_is_what_its_anchor_is() -> None:
    assert read("a: &x [1]\nb: *x\nc: &y z\nd: *y") == {"a": ["1"], "b": ["1"], "c": "z", "d": "z"}


def test_an_alias_inside_its_own_anchor_is_a_problem() -> None:
    assert "has no finished anchor" in find_problem("a: &x [*x]")


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("true: a\nnull: b\n1: c") == {"true": "a", "null": "b", "1": "c"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "x.json:1: is empty"),
        ("[]", "x.json:1: must have keys and values"),
        ('{"a": 1,\n}', "x.json:2: is not JSON"),
        ('{"a": 1,\n"a": 2}', "x.json:2: key 'a' stands twice"),
        ('{"a": NaN}', "x.json: is not JSON: NaN"),
        (f'{{"a": {"1" * 5_000}}}', "x.json: is not JSON: NaN, Infinity and numbers"),
        ('{"a": ' + "[" * 100_000, "x.json: is nested too deeply"),
    ],
)
def test_names_what_is_wrong_with_json(text: str, problem: str) -> None:
    assert find_problem(text, "x.json").startswith(problem)


def test_lists_every_duplicate_key() -> None:
    with pytest.raises(ConfigError) as caught:
        read("a: 1\nb: {c: 1, c: 2}\na: 2")
    assert [problem.line for problem in caught.value.problems] == [2, 3]


def test_a_file_that_is_too_large_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: b")
    assert read_file(tmp_path / "x.yaml", max_bytes=4) == b"a: b"
    with pytest.raises(ConfigError, match="settings: is larger than 3 bytes"):
        read_file(tmp_path / "x.yaml", file="settings", max_bytes=3)


def test_a_name_that_is_no_file_name_is_a_problem() -> None:
    with pytest.raises(ConfigError, match="is not a file name"):
        read_file(Path("a\0b"))


@given(tree=trees(st.none() | st.booleans() | st.integers() | st.text(max_size=8)))
def test_reads_json_as_json_loads_does(tree: dict[str, Any]) -> None:
    assert read(json.dumps(tree), "x.json") == tree


@given(tree=trees(TEXT), style=st.sampled_from(['"', "'"]))
def test_reads_the_text_that_was_written_as_yaml(tree: dict[str, Any], style: Any) -> None:
    assert read(yaml.safe_dump(tree, default_style=style, allow_unicode=True)) == tree


@given(text=st.text(), file=st.sampled_from(["x.yaml", "x.json"]))
def test_no_text_does_anything_but_read_or_raise_config_error(text: str, file: str) -> None:
    assert reads_or_refuses(text, file)


@given(text=st.text("ab:-[]{}&*!|>?,'\"#% \n\t", max_size=60))
def test_no_yaml_like_text_does_anything_but_read_or_raise_config_error(text: str) -> None:
    assert reads_or_refuses(text, "x.yaml")


YAML = """\
a:
  - b: 1
    c.d: [x,
          y]
  - e
"f g": &anchor {h: 1}
i: *anchor
"""


@pytest.mark.parametrize(
    ("path", "line", "written"),
    [
        (("a",), 1, "a"),
        (("a", 0), 2, "a[0]"),
        (("a", 0, "b"), 2, "a[0].b"),
        (("a", 0, "c.d", 1), 4, "a[0]['c.d'][1]"),
        (("a", 1), 5, "a[1]"),
        (("a", 1, "gone", "far"), 5, "a[1].gone.far"),
        (("f g", "h"), 6, "['f g'].h"),
        (("i", "h"), 7, "i.h"),
        (("gone",), 1, "gone"),
        ((), 1, ""),
    ],
)
def test_finds_the_line_of_a_node_or_of_its_nearest_parent(
    path: tuple[str | int, ...], line: int, written: str
) -> None:
    assert find_lines(YAML, [path], is_json=False) == [line]
    assert write_path(path) == written


@given(tree=trees(st.none() | st.integers() | TEXT))
def test_finds_the_same_lines_in_json_as_in_yaml(tree: dict[str, Any]) -> None:
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    paths = list(_paths(tree))
    lines = find_lines(text, paths, is_json=True)
    assert lines == sorted(lines)
    assert find_lines(text, paths, is_json=False) == lines


def test_finds_a_line_behind_what_is_nested_as_deep_as_can_be_read() -> None:
    limit, after = sys.getrecursionlimit(), f',\n"b": {json.dumps(["x"] * 3)}}}'

    def read_from(text: str, frames: int) -> list[int]:
        if frames:
            return read_from(text, frames - 1)
        return find_lines(text, [("b", 2)], is_json=True)

    for depth in range(1, limit, 7):
        text = '{"a": ' + "[" * depth + "]" * depth + after
        try:
            read(text, "x.json")
        except ConfigError:
            break
        assert read_from(text, 50) == [2]
    else:
        pytest.fail("JSON of any depth is read")


def _paths(tree: Any, above: tuple[str | int, ...] = ()) -> Any:
    """Every path of a tree, in the order of the text."""
    items: Any = tree.items() if isinstance(tree, dict) else ()
    for key, value in enumerate(tree) if isinstance(tree, list) else items:
        yield (*above, key)
        yield from _paths(value, (*above, key))


WORDS = ("yes", "no", "on", "off", "y", "n", "t", "f", "1", "0", "tRUE", '"true"', "'false'", "Yes")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("where", ["flag: {}", "items: [{{flag: {}}}]", "inner:\n  flag: {}"])
def test_only_true_and_false_are_booleans(where: str, word: str) -> None:
    source = SourceText(file="x.yaml", text=f"{where.format(word)}\nneeded: 1\n")
    with pytest.raises(ConfigError, match="flag: must be true or false, without quotes"):
        check_model(Outer, read_mapping(source), source)


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_true_and_false_are_booleans(word: str) -> None:
    source = SourceText(file="x.yaml", text=f"items: [{{flag: {word}}}]\nneeded: 1\n")
    outer = check_model(Outer, read_mapping(source), source)
    assert outer.items[0].flag is (word.lower() == "true")


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("x.json", '{"flag": 1, "needed": 1}', "flag: must be true or false"),
        ("x.json", '{"flag": "true", "needed": 1}', "flag: must be true or false"),
        ("x.json", '{"needed": true}', "needed: must be a whole number"),
        ("x.yaml", "needed: true", "needed: must be a whole number"),
        ("x.yaml", "needed: 1\nsecret: false", "secret: must be text"),
        ("x.yaml", "needed: 1\nuntil: 20300131", "until: must be a time, like"),
        ("x.json", '{"needed": 1, "until": 1893456000}', "until: must be a time, like"),
    ],
)
def test_no_value_is_taken_for_one_of_another_kind(file: str, text: str, problem: str) -> None:
    source = SourceText(file=file, text=text)
    with pytest.raises(ConfigError, match=problem):
        check_model(Outer, read_mapping(source), source)


class Inner(StrictModel):
    """An inner part."""

    flag: bool = False

    timeout: PositiveDuration = 1
    size: int = 1


class Outer(StrictModel):
    """A document."""

    inner: Inner = Inner()
    optional: Inner | None = None
    items: tuple[Inner, ...] = ()
    wait: Duration = 0
    flag: bool = False
    secret: str = ""
    until: AwareDatetime | None = None
    needed: int
    """A number."""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("inner:\n  tiemout: 1s", "x.yaml:2: inner.tiemout: unknown key 'tiemout'; did you mean"),
        ("optional:\n  size: x", "x.yaml:2: optional.size: must be a whole number"),
        (
            "optional:\n  siez: 1",
            "x.yaml:2: optional.siez: unknown key 'siez'; did you mean 'size'",
        ),
        ("items:\n  - size: 1\n  - {timeout: 0s}", "x.yaml:3: items[1].timeout: must be greater"),
        ("\n\nwait: soon", "x.yaml:3: wait: must be a duration"),
        ("flag: perhaps", "x.yaml:1: flag: must be true or false"),
        ("secret: [hidden]", "x.yaml:1: secret: must be text"),
        ("inner: hidden", "x.yaml:1: inner: must be a mapping of keys to values"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, problem: str) -> None:
    source = SourceText(file="x.yaml", text=f"{text}\nneeded: 1\n")
    with pytest.raises(ConfigError) as caught:
        check_model(Outer, read_mapping(source), source)
    assert str(caught.value).startswith(problem)
    assert "hidden" not in str(caught.value)


def test_says_what_is_missing() -> None:
    source = SourceText(file="x.yaml", text="flag: true")
    with pytest.raises(ConfigError, match=r"^x\.yaml:1: needed is missing; add it \(A number\)$"):
        check_model(Outer, read_mapping(source), source)


def test_turns_text_into_numbers_and_durations() -> None:
    source = SourceText(file="x.yaml", text="needed: 0012\nflag: TRUE\nwait: 50ms\ninner:\n")
    outer = check_model(Outer, read_mapping(source), source)
    assert (outer.needed, outer.flag, outer.wait, outer.inner) == (12, True, 50_000, Inner())


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [
        ("7us", 7),
        ("50ms", 50_000),
        ("1s", 1_000_000),
        ("1m", 60_000_000),
        ("1h", 3_600_000_000),
        ("1d", 86_400_000_000),
        ("0s", 0),
    ],
)
def test_reads_durations(text: str, duration_us: int) -> None:
    assert read_duration_us(text) == duration_us
    assert write_duration(duration_us) == text


@pytest.mark.parametrize(
    "text", ["", "1", "s", "-1s", "1.5s", "1 s", "1w", "9999999d", "\u0661s", 5]
)
def test_refuses_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        read_duration_us(text)
