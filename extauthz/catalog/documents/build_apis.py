"""Builds APIs and their resources from documents and OpenAPI documents.

- Resources in the catalog override those of the OpenAPI document with the same template and
  method; one for any method overrides all of them.
- What the catalog says of the API overrides the OpenAPI document.
- The API's tier replaces its resources' tiers (as in WSO2 API Manager). A resource's tier is then
  kept without an effect, with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from extauthz.catalog.documents.addresses import plan_base_paths, read_hosts
from extauthz.catalog.documents.build_conditions import build_cost
from extauthz.catalog.documents.build_limits import find_tier
from extauthz.catalog.documents.faults import CatalogFile, Faults
from extauthz.catalog.documents.shapes import ApiDocument, PlaceDocument
from extauthz.catalog.openapi.document import OpenApiDocument
from extauthz.catalog.openapi.operations import CatalogWord
from extauthz.catalog.openapi.read import OpenApiResources, read_openapi
from extauthz.documents.document import read_mapping
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name
from extauthz.errors import ConfigError
from extauthz.model.apis import Api, Resource
from extauthz.model.field_names import FIELD_NAME
from extauthz.model.identity import Place, PlaceKind, SecurityScheme
from extauthz.model.limits import Tier
from extauthz.model.routing.routes import ANY_METHOD, ResourceTree
from extauthz.model.routing.segments import is_respelled
from extauthz.model.routing.templates import TemplateError, split_template, write_shape

_LOG = logging.getLogger(__name__)

DEFAULT_SECURITY: Final = (SecurityScheme.JWT, SecurityScheme.API_KEY)
_NO_DOCUMENT: Final = OpenApiResources()


def build_apis(
    files: Sequence[CatalogFile], tiers: Mapping[str, Tier], faults: Faults
) -> dict[tuple[str, str], Api]:
    """Every API by name and version."""
    apis: dict[tuple[str, str], Api] = {}
    defaults: dict[str, str] = {}
    served: dict[tuple[str, str], Api] = {}
    """By host and base path."""
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for file in files:
        for position, document in enumerate(file.document.apis):
            path: NodePath = ("apis", position)
            name = f"{document.name} {document.version}"
            if (document.name, document.version) in apis:
                faults.add(
                    file, path, f"API {show_name(name)} is there already; change name or version"
                )
                continue
            if document.default_version:
                first = defaults.setdefault(document.name, document.version)
                if first != document.version:
                    faults.add(
                        file,
                        (*path, "default_version"),
                        f"version {show_name(first)} is the default already; keep one",
                    )
            api = _ApiBuilder(file, path, document, tiers, faults, shared).build()
            apis[document.name, document.version] = api
            _check_tree(file, path, api, faults)
            for host in api.hosts:
                for base_path in api.base_paths:
                    other = served.setdefault((host, base_path), api)
                    if other is not api:
                        faults.add(
                            file,
                            (*path, "hosts" if document.context is None else "context"),
                            f"API {show_name(f'{other.name} {other.version}')} is served at host "
                            f"{host}, base path {base_path or '/'} already; change context or "
                            "hosts",
                        )
    return apis


def _check_tree(file: CatalogFile, path: NodePath, api: Api, faults: Faults) -> None:
    """Adds a fault when matching the resources together could take too many steps."""
    if not any(path == known[: len(path)] for known in faults.paths_of(file)):
        try:
            tree = ResourceTree(api)
        except TemplateError as exc:
            faults.add(file, (*path, "resources"), str(exc))
            return
        if tree.is_respelled:
            template = next(it.template for it in api.resources if is_respelled(it.template))
            _LOG.warning(
                "%s: API %s %s has templates with escapes that are not needed, like %s: "
                "it is not known whether the upstream decodes them, so requests that "
                "could also match another resource are refused; write the characters "
                "themselves",
                file.source.file, api.name, api.version, template,
            )  # fmt: skip


class _ApiBuilder:
    """Builds one API.

    Args:
        shared: methods and scopes that stand in many resources, each kept once.
    """

    def __init__(
        self,
        file: CatalogFile,
        path: NodePath,
        document: ApiDocument,
        tiers: Mapping[str, Tier],
        faults: Faults,
        shared: dict[tuple[str, ...], tuple[str, ...]],
    ) -> None:
        self._file, self._path, self._written = file, path, document
        self._tiers, self._faults, self._shared = tiers, faults, shared

    def build(self) -> Api:
        written = self._written
        described = _NO_DOCUMENT
        if written.openapi is not None:
            described = self._read_openapi(written.openapi)
        tier = self._find_tier(written.tier, "tier")
        if written.tier is None:
            tier = self._find_tier(described.tier, "openapi")
        places = described.api_key_places
        if written.api_key_places is not None:
            places = self._read_places(written.api_key_places)
        header = described.bearer_header
        if written.bearer_header is not None:
            header = self._check_token(written.bearer_header, "bearer_header").lower()
        preflight = written.allow_preflight
        if preflight is None:
            preflight = described.allow_preflight or False
        return Api(
            name=written.name,
            version=written.version,
            resources=self._build_resources(described, tier),
            base_paths=plan_base_paths(written, described.base_path, self._fault),
            base_path=written.base_path,
            hosts=read_hosts(written, self._fault),
            is_default_version=written.default_version,
            state=written.state,
            tier=tier,
            key_types=written.key_types,
            subscription_required=written.subscription == "required",
            audiences=frozenset(written.audiences),
            unsubscribed_tier=self._find_unsubscribed_tier(),
            uuid=written.uuid,
            provider=written.provider,
            bearer_header=header,
            api_key_places=places,
            forward_credentials=written.forward_credentials,
            allow_preflight=preflight,
        )

    def _fault(self, message: str, *below: str | int) -> None:
        self._faults.add(self._file, (*self._path, *below), message)

    def _find_tier(self, name: str | None, *below: str | int) -> Tier | None:
        return find_tier(self._tiers, name, self._file, (*self._path, *below), self._faults)

    def _find_unsubscribed_tier(self) -> Tier | None:
        written = self._written
        if written.unsubscribed_tier is not None and written.subscription == "required":
            self._fault("needs subscription: none; add it, or remove this", "unsubscribed_tier")
        return self._find_tier(written.unsubscribed_tier, "unsubscribed_tier")

    def _read_openapi(self, name: str) -> OpenApiResources:
        source = self._faults.read_reference(self._file, (*self._path, "openapi"), name)
        if source is None:
            return _NO_DOCUMENT
        try:
            tree = read_mapping(source)
        except ConfigError as exc:
            for problem in exc.problems:
                self._faults.add_problem(problem)
            return _NO_DOCUMENT
        document = OpenApiDocument(
            source, tree, folder=self._file.folder, read=self._faults.read_text
        )
        described = read_openapi(document, self._say_of_catalog())
        for problem in document.list_problems():
            self._faults.add_problem(problem)
        for warning in document.list_warnings():
            _LOG.warning("%s", warning)
        return described

    def _say_of_catalog(self) -> CatalogWord:
        """What the catalog itself says, so that the OpenAPI document need not."""
        resources: set[tuple[str, tuple[str, ...]]] = set()
        for entry in self._written.resources:
            try:
                shape = write_shape(split_template(entry.path))
            except TemplateError:
                continue  # told of with the resources
            resources.update((method.upper(), shape) for method in entry.methods)
        security = self._written.security
        return CatalogWord(
            security=security,
            resources=resources,
            takes_default=security is None
            and any(entry.security is None for entry in self._written.resources),
        )

    def _build_resources(
        self, described: OpenApiResources, api_tier: Tier | None
    ) -> tuple[Resource, ...]:
        written = self._written
        if not written.resources and written.openapi is None:
            self._fault("has no resources, so nothing could be called; add resources or openapi")
        security = self._check_security(written.security, "security")
        default = security or described.security or DEFAULT_SECURITY
        taken: dict[tuple[str, tuple[str, ...]], str] = {}
        resources: list[Resource] = []
        for position, entry in enumerate(written.resources):
            at = ("resources", position)
            methods = self._read_methods(entry.methods, at)
            self._take(methods, entry.path, taken, at)
            tier = self._find_tier(entry.tier, *at, "tier")
            if tier is not None and api_tier is not None:
                _LOG.warning(
                    "%s: API %s %s has a tier, which replaces tier %s of resource %s",
                    self._file.source.file, written.name, written.version, tier.name, entry.path,
                )  # fmt: skip
            cost, cost_from = build_cost(
                self._file, (*self._path, *at, "cost"), entry.cost, self._faults
            )
            resources.append(
                Resource(
                    methods=self._share(methods),
                    template=entry.path,
                    security=self._check_security(entry.security, *at, "security") or default,
                    scopes=self._share(tuple(dict.fromkeys(entry.scopes))),
                    all_scopes=entry.scopes_match == "all",
                    tier=tier,
                    cost=cost,
                    cost_from=cost_from,
                )
            )
        for operation in described.resources:
            # `read_openapi` leaves out what cannot be split.
            shape = write_shape(split_template(operation.path))
            methods = tuple(it for it in operation.methods if (it, shape) not in taken)
            if not methods:
                continue
            self._take(methods, operation.path, taken, ("openapi",))
            tier = self._find_tier(operation.tier, "openapi")
            resources.append(
                Resource(
                    methods=self._share(methods),
                    template=operation.path,
                    security=operation.security or default,
                    scopes=self._share(operation.scopes),
                    all_scopes=operation.all_scopes,
                    tier=tier,
                )
            )
        return tuple(resources)

    def _share(self, words: tuple[str, ...]) -> tuple[str, ...]:
        return self._shared.setdefault(words, words)

    def _take(
        self,
        methods: Iterable[str],
        template: str,
        taken: dict[tuple[str, tuple[str, ...]], str],
        at: NodePath,
    ) -> None:
        """Checks a template, and that no other resource matches the same requests."""
        try:
            shape = write_shape(split_template(template))
        except TemplateError as exc:
            self._fault(str(exc), *at, "path")
            return
        for method in methods:
            other = taken.get((method, shape))
            if other is None:
                taken[method, shape] = template
            else:
                self._fault(
                    f"{method} {show_name(template)} matches the same as {show_name(other)} "
                    "before it; remove one",
                    *at,
                    "path",
                )

    def _read_methods(self, methods: Sequence[str], at: NodePath) -> tuple[str, ...]:
        upper = [method.upper() for method in methods]
        for position, method in enumerate(upper):
            if FIELD_NAME.fullmatch(method) is None:
                self._fault("is no HTTP method", *at, "methods", position)
            elif method in upper[:position]:
                self._fault("is there already; remove one", *at, "methods", position)
        if ANY_METHOD in upper and len(upper) > 1:
            self._fault("* is any method; remove the others", *at, "methods")
        return tuple(dict.fromkeys(upper))

    def _check_security(
        self, schemes: tuple[SecurityScheme, ...] | None, *below: str | int
    ) -> tuple[SecurityScheme, ...] | None:
        if schemes is None:
            return None
        if len(set(schemes)) != len(schemes):
            self._fault("names a scheme twice; remove one", *below)
        return schemes

    def _read_places(self, written: tuple[PlaceDocument, ...]) -> tuple[Place, ...]:
        places: list[Place] = []
        for position, document in enumerate(written):
            at = ("api_key_places", position)
            given = [
                (kind, name)
                for kind in (PlaceKind.HEADER, PlaceKind.QUERY, PlaceKind.COOKIE)
                if (name := getattr(document, kind.value)) is not None
            ]
            if len(given) != 1:
                self._fault("needs exactly one of header, query and cookie", *at)
                continue
            kind, name = given[0]
            if kind is not PlaceKind.QUERY:
                self._check_token(name, *at, kind.value)
            place = Place(kind, name.lower() if kind is PlaceKind.HEADER else name)
            if place in places:
                self._fault("is there already; remove one", *at)
            places.append(place)
        return tuple(places)

    def _check_token(self, name: str, *below: str | int) -> str:
        if FIELD_NAME.fullmatch(name) is None:
            self._fault("is no header or cookie name; use letters, digits and '-'", *below)
        return name
