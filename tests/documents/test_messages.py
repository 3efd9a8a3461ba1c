"""Whatever stands in the wrong place, the message is this project's, and says what is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from extauthz.catalog.documents.shapes import CatalogDocument
from extauthz.documents.document import StrictModel, check_model, read_mapping
from extauthz.documents.messages import say_what_is_wrong
from extauthz.documents.values import SourceText
from extauthz.emergency.entries import EmergencyDocument
from extauthz.errors import ConfigError
from extauthz.inspection.blocking import BlockOrder
from extauthz.inspection.explain_call import ExplainDocument
from extauthz.settings.tree import Settings

ROOTS: Final = (Settings, CatalogDocument, EmergencyDocument, ExplainDocument, BlockOrder)
WRONG: Final[tuple[Any, ...]] = (
    *({"path": "x"}, ["a"], [], {}, [[1]], {"a": {"b": "c"}}),
    *("", "text", "5", "-1", "nan", "1e400", "a b", " a\n", "\ud800", "é", "x" * 5_000),
    *(True, 5, 2**70, 1.5),
)
_NOT_OURS: Final = re.compile(r"\b(Input|String|List|Value|Tuple|Decimal)\b|<class|pydantic")


def list_models(annotation: Any, seen: set[type[BaseModel]]) -> None:
    """The models that stand in an annotation, and in their fields."""
    for part in get_args(annotation):
        list_models(part, seen)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_model and annotation not in seen:
        seen.add(annotation)
        for field in annotation.model_fields.values():
            list_models(field.annotation, seen)


def list_fields() -> Iterator[tuple[type[BaseModel], str, FieldInfo]]:
    seen: set[type[BaseModel]] = set()
    for root in ROOTS:
        list_models(root, seen)
    for model in sorted(seen, key=lambda it: it.__name__):
        for name, field in model.model_fields.items():
            yield model, name, field


FIELDS: Final = list(list_fields())


def test_every_setting_is_among_them() -> None:
    assert len(FIELDS) > 200
    assert {Settings, CatalogDocument, BlockOrder} <= {model for model, _, _ in FIELDS}


@pytest.mark.parametrize(
    ("model", "name", "field"), FIELDS, ids=[f"{it[0].__name__}.{it[1]}" for it in FIELDS]
)
def test_nothing_is_refused_in_words_of_a_library(
    model: type[BaseModel], name: str, field: FieldInfo
) -> None:
    key = field.alias or name
    for wrong in (*WRONG, *([it] for it in WRONG), *({"a": it} for it in WRONG)):
        tree = {key: wrong}
        try:
            model.model_validate(tree)
        except ValidationError as error:
            for details in error.errors(include_url=False, include_input=False):
                _, message = say_what_is_wrong(details, (), tree, model)
                assert not _NOT_OURS.search(message), (wrong, details["type"], message)
                assert message[:1].islower() or message[:1] in "`'\"$", message
                assert "\n" not in message


def test_a_mapping_where_a_file_is_named_says_what_is_wanted() -> None:
    tree = {"file": {"path": "x"}}
    with pytest.raises(ValidationError) as failure:
        Settings.model_validate({"catalog": {"files": ["c"]}, "log": {"decisions": tree}})
    (details,) = failure.value.errors()
    told = {"log": {"decisions": tree}}
    path, message = say_what_is_wrong(details, (), told, Settings)
    assert (path, message) == (("log", "decisions", "file"), "must be the name of a file, as text")


def test_models_are_strict_all_the_way_down() -> None:
    assert {model for model, _, _ in FIELDS if not issubclass(model, StrictModel)} == set()


def test_a_key_that_is_missing_since_it_is_misspelled_is_one_problem() -> None:
    text = "catlog: {files: [c]}\nusage: {file: {pth: x}, plugin: {option: {}}}\n"
    source = SourceText(file="extauthz.yaml", text=text)
    with pytest.raises(ConfigError) as failure:
        check_model(Settings, read_mapping(source), source)
    assert [(it.line, it.path, it.message.partition(";")[0]) for it in failure.value.problems] == [
        (1, "catlog", "unknown key 'catlog'"),
        (2, "usage.file.pth", "unknown key 'pth'"),
        # Another key, which says nothing of this one.
        (2, "usage.plugin", "factory is missing"),
        (2, "usage.plugin.option", "unknown key 'option'"),
    ]
