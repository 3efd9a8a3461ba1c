"""Every field of every object is carried, or stands in the report."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.documents.lines import NodePath
from mixer_compat.migrate.convert import convert
from mixer_compat.migrate.reading.objects import MixerObject, read_objects
from mixer_compat.migrate.report import Outcome, Report
from tests.mixer_compat.migrate.conftest import FIXTURES, VENDORS, Migrate

STRANGE = "somethingStrange"
FREE_FORM = ("dimensions",)
"""Below these any key means something, and is carried."""


def load(vendor: str) -> list[dict[str, Any]]:
    documents = yaml.load_all((FIXTURES / f"{vendor}.yaml").read_text(), Loader=yaml.BaseLoader)
    return list(documents)


def mappings(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(tree, dict):
        yield path
        for key, value in tree.items():
            yield from mappings(value, (*path, key))
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            yield from mappings(value, (*path, position))


PLACES = [
    pytest.param(vendor, number, path, id=f"{vendor}-{number}-{'.'.join(map(str, path))}")
    for vendor in VENDORS
    for number, document in enumerate(load(vendor))
    for path in mappings(document)
    if path[-1:] != FREE_FORM and not (document["kind"] == "List" and path in ((), ("items",)))
]


@pytest.mark.parametrize(("vendor", "number", "path"), PLACES)
def test_a_strange_field_is_reported_wherever_it_stands(
    vendor: str,
    number: int,
    path: tuple[str | int, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents = copy.deepcopy(load(vendor))
    inside: Any = documents[number]
    for part in path:
        inside = inside[part]
    inside[STRANGE] = "1"
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump_all(documents))
    told: list[tuple[str | int, ...]] = []
    tell = MixerObject.tell

    def listen(found: MixerObject, outcome: Outcome, at: NodePath, message: str) -> None:
        if STRANGE in str(found._tree):
            told.append(at)
        tell(found, outcome, at, message)

    monkeypatch.setattr(MixerObject, "tell", listen)
    report = Report()
    convert(read_objects([tmp_path], report), report)
    strange = (*(path[2:] if path[:1] == ("items",) else path), STRANGE)
    assert [at for at in told if strange[: len(at)] == at]


@pytest.mark.parametrize("vendor", VENDORS)
def test_nothing_is_left_unread(vendor: str) -> None:
    report = Report()
    objects = read_objects([FIXTURES / f"{vendor}.yaml"], report)
    convert(objects, report)
    assert objects
    assert [path for found in objects for path in found.list_unread()] == []


def test_a_field_that_nobody_reads_is_told_with_its_line(migrate: Migrate) -> None:
    migrated = migrate(
        "apiVersion: config.istio.io/v1alpha2\n"
        "kind: handler\n"
        "metadata: {name: h, labels: {app: x}, resourceVersion: '7'}\n"
        "spec:\n"
        "  compiledAdapter: memquota\n"
        "  params:\n"
        "    quotas: []\n"
        "    strange:\n"
        "      a: 1\n"
        "      b: 2\n"
    )
    assert migrated.code == 1
    assert (
        "given-0.yaml:6: handler default/h: spec.params: is not carried over: nothing that was in use "
        "read it"
    ) in migrated.told("not_carried")
    assert [line.split(":")[3] for line in migrated.told("needless")] == [" metadata.labels"]
    assert migrated.report["fields_made_by_the_cluster"] == 1


def test_secrets_appear_nowhere(migrate: Migrate) -> None:
    last_applied = json.dumps({"spec": {"params": {"secret": "the-consumer-secret"}}})
    apigee = (FIXTURES / "apigee.yaml").read_text()
    annotated = apigee.replace(
        "metadata: {name: apigee-handler, ",
        "metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: "
        f"'{last_applied}'}}, name: apigee-handler, ",
    )
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: dGhlLXNlY3JldA==}\n"
    migrated = migrate(annotated, FIXTURES / "threescale.yaml", secret)
    written = [path.read_text() for path in migrated.out.rglob("*") if path.is_file()]
    for text in (*written, migrated.said):
        for word in ("the-consumer-key", "the-consumer-secret", "the-access-token", "dGhlLXNl"):
            assert word not in text
    assert "is not a Mixer object" in "".join(migrated.told("ignored"))


def test_what_a_header_with_a_credential_was_compared_with_is_not_copied(migrate: Migrate) -> None:
    quota = (FIXTURES / "quota.yaml").read_text()
    migrated = migrate(
        quota.replace('match(request.headers["cookie"], "user=*") == false',
                      'request.headers["x-api-key"] == "hunter2"')
    )  # fmt: skip
    assert "hunter2" not in migrated.text("catalog/catalog.yaml") + migrated.said
    assert any('request.headers["x-api-key"]' in line for line in migrated.told("stricter"))


ARTEFACTS = """
apiVersion: config.istio.io/v1alpha2
kind: adapter
metadata: {name: wso2, namespace: istio-system}
spec: {session_based: false, templates: [authorization]}
---
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: wso2-handler, namespace: istio-system}
spec: {adapter: wso2, params: {validate_subscription: "true"}}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: wso2-authorization, namespace: istio-system}
spec: {template: authorization}
"""
"""As an adapter comes: the rules are the user's own."""
RULE = """
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: products, namespace: default}
spec:
  actions: [{handler: wso2-handler.istio-system, instances: [wso2-authorization.istio-system]}]
"""


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (ARTEFACTS, "kubectl get rules.config.istio.io -A -o yaml"),
        (ARTEFACTS.partition("---")[0], "kubectl get rules.config.istio.io -A -o yaml"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: products}}",
            "kubectl get rules.config.istio.io,handlers.config.istio.io,"
            "instances.config.istio.io -A -o yaml",
        ),
        (RULE, "kubectl get handlers.config.istio.io -A -o yaml"),
        (
            ARTEFACTS.rpartition("---")[0] + "---" + RULE,
            "kubectl get instances.config.istio.io -A -o yaml",
        ),
    ],
)
def test_what_is_missing_is_told_with_the_command_that_exports_it(
    migrate: Migrate, objects: str, said: str
) -> None:
    migrated = migrate(objects)
    assert migrated.code == 1
    assert any(line.endswith(said) for line in migrated.told("not_carried"))


def test_nothing_is_missed_where_there_are_rules(migrate: Migrate) -> None:
    assert "kubectl" not in str(migrate(f"{ARTEFACTS}---{RULE}").report)
