"""Reads the operations of an OpenAPI document: who may call each, and what limits it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from extauthz.catalog.openapi.document import MergedNode, Node, OpenApiDocument
from extauthz.catalog.openapi.grammar import (
    EXTENSIONS,
    METHODS,
    OPERATION,
    PATH_ITEM,
    reads_like_access,
)
from extauthz.catalog.openapi.security import PUBLIC, SecurityNeed, SecurityReader
from extauthz.catalog.openapi.servers import ServerPlace, read_servers
from extauthz.catalog.openapi.wso2 import (
    Unsayable,
    read_application_security,
    read_is_disabled,
    read_is_open,
    read_scopes,
    read_tier,
)
from extauthz.documents.messages import show_name
from extauthz.model.identity import Place, SecurityScheme
from extauthz.model.routing.routes import ANY_METHOD
from extauthz.model.routing.templates import (
    NeverMatchedError,
    TemplateError,
    split_template,
    write_shape,
)

MAX_OPERATIONS: Final = 10_000
_QUERY: Final = re.compile(r"[?#](?![^{}]*\})")
_WRITTEN_AS_A_PATH: Final = re.compile(r"/(?:[^{}]|\{[^{}]*\})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogWord:
    """What the catalog itself says of an API that a document describes.

    Attributes:
        security: schemes of the API; None when it names none.
        resources: method (or `ANY_METHOD`) and template shape of each of its resources.
        takes_default: whether one of them uses the document's global security.
    """

    security: tuple[SecurityScheme, ...] | None = None
    resources: AbstractSet[tuple[str, tuple[str, ...]]] = frozenset()
    takes_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiResource:
    """One operation of a document.

    Attributes:
        scopes: any of them is enough unless `all_scopes`; empty requires none.
        security: None when the operation has the security of its API.
        tier: name of the tier that limits the operation; None for no limit.
    """

    methods: tuple[str, ...]
    path: str
    scopes: tuple[str, ...] = ()
    all_scopes: bool = False
    security: tuple[SecurityScheme, ...] | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOperation:
    """An operation, and where it stands in the document and on servers of its own.

    Attributes:
        shape: as `write_shape`. When the template is `unmatched`, of all that it may mean; empty
            when that is refused anyhow.
        unmatched: why its template fits no request; None when it does.
    """

    resource: OpenApiResource
    shape: tuple[str, ...]
    node: Node
    servers: tuple[ServerPlace, ...] | None
    unmatched: str | None = None


class OperationReader:
    """Reads the operations of one document.

    Args:
        declared: its security schemes, by name; None when there are none.

    Attributes:
        is_decided: whether the catalog had a resource for an operation that was read so far.
    """

    def __init__(
        self,
        document: OpenApiDocument,
        version: int,
        declared: Node | None,
        of_catalog: CatalogWord,
    ) -> None:
        self._document, self._version, self._of_catalog = document, version, of_catalog
        root = document.root
        self._application = self._read_application_security(root)
        self._security = SecurityReader(
            document,
            declared,
            of_catalog=of_catalog.security,
            is_wso2=any(str(key).startswith("x-wso2-") for key in root.value),
            application=self._application,
        )
        self._is_public = read_is_disabled(document, root) or False
        self._is_default_asked = of_catalog.takes_default
        """Whether any operation uses the document's global security."""
        self.is_decided = False

    @cached_property
    def _default_need(self) -> SecurityNeed | None:
        """The document's global ``security``; None when a catalog cannot express it."""
        self._is_default_asked = True
        return self._security.read_requirement(self._document.root)

    @property
    def _own_default(self) -> tuple[SecurityScheme, ...] | None:
        if self._application is not None:
            return self._application
        return None if self._default_need is None else self._default_need.schemes

    @property
    def default_schemes(self) -> tuple[SecurityScheme, ...] | None:
        """The schemes of operations without security of their own, once all have been read.

        None also when the catalog decides all of those.
        """
        if self._is_public:
            return PUBLIC
        return self._own_default if self._is_default_asked else self._application

    @property
    def places(self) -> tuple[Place, ...]:
        """Of all API key schemes that were asked for so far."""
        return tuple(self._security.places)

    # Paths

    def read_paths(self) -> Iterator[PlacedOperation]:
        document = self._document
        paths = document.read_mapping(document.root, "paths")
        seen: dict[tuple[str, tuple[str, ...]], PlacedOperation] = {}
        count = 0
        for key, item in paths.items() if paths is not None else ():
            if key.startswith("x-"):
                document.check_extension(key, item)
                continue
            template = _QUERY.split(key, maxsplit=1)[0]
            if template != key:
                document.warn(
                    item, "what follows ? or # in a path is not matched: the path alone decides"
                )
            shape, unmatched = _read_template(template)
            if unmatched is not None and not _WRITTEN_AS_A_PATH.fullmatch(template):
                document.report(item, unmatched)
                continue
            fields = self._read_path_item(item)
            for method in [] if fields is None else fields.names():
                if method not in METHODS or fields is None:
                    continue
                at = (method.upper(), shape)
                if not self._of_catalog.resources.isdisjoint((at, (ANY_METHOD, shape))):
                    self.is_decided = True
                    continue
                operation = self._read_operation(template, shape, method, fields)
                if operation is None:
                    continue
                if unmatched is not None:
                    operation = replace(operation, unmatched=unmatched)
                elif not self._is_new(operation, at, seen):
                    continue
                yield operation
                count += 1
                if count > MAX_OPERATIONS:
                    message = f"more than {MAX_OPERATIONS} operations; split the document"
                    document.report(document.root.below("paths"), message)
                    return
        if not self.is_decided:
            self._is_default_asked = True

    def _is_new(
        self,
        operation: PlacedOperation,
        at: tuple[str, tuple[str, ...]],
        seen: dict[tuple[str, tuple[str, ...]], PlacedOperation],
    ) -> bool:
        """Whether no earlier operation matches the same requests; a problem when one differs."""
        other = seen.setdefault(at, operation)
        if other is operation:
            return True
        same = replace(other.resource, path=operation.resource.path) == operation.resource
        if not same or other.servers != operation.servers:
            self._document.report(
                operation.node,
                f"{at[0]} {show_name(operation.resource.path)} matches the same requests as "
                f"{show_name(other.resource.path)} before it, which asks for something else; "
                "remove one, or write a resource for both into the catalog",
            )
        return False

    def _read_path_item(self, written: Node) -> MergedNode | None:
        """The fields of a path item, together with those that its reference leads to."""
        fields = self._document.merge(written)
        if fields is None:
            return None
        known = PATH_ITEM[self._version]
        for name in fields.names():
            field = fields.below(name)
            if name.startswith("x-"):
                self._document.check_extension(name, field)
            elif (
                name not in known
                and not isinstance(field.value, Mapping | None)
                and not reads_like_access(name)
            ):
                self._document.warn(field, f"unknown key {show_name(name)} is passed over")
            elif name not in known:
                self._document.report(
                    field,
                    f"{name!r} is no method; methods are {', '.join(METHODS)}, in lower case",
                )
        return fields

    # Operations

    def _read_operation(
        self, template: str, shape: tuple[str, ...], method: str, item: MergedNode
    ) -> PlacedOperation | None:
        document = self._document
        written = item.below(method)
        node = document.resolve(written)
        if node is None:
            return None
        if not isinstance(node.value, Mapping):
            document.report(node, "an operation is a mapping")
            return None
        before = document.problem_count
        document.check_keys(node, OPERATION[self._version], is_referred=node is not written)
        self._check_home(node, item)
        tier = read_tier(document, node, item)
        need: SecurityNeed | None = SecurityNeed(PUBLIC)
        if not self._is_operation_public(node, item):
            need = self._read_need(node)
        servers = read_servers(document, node)
        of_item = read_servers(document, item)
        if servers is not None and of_item is not None and servers != of_item:
            document.report(
                node.below("servers"),
                "the path item has other servers, and readers differ on which of the two count: "
                "remove one",
            )
        if need is None or document.problem_count > before:
            return None
        schemes = need.schemes
        if schemes is None and self._is_public:
            # Security is switched off for the document and on again here.
            schemes = self._own_default
            if schemes in (None, PUBLIC):
                document.report(node, "security is switched on, but none is described")
                return None
        resource = OpenApiResource(
            methods=(method.upper(),),
            path=template,
            scopes=need.scopes,
            all_scopes=need.all_scopes,
            security=schemes,
            tier=tier,
        )
        own = of_item if servers is None else servers
        return PlacedOperation(resource=resource, shape=shape, node=node, servers=own)

    def _check_home(self, operation: Node, item: MergedNode) -> None:
        """Reports an operation of another document if that document has different access rules."""
        home, root = operation.file, self._document.root
        if home is root.file or not isinstance(home.tree, Mapping):
            return
        top = Node(home, (), home.tree)
        if not (top.has("openapi") or top.has("swagger")):
            return
        doubtful = [*EXTENSIONS, "basePath", "securityDefinitions", "components"]
        doubtful += [] if operation.has("security") else ["security"]
        doubtful += [] if operation.has("servers") or item.has("servers") else ["servers"]
        for key in doubtful:
            theirs, ours = top.below(key), root.below(key)
            if key == "components":
                theirs, ours = theirs.below("securitySchemes"), ours.below("securitySchemes")
            if theirs.value is not None and theirs.value != ours.value:
                self._document.report(
                    operation,
                    f"belongs to another document, whose {theirs.path[-1]} differ from this "
                    "one's, and which of them count is not defined; bundle both into one",
                )
                return

    def _is_operation_public(self, operation: Node, item: MergedNode) -> bool:
        if read_is_open(self._document, operation):
            return True
        is_disabled = read_is_disabled(self._document, operation, item)
        return self._is_public if is_disabled is None else is_disabled

    def _read_need(self, operation: Node) -> SecurityNeed | None:
        """The security of an operation; None, with a problem, when it cannot be expressed."""
        problems = self._document.problem_count
        if operation.has("security"):
            need = self._security.read_requirement(operation)
        else:
            need = self._default_need
            if need is not None:
                need = SecurityNeed(None, need.scopes, need.all_scopes)
        own = self._read_application_security(operation)
        if need is None or self._document.problem_count > problems:
            return None
        schemes = need.schemes if own is None else own
        scopes = read_scopes(self._document, operation, need.scopes)
        if scopes is None:
            return None
        taken = schemes or self._of_catalog.security or self._own_default if scopes else None
        if taken == PUBLIC:
            self._document.report(
                operation, "scopes are asked for, but no security: remove one of them"
            )
            return None
        return SecurityNeed(schemes, scopes, need.all_scopes)

    def _read_application_security(self, node: Node) -> tuple[SecurityScheme, ...] | None:
        """The schemes of API Manager's extensions; the catalog's when those cannot be expressed."""
        found = read_application_security(self._document, node)
        if not isinstance(found, Unsayable):
            return found
        of_catalog = self._of_catalog.security
        if of_catalog is None or SecurityScheme.NONE in of_catalog:
            self._document.report(found.node, found.why)
            return None
        self._document.warn(found.node, f"{found.why}: the catalog's security stands in its place")
        return of_catalog


def _read_template(template: str) -> tuple[tuple[str, ...], str | None]:
    """`PlacedOperation.shape` and `PlacedOperation.unmatched`."""
    try:
        return write_shape(split_template(template)), None
    except NeverMatchedError as error:
        return (), str(error)
    except TemplateError as error:
        unmatched = str(error)
    shape: list[str] = []
    for segment in template.split("/")[1:]:
        try:
            shape += write_shape(split_template(f"/{segment}")) if segment else ("**",)
        except TemplateError:
            shape.append("**")
        if shape[-1] == "**":
            break
    return tuple(shape) or ("**",), unmatched
