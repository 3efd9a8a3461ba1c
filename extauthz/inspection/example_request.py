"""Makes a request to a resource that is named, as a client of the API would send it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from extauthz.documents.messages import show_name, suggest
from extauthz.errors import ExtauthzError
from extauthz.inspection.slices import LOOK, Turn
from extauthz.model.apis import Api, BasePath, Resource
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import ANY_METHOD, Route
from extauthz.model.routing.templates import NAME, split_template
from extauthz.policy.matching.match import (
    API_EXTENSION,
    BASE_PATH_EXTENSION,
    VERSION_EXTENSION,
    check_route,
)

_FILLS: Final = ("1", "example", "zz9")
"""What stands for the names of a template. A literal beside a name may be the first of them."""
_MOST_COMPARED: Final = 1_000
"""Names that are compared for likeness; that takes 10 µs for each."""
_MOST_LISTED: Final = 10


class UnknownName(ExtauthzError):
    """A name that the catalog does not have. The text says which are like it."""

    code = "unknown_name"


async def find_application(catalog: Catalog, name: str) -> Application:
    """The application of this name.

    Raises:
        UnknownName: there is none.
    """
    found = catalog.applications.get(name)
    if found is None:
        raise UnknownName(await _say_unknown("application", name, catalog.applications))
    return found


async def find_api(catalog: Catalog, name: str, version: str = "") -> Api:
    """The API of this name, in its default version or its only one when none is given.

    Raises:
        UnknownName: there is no such API or version, or there are several.
    """
    if name not in catalog.default_versions:
        raise UnknownName(await _say_unknown("API", name, catalog.default_versions))
    api = catalog.apis.get((name, version)) if version else catalog.default_versions[name]
    if api is None:
        versions = [its for of, its in catalog.apis if of == name]
        if not version:
            raise UnknownName(
                f"API {show_name(name)} has no default version; say which of {_list(versions)}"
            )
        raise UnknownName(
            await _say_unknown(f"version of API {show_name(name)}", version, versions)
        )
    return api


def name_api(
    request: ApiRequest, catalog: Catalog, api: Api, *, resource: str = "", method: str = ""
) -> ApiRequest:
    """The same request to an API that is named, whatever its host.

    The request's path may have the API's base path or not. When it is empty, it is made from the
    template of the resource.

    Args:
        resource: a template of the API; may be left out when it has one alone.
        method: as it is given; empty for one that the resource takes.

    Raises:
        UnknownName: there is no such resource, or none is named and there are several.
    """
    context = {
        **request.context,
        API_EXTENSION: api.name,
        VERSION_EXTENSION: api.version,
        BASE_PATH_EXTENSION: BasePath.SENT.value,
    }
    named = replace(request, context=context, method=method or "GET")
    base = api.base_paths[0]
    if request.path:
        has_base = any(
            request.path == its or request.path.startswith(f"{its}/") for its in api.base_paths
        )
        return replace(named, path=request.path if has_base else base + request.path)
    wanted = _find_resource(api, resource, method)
    if not method and ANY_METHOD not in wanted.methods:
        named = replace(named, method="GET" if "GET" in wanted.methods else wanted.methods[0])
    for path in _list_paths(wanted):
        tried = replace(named, path=base + path)
        route = check_route(catalog, replace(tried, method=_any_of(wanted)))
        if isinstance(route, Route) and route.resource is wanted:
            return tried
    # It is blocked or not published, or other templates take the paths: the decision says so.
    return replace(named, path=base + next(_list_paths(wanted)))


def _any_of(resource: Resource) -> str:
    return "GET" if ANY_METHOD in resource.methods else resource.methods[0]


def _find_resource(api: Api, template: str, method: str) -> Resource:
    fitting = [it for it in api.resources if template in ("", it.template)]
    listed = _list([f"{' '.join(it.methods)} {it.template}" for it in api.resources])
    if not fitting:
        raise UnknownName(
            f"{api.name} {api.version} has no resource {show_name(template)}: {listed}"
        )
    taking = [it for it in fitting if not method or {method, ANY_METHOD} & set(it.methods)]
    if len(taking) != 1 and not template:
        raise UnknownName(f"say which resource of {api.name} {api.version} is meant: {listed}")
    return (taking or fitting)[0]


def _list_paths(resource: Resource) -> Iterator[str]:
    segments = split_template(resource.template)
    for fill in _FILLS:
        filled = [fill if it in ("*", "**") else NAME.sub(fill, it) for it in segments]
        yield "/" + "/".join(filled)


async def _say_unknown(what: str, name: str, known: Collection[str]) -> str:
    """That a name is not in the catalog, with one that is like it."""
    text = f"there is no {what} {show_name(name)} in the catalog"
    if len(known) <= _MOST_COMPARED:
        return text + suggest(name, list(known))
    folded, turn = name.casefold(), Turn()
    for number, other in enumerate(known, 1):
        if other.casefold() == folded:
            return f"{text}; did you mean {show_name(other)}?"
        if number % LOOK == 0 and turn.is_over:
            await turn.pass_on()
    return f"{text}, which has {len(known)}"


def _list(names: list[str]) -> str:
    rest = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")
