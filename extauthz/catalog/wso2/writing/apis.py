"""Writes APIs with their resources.

- The context of API Manager has the version in it, and of a tenant's API the tenant; it is kept.
- The API's own policy replaces those of its resources, as it does there.
- An ``authScheme`` of ``None`` lets everybody call a resource; every other one asks for a credential.
- A resource that cannot be carried over closes the whole API, because its requests could otherwise
  fall to another resource that asks for less. Only an open one is left out alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from extauthz.catalog.wso2.rows import Rows, tenant_of
from extauthz.catalog.wso2.shapes import ApiRow, UrlMapping
from extauthz.catalog.wso2.writing.limits import Tiers, Unreadable
from extauthz.catalog.wso2.writing.naming import find_fault, name_api
from extauthz.catalog.wso2.writing.report import Report
from extauthz.model.apis import ApiState
from extauthz.model.routing.templates import TemplateError, split_template, write_shape

_STATES: Final = {state.value: state for state in ApiState}
_METHODS: Final = frozenset(
    {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT"}
)
_NOT_HTTP: Final = frozenset({"GRAPHQL", "WEBSUB", "ASYNC"})
_NO_AUTHENTICATION: Final = "none"


def write_apis(
    rows: Rows, tiers: Tiers, report: Report, *, takes_opaque: bool
) -> dict[str, dict[str, Any]]:
    """The APIs, by what identifies their rows."""
    security = ["jwt", "opaque", "api_key"] if takes_opaque else ["jwt", "api_key"]
    written: dict[str, dict[str, Any]] = {}
    names: set[tuple[str, str]] = set()
    contexts: set[str] = set()
    for key, row in sorted(rows.apis.items()):
        what = f"API {row.name!r} {row.version!r}"
        try:
            document = _write_api(row, tiers, report, security, what)
        except Unreadable as exc:
            report.leave_out(what, f"{exc}: it is not served")
            continue
        name = (document["name"], document["version"])
        if name in names or document["context"] in contexts:
            report.leave_out(what, "has the name or the context of another one: it is not served")
            continue
        names.add(name)
        contexts.add(document["context"])
        written[key] = document
    _keep_one_default(written.values(), report)
    return written


def _write_api(
    row: ApiRow, tiers: Tiers, report: Report, security: list[str], what: str
) -> dict[str, Any]:
    for text in (name_api(row), row.version):
        fault = find_fault(text)
        if fault:
            raise Unreadable(fault)
    state = _STATES.get(row.status.strip().upper())
    if state is None:
        raise Unreadable(f"is in the unknown state {row.status!r}")
    if row.type.upper() in _NOT_HTTP:
        raise Unreadable(f"is of the type {row.type}, which is not enforced")
    context = f"/{row.context.strip('/')}"
    if context == "/":
        raise Unreadable("has the root as its context")
    tenant = tenant_of(row.organization)
    tier = tiers.find("api", tenant, row.policy)
    resources = _write_resources(row, tiers, tenant, report, what, has_tier=tier is not None)
    if not resources:
        raise Unreadable("has no resource that could be called")
    document: dict[str, Any] = {
        "name": name_api(row),
        "version": row.version,
        "context": context,
        "base_path": "sent",
        "state": state.value,
        "security": security,
        "resources": resources,
    }
    if row.is_default:
        document["default_version"] = True
    if tier is not None:
        document["tier"] = tier
    return document


def _write_resources(
    row: ApiRow, tiers: Tiers, tenant: str, report: Report, what: str, *, has_tier: bool
) -> list[dict[str, Any]]:
    grouped: dict[tuple[Any, ...], dict[str, Any]] = {}
    taken: dict[tuple[str, tuple[str, ...]], tuple[Any, ...]] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for mapping in row.url_mappings:
        method = mapping.method.strip().upper() or "*"
        template = _write_template(mapping.template)
        is_open = mapping.auth_scheme.strip().lower() == _NO_AUTHENTICATION
        try:
            if method not in _METHODS and method != "*":
                message = "the method is not served"
                raise Unreadable(message)  # noqa: TRY301  (one place tells of all)
            shape = write_shape(split_template(template))
            tier = None if has_tier else tiers.find("api", tenant, mapping.policy)
        except (TemplateError, Unreadable) as exc:
            told = f"{mapping.method} {mapping.template!r}: {exc}"
            if not is_open:
                # Without it, its requests could fall to another resource that asks for less.
                raise Unreadable(f"has a resource that cannot be carried over, {told}") from exc
            report.leave_out(what, f"has an open resource that is not served, {told}")
            continue
        scopes = _list_scopes(mapping)
        wanted = (is_open, scopes, tier)
        if taken.setdefault((method, shape), wanted) != wanted:
            raise Unreadable(f"asks for two things at {method} {mapping.template!r}")
        if (method, shape) in seen:
            continue
        seen.add((method, shape))
        key = (template, is_open, scopes, tier)
        document = grouped.get(key)
        if document is None:
            document = grouped[key] = {"methods": [], "path": template}
            if is_open:
                document["security"] = ["none"]
            elif scopes:
                document["scopes"] = list(scopes)
            if tier is not None:
                document["tier"] = tier
        document["methods"].append(method)
    return list(grouped.values())


def _write_template(template: str) -> str:
    """``/*`` at the end matches the rest in both; a template without a slash begins with one."""
    return template if template.startswith("/") else f"/{template}"


def _list_scopes(mapping: UrlMapping) -> tuple[str, ...]:
    return tuple(dict.fromkeys(scope for scope in mapping.scopes if scope.strip()))


def _keep_one_default(written: Any, report: Report) -> None:
    """A name may have one default version; with two, none of the later ones is served as such."""
    defaults: dict[str, Mapping[str, Any]] = {}
    for document in written:
        if not document.get("default_version"):
            continue
        first = defaults.setdefault(document["name"], document)
        if first is not document:
            del document["default_version"]
            report.leave_out(
                f"API {document['name']!r} {document['version']!r}",
                f"is a second default version beside {first['version']}; it is served by its own",
            )
