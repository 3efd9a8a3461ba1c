"""Converts HTTPAPISpecs, which HTTPAPISpecBindings bind to services, to APIs.

Envoy gave a request the attributes of the spec, then those of the best matching template, then
those of each matching regex. It did so for every spec bound to the service, so the last spec
determined the API. Therefore:

- A spec becomes an API with the name and version of its attributes. A path that matched no pattern
  was allowed without a scope; the resource ``/**`` does the same.
- Where patterns of several kinds or specs overlap, all their scopes are required.
- When a service has several specs, the last one is its API. The others are served below their own
  context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from extauthz.catalog.documents.addresses import VERSION_PLACEHOLDER
from mixer_compat.migrate.reading.objects import MixerObject, Part
from mixer_compat.migrate.reading.path_templates import (
    REST,
    PathTemplate,
    is_within,
    overlap,
    read_regex,
    read_uri_template,
)
from mixer_compat.migrate.reading.references import Objects
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import ANY_VERSION, ApiDraft, Draft, ResourceDraft, Target

DEFAULT_KEY_PLACES: Final = ({"query": "key"}, {"query": "api_key"}, {"header": "x-api-key"})
"""The places of ``request.api_key`` for a spec without `api_keys`."""

_SCOPE: Final = "resource.scope"
_OPERATION: Final = "api.operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """One path pattern.

    Attributes:
        source: the same for patterns of which Envoy chose only the best match.
        scope: its own, or that of its whole spec.
    """

    method: str
    template: PathTemplate
    scope: str
    source: str
    spec: str


@dataclass(slots=True, kw_only=True, eq=False)
class _Spec:
    object: MixerObject
    name: str
    version: str
    context: str
    scope: str
    patterns: list[_Pattern]
    key_places: list[dict[str, str]]
    services: list[Target] = field(default_factory=list)


def read_apis(objects: Objects, draft: Draft) -> None:
    """Adds the APIs of all specs that are bound to a service to the draft."""
    specs = {
        (found.name, found.namespace): _read_spec(found) for found in objects.of_kind("HTTPAPISpec")
    }
    for binding in objects.of_kind("HTTPAPISpecBinding"):
        _bind(binding, specs)
    by_service: dict[Target, list[_Spec]] = {}
    for spec in specs.values():
        for service in spec.services:
            by_service.setdefault(service, []).append(spec)
        if not spec.services:
            spec.object.tell(
                Outcome.LOST, (), "is bound to no service, so it had no effect; it is left out"
            )
    drafts: dict[tuple[str, str], tuple[ApiDraft, list[_Pattern], dict[str, str], _Spec]] = {}
    """By name and version; the third item has the scopes that whole specs require."""
    for spec in specs.values():
        if not spec.services:
            continue
        won = [service for service in spec.services if by_service[service][-1] is spec]
        patterns = list(spec.patterns)
        scopes = {str(spec.object): spec.scope}
        for service in won:
            for other in by_service[service][:-1]:
                patterns += other.patterns
                scopes[str(other.object)] = other.scope
        key = (spec.name, spec.version)
        if key in drafts:
            api, known, known_scopes, _ = drafts[key]
            api.targets = tuple(dict.fromkeys((*api.targets, *won)))
            drafts[key] = (api, [*known, *patterns], {**known_scopes, **scopes}, spec)
            continue
        api = ApiDraft(
            name=spec.name,
            version=spec.version,
            targets=tuple(won or spec.services),
            key_places=spec.key_places,
        )
        if not won:
            winner = by_service[spec.services[0]][-1]
            api.context = _read_context(spec)
            spec.object.remark(
                Outcome.CHECK,
                ("spec", "attributes"),
                f"is bound to the same services as API {winner.name} {winner.version}, to "
                f"which Mixer assigned every request; {spec.name} {spec.version} is now "
                f"served below {api.context} only. Give it hosts or a context of its own",
            )
        drafts[key] = (api, patterns, scopes, spec)
    for api, patterns, scopes, spec in drafts.values():
        api.resources = _write_resources(patterns, scopes)
        if any(resource.needs_all for resource in api.resources):
            spec.object.remark(
                Outcome.STRICTER,
                ("spec", "patterns"),
                "overlap with a regex or with another spec. In Mixer the scope of the "
                "last one applied; now the scopes of both are required",
            )
        draft.add(api)
        for target in api.targets:
            draft.guarded[target] = None


def _read_spec(found: MixerObject) -> _Spec:
    attributes = _read_attributes(found.spec)
    name, version = attributes.get("api.service", ""), attributes.get("api.version", "")
    if not name or not version:
        found.remark(
            Outcome.CHECK,
            ("spec", "attributes"),
            f"has no name of the {'version' if name else 'API'}; "
            f"{found.name if not name else ANY_VERSION} is used",
        )
    scope = attributes.get(_SCOPE, "")
    patterns = [
        pattern
        for part in found.spec.list_parts("patterns")
        for pattern in _read_pattern(part, str(found), scope)
    ]
    places = [
        {kind: place.text(kind)}
        for place in found.spec.list_parts("apiKeys")
        for kind in ("query", "header", "cookie")
        if place.find(kind) is not None
    ]
    return _Spec(
        object=found,
        name=name or found.name,
        version=version or ANY_VERSION,
        context=attributes.get("api.context", ""),
        scope=scope,
        patterns=patterns,
        key_places=places or [dict(place) for place in DEFAULT_KEY_PLACES],
    )


def _read_attributes(part: Part) -> dict[str, str]:
    """Reads the attributes that are used here; others stay unread, and are reported as such."""
    outer = part.find("attributes")
    inner = None if outer is None else outer.find("attributes")
    found: dict[str, str] = {}
    for name, value in () if inner is None else inner.entries():
        if name in ("api.service", "api.version", "api.context", _OPERATION, _SCOPE):
            found[name] = value.text("stringValue").strip()
        elif name == "api.protocol":
            value.tell(Outcome.OBSOLETE, "was used in Mixer's reports only")
    return found


def _read_pattern(part: Part, spec: str, spec_scope: str) -> list[_Pattern]:
    method = part.text("httpMethod").upper() or "*"
    scope = _read_attributes(part).get(_SCOPE, "") or spec_scope
    template, regex = part.find("uriTemplate"), part.find("regex")
    source = spec
    if template is not None:
        templates = read_uri_template(template.read())
        written = template
    elif regex is not None:
        templates, written = (read_regex(regex.read()),), regex
        source = f"{spec} {part.path}"  # the last matching regex was used, not the best one
    else:
        part.tell(Outcome.LOST, "has neither uriTemplate nor regex, so it matched nothing")
        return []
    if not templates[0].is_exact:
        if not scope:
            written.tell(
                Outcome.OBSOLETE,
                "cannot be written as a path template, and required no scope; the "
                "resource /** lets its requests through, as before",
            )
            return []
        written.tell(
            Outcome.STRICTER,
            f"cannot be written as a path template; {templates[0].text} is used instead, "
            "so its scope is required on more paths",
        )
    return [
        _Pattern(method=method, template=each, scope=scope, source=source, spec=spec)
        for each in templates
    ]


def _bind(binding: MixerObject, specs: dict[tuple[str, str], _Spec]) -> None:
    named: list[_Spec] = []
    for part in binding.spec.list_parts("apiSpecs"):
        name, namespace = part.text("name"), part.text("namespace") or binding.namespace
        spec = specs.get((name, namespace))
        if spec is None:
            part.tell(
                Outcome.LOST,
                f"there is no HTTPAPISpec {namespace}/{name} among the objects; export it too",
            )
        else:
            named.append(spec)
    for part in binding.spec.list_parts("services"):
        target = read_service(part, binding.namespace)
        for spec in named:
            if target not in spec.services:
                spec.services.append(target)


def read_service(part: Part, namespace: str) -> Target:
    """Reads an IstioService of a binding.

    Args:
        part: has name, namespace, domain and service.
        namespace: that of the binding, for a service without a namespace.
    """
    service = part.text("service")
    if service in ("*", "**"):
        return Target()
    host = service.split(".")
    name = part.text("name") or host[0]
    domain = part.text("domain") or ".".join(host[3:]) or "cluster.local"
    namespace = part.text("namespace") or (host[1] if len(host) > 1 else namespace)
    labels = part.find("labels")
    if labels is not None and labels.value:
        labels.tell(
            Outcome.STRICTER,
            "selected some workloads of the service; now it applies to all of them",
        )
    if name == "*":
        return Target(namespace=namespace)
    return Target(namespace=namespace, service=name, domain=domain.removeprefix("svc."))


def _read_context(spec: _Spec) -> str:
    """The context below which an API may be served, in the catalog's form, with the version."""
    context = spec.context.rstrip("/") or f"/{spec.name}"
    if not context.startswith("/"):
        context = f"/{context}"
    segments = context[1:].split("/")
    if spec.version not in segments and VERSION_PLACEHOLDER not in segments:
        context = f"{context}/{spec.version}"
    return context.replace(VERSION_PLACEHOLDER, spec.version)


