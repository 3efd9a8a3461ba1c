"""Converts all objects in four passes: APIs, guarded services, rules, and unread fields.

The last pass makes sure that nothing is dropped silently: it reports every field that was not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from extauthz.catalog.documents.build import build_catalog, read_catalog_file
from extauthz.documents.values import SourceText
from extauthz.errors import ConfigError
from mixer_compat.migrate.adapters.api_specs import read_apis
from mixer_compat.migrate.adapters.apigee import carry_apigee
from mixer_compat.migrate.adapters.authorizers import find_check_instance
from mixer_compat.migrate.adapters.lists import (
    carry_denier,
    carry_list,
    is_list_instance,
    refuse_unknown,
)
from mixer_compat.migrate.adapters.quota import ADAPTERS as QUOTA_ADAPTERS
from mixer_compat.migrate.adapters.quota import Charge, carry_quotas, read_charges
from mixer_compat.migrate.adapters.targets import list_targets
from mixer_compat.migrate.adapters.threescale import carry_threescale
from mixer_compat.migrate.adapters.wso2 import carry_wso2
from mixer_compat.migrate.reading.objects import MixerObject
from mixer_compat.migrate.reading.references import Action, Objects, write_export
from mixer_compat.migrate.report import Outcome, Report
from mixer_compat.migrate.writing.catalog_text import (
    ISSUERS_EXAMPLE,
    dump_documents,
    write_catalog,
    write_settings,
)
from mixer_compat.migrate.writing.draft import Draft
from mixer_compat.migrate.writing.istio import (
    write_envoy_filters,
    write_mesh_config,
    write_policies,
)

CATALOG: Final = "catalog/catalog.yaml"
POLICIES: Final = "istio/authorization-policies.yaml"

_AUTHORIZERS: Final = {
    "wso2": carry_wso2,
    "apigee": carry_apigee,
    "threescale": carry_threescale,
    "3scale": carry_threescale,
}
_REPORTS: Final = frozenset(
    {"metric", "logentry", "tracespan", "edge", "reportnothing", "analytics", "kubernetes"}
)
_WITHOUT_EFFECT: Final = {
    "extauthz": (
        Outcome.CHECK,
        "calls extauthz by its Mixer door, so its decisions come from extauthz's own "
        "catalog already. Before you remove the rule, write a policy by which Envoy "
        "calls extauthz",
    ),
    "noop": (Outcome.OBSOLETE, "let everything through"),
}
_DEFINITIONS: Final = {
    "template": "described messages to Mixer; there are no templates any more",
    "adapter": "described an adapter to Mixer",
    "attributemanifest": "described attributes to Mixer",
}
_TELEMETRY: Final = (
    "Mixer's telemetry is not carried over: Istio's own (the Telemetry resource, and "
    "Envoy's access log) has replaced it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """The result: files by their names, and the draft that they were written from."""

    files: dict[str, str]
    draft: Draft


def convert(objects: Sequence[MixerObject], report: Report) -> Migration:
    """Converts the objects to a catalog, settings and policies.

    Args:
        objects: the objects of the cluster.
        report: gets everything that could not be converted.
    """
    known = Objects(objects)
    draft = Draft()
    read_apis(known, draft)
    charges = read_charges(known)
    actions = _sort_out(known.list_actions())
    _ensure_apis(actions, charges, draft)
    for action in actions:
        carry = _AUTHORIZERS.get(action.handler.adapter)
        if carry is not None:
            carry(action, draft)
    # Limits and lists come last: they must know which APIs accept tokens, and so have claims.
    carry_quotas(
        [action for action in actions if action.handler.adapter in QUOTA_ADAPTERS],
        charges,
        known,
        draft,
    )
    for action in actions:
        match action.handler.adapter:
            case "denier":
                carry_denier(action, draft)
            case "listchecker":
                carry_list(action, draft)
            case adapter if adapter not in _AUTHORIZERS and adapter not in QUOTA_ADAPTERS:
                refuse_unknown(action, draft)
            case _:
                pass
    _tell_of_hosts(draft, report)
    _tell_of_missing_rules(known, report)
    _tell_unread(known)
    files = _write_files(draft)
    _check_catalog(files[CATALOG], report)
    return Migration(files=files, draft=draft)


def _check_catalog(text: str, report: Report) -> None:
    """Reports the problems of the catalog, such as a version that cannot be part of a path."""
    try:
        build_catalog([read_catalog_file(SourceText(file=CATALOG, text=text), Path())])
    except ConfigError as exc:
        for problem in exc.problems:
            where = f"{problem.path}: " if problem.path else ""
            report.add_at(
                Outcome.LOST,
                CATALOG,
                problem.line,
                (
                    f"{where}{problem.message}. The catalog cannot be loaded before this is "
                    "corrected"
                ),
            )


def _sort_out(actions: list[Action]) -> list[Action]:
    """The actions that decide on requests; all others, which only sent reports, are noted."""
    deciding: list[Action] = []
    for action in actions:
        checks = find_check_instance(action) is not None
        reports = [each for each in action.instances if each.template in _REPORTS]
        for each in reports:
            each.object.tell(Outcome.LOST, (), _TELEMETRY)
        if action.handler.adapter in _WITHOUT_EFFECT:
            action.part.remark(*_WITHOUT_EFFECT[action.handler.adapter])
            continue
        if not action.instances or len(reports) == len(action.instances):
            if reports and action.handler.adapter not in _AUTHORIZERS:
                action.handler.object.tell(Outcome.LOST, (), _TELEMETRY)
            continue
        if action.handler.adapter in _AUTHORIZERS and not checks:
            action.part.remark(
                Outcome.LOST, "sends no authorization instance, so nothing was checked"
            )
            continue
        if action.handler.adapter == "listchecker" and not any(
            map(is_list_instance, action.instances)
        ):
            action.part.remark(Outcome.LOST, "sends no listentry instance, so nothing was checked")
            continue
        deciding.append(action)
    return deciding


def _ensure_apis(actions: list[Action], charges: dict[str, list[Charge]], draft: Draft) -> None:
    """Makes sure that each guarded or counted service has an API, the narrowest targets first."""
    bound = {
        target: None
        for several in charges.values()
        for charge in several
        for target in charge.targets
    }
    targets = list(bound)
    # A quota's services come from its binding, not from its rule.
    targets += list_targets(
        action for action in actions if action.handler.adapter not in QUOTA_ADAPTERS
    )
    for target in sorted(targets, key=lambda one: (not one.service, not one.namespace)):
        draft.ensure_api(target)


def _tell_of_hosts(draft: Draft, report: Report) -> None:
    namespaces = sorted(
        {target.namespace for target in draft.guarded if target.service and not target.labels}
    )
    for namespace in namespaces:
        place = f"namespace {namespace}" if namespace else "the whole mesh"
        report.add_at(
            Outcome.STRICTER,
            POLICIES,
            0,
            f"Envoy has every request in {place} checked, because the name of a service "
            "does not tell the labels of its workloads. A request that belongs to no API "
            "of the catalog is refused; where there is only one API, it is taken for a "
            "request to that. Give the policy a selector, or add the other services as "
            "APIs",
        )
    if any(not target.namespace and not target.labels for target in draft.guarded):
        report.add_at(
            Outcome.CHECK,
            POLICIES,
            0,
            "a policy in istio-system without a selector also applies to gateways and to "
            "extauthz itself: run extauthz without a sidecar, or calls to it are checked "
            "too",
        )
    if any(draft.list_hosts(api) != ["*"] for api in draft.apis):
        report.add_at(
            Outcome.CHECK,
            CATALOG,
            0,
            "APIs are found by the names of their services, because the objects contain "
            "no other hosts: add the hosts that clients outside of the mesh call to "
            "`hosts`, and to the policies extauthz-hosts-* in istio/, which select "
            "workloads by the label app",
        )
    if draft.apis:
        report.add_at(
            Outcome.CHECK,
            CATALOG,
            0,
            "HEAD requires what GET requires, a path that is not in normal form is "
            "refused, and a refused request is not counted; Mixer did all of this "
            "differently",
        )


def _tell_of_missing_rules(objects: Objects, report: Report) -> None:
    """Reports what to export when no object says what was checked.

    An adapter comes with its templates, handlers and instances; the rules are the user's own.
    """
    if objects.of_kind("rule"):
        return
    if objects.all:
        message = (
            "there is no rule among the objects, and only rules say which requests were "
            "checked, so the files that were written protect nothing. Export the rules, "
            f"and run the command with both: {write_export('rules')}"
        )
        objects.all[0].remark(Outcome.LOST, (), message)
    else:
        message = (
            "is empty, because there is no Mixer object in the files. Export them: "
            f"{write_export('rules,handlers,instances')}"
        )
        report.add_at(Outcome.LOST, CATALOG, 0, message)


def _tell_unread(objects: Objects) -> None:
    for found in objects.all:
        if found.kind in _DEFINITIONS:
            found.tell(Outcome.OBSOLETE, (), _DEFINITIONS[found.kind])
        elif found.kind in _REPORTS:
            found.tell(Outcome.LOST, (), _TELEMETRY)
    for handler in objects.list_handlers():
        connection = handler.object.spec.find("connection")
        if connection is not None:
            connection.tell(Outcome.OBSOLETE, "told Mixer how to reach the adapter")
    for found in objects.all:
        for path in found.list_unread():
            if path[0] == "metadata":
                found.tell(Outcome.OBSOLETE, path, "is a label or annotation of the object itself")
            else:
                found.tell(
                    Outcome.LOST, path, "is not carried over: nothing that was in use read it"
                )


def _write_files(draft: Draft) -> dict[str, str]:
    files = {"extauthz.yaml": write_settings(draft), CATALOG: write_catalog(draft)}
    if draft.needs_wso2_issuer:
        files["issuers.yaml.example"] = ISSUERS_EXAMPLE
    mesh: list[dict[str, Any]] = [write_mesh_config()]
    files["istio/mesh-config.yaml"] = dump_documents(mesh)
    if draft.guarded:
        files[POLICIES] = dump_documents(write_policies(draft))
        files["istio/envoy-filters-before-1.9.yaml"] = dump_documents(write_envoy_filters(draft))
    return files
