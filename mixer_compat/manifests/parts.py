"""Finds the parts of a request that Mixer must send for a catalog.

Mixer sends only the attributes that an instance names. A part that is not sent cannot be checked,
and each part that is sent belongs to the proxy's cache key. So exactly those parts are sent that
the catalog, the places of credentials and the format of answers need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from extauthz.model.catalog import Catalog
from extauthz.model.conditions import Condition, TextCondition, TextSource
from extauthz.model.identity import Place, PlaceKind, SecurityScheme
from extauthz.model.limits import Tier
from extauthz.policy.authentication.credentials import INTERNAL_KEY_PLACE, CredentialPlaces
from extauthz.policy.limits.keys import KeyTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParts:
    """The parts in addition to method, path, host, client address and `authorization`.

    Attributes:
        headers: lower-case names, in alphabetical order.
        query: whether the query is needed.
        principal: whether any resource accepts client certificates.
        request_id: whether the request's id is needed. It differs for each request, so proxies can
            then never reuse an answer.
    """

    headers: tuple[str, ...] = ()
    query: bool = False
    principal: bool = False
    request_id: bool = False


def find_request_parts(
    catalog: Catalog,
    places: CredentialPlaces,
    *,
    trusted_hops: int = 0,
    trust_xfcc: bool = False,
    speaks_wso2: bool = False,
    compares_doors: bool = False,
) -> RequestParts:
    """Finds the parts that decisions about a catalog's APIs need.

    Args:
        catalog: the catalog.
        places: the places of credentials.
        trusted_hops: the proxies in front of the mesh's own, as in the settings.
        trust_xfcc: whether client certificates are read from ``x-forwarded-client-cert``.
        speaks_wso2: whether denials have the format that the client accepts (JSON, XML or SOAP).
        compares_doors: whether decisions of two doors are compared by the request's id.
    """
    found = set(_find_places(catalog, places))
    headers = {place.name for place in found if place.kind is PlaceKind.HEADER}
    headers.add("content-type")  # tells gRPC clients, which need a denial of their own form
    if any(place.kind is PlaceKind.COOKIE for place in found):
        headers.add("cookie")
    if catalog.api_key_signers or any(
        key.referers or key.referer_patterns for key in catalog.api_keys.values()
    ):
        headers.add("referer")
    if catalog.takes_internal_keys:
        headers.add(INTERNAL_KEY_PLACE.name)
    if any(api.allow_preflight for api in catalog.apis.values()):
        headers |= {"origin", "access-control-request-method"}
    if trusted_hops:
        headers.add("x-forwarded-for")
    if trust_xfcc:
        headers.add("x-forwarded-client-cert")
    if speaks_wso2:
        headers |= {"accept", "soapaction"}
    return RequestParts(
        headers=tuple(sorted(headers - {"authorization", "host"})),
        query=any(place.kind is PlaceKind.QUERY for place in found),
        principal=any(SecurityScheme.MTLS in api.schemes for api in catalog.apis.values()),
        request_id=compares_doors,
    )


def _find_places(catalog: Catalog, places: CredentialPlaces) -> Iterator[Place]:
    for api in catalog.apis.values():
        yield from places.of_api(api)
        for resource in api.resources:
            if resource.cost_from is not None:
                yield resource.cost_from.place
            if resource.tier is not None:
                yield from _places_of_tier(resource.tier)
    for tier in catalog.tiers.values():
        yield from _places_of_tier(tier)
    for limit in catalog.custom_limits:
        yield from _places_of_conditions(limit.when)
        yield from _places_of_tier(limit.tier)
        for kind, name in KeyTemplate(limit.template).named:
            if kind == "header":
                yield Place(PlaceKind.HEADER, name.lower())
            elif kind == "query":
                yield Place(PlaceKind.QUERY, name)


def _places_of_tier(tier: Tier) -> Iterator[Place]:
    for group in tier.conditions:
        yield from _places_of_conditions(group.when)


def _places_of_conditions(conditions: tuple[Condition, ...]) -> Iterator[Place]:
    for condition in conditions:
        if isinstance(condition, TextCondition):
            if condition.source is TextSource.HEADER:
                yield Place(PlaceKind.HEADER, condition.name)
            elif condition.source is TextSource.QUERY:
                yield Place(PlaceKind.QUERY, condition.name)