def _is_narrower(one: PathTemplate, other: PathTemplate) -> bool:
    """Whether `one` takes precedence over `other` on all its paths, so scopes need no merging."""
    return is_within(one, other) and not is_within(other, one)


def _write_resources(patterns: list[_Pattern], of_specs: dict[str, str]) -> list[ResourceDraft]:
    """The resources for the patterns, and for the paths that match no pattern.

    Args:
        of_specs: the scopes that whole specs require; empty for none.
    """
    ends: dict[tuple[str, tuple[str, ...]], tuple[PathTemplate, list[str]]] = {}
    asks = any(pattern.scope for pattern in patterns) or any(of_specs.values())
    for pattern in patterns:
        key = (pattern.method, pattern.template.segments)
        # A wider template also has paths outside of the pattern, where the other patterns matched.
        is_wider = not pattern.template.is_exact
        scopes = [pattern.scope]
        scopes += [scope for spec, scope in of_specs.items() if is_wider or spec != pattern.spec]
        scopes += [
            other.scope
            for other in patterns
            if (is_wider or other.source != pattern.source)
            and (other.method in ("*", pattern.method) or pattern.method == "*")
            and overlap(pattern.template, other.template)
            and not _is_narrower(other.template, pattern.template)
        ]
        if key in ends:
            # Of two patterns of one spec the first is used; other specs have added their scopes.
            if is_wider:
                ends[key] = (ends[key][0], _drop_empty([*ends[key][1], *scopes]))
            continue
        ends[key] = (pattern.template, _drop_empty(scopes))
    rest = (PathTemplate(f"/{REST}"), _drop_empty(of_specs.values()))
    ends.setdefault(("*", (REST,)), rest)
    by_end: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (method, _), (template, scopes) in ends.items():
        paths = [template.text]
        if asks and template.text != "/" and template.segments[-1] != REST:
            paths.append(f"{template.text}/")  # Envoy's matcher ignored a slash at the end
        for path in paths:
            by_end.setdefault((path, tuple(scopes)), []).append(method)
    return [
        ResourceDraft(
            methods=("*",) if "*" in methods else tuple(dict.fromkeys(methods)),
            path=path,
            scopes=scopes,
            needs_all=len(scopes) > 1,
        )
        for (path, scopes), methods in by_end.items()
    ]


def _drop_empty(scopes: Iterable[str]) -> list[str]:
    return [scope for scope in dict.fromkeys(scopes) if scope]
