"""Asks the authenticator of a pipeline who asks."""

from __future__ import annotations

from typing import Any

from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog, ClientRegistration
from extauthz.model.decision import Denial
from extauthz.model.identity import Identity, KeyType, SecurityScheme
from extauthz.model.request import ApiRequest, Peer
from extauthz.model.routing.routes import Route
from extauthz.ports import NO_DEADLINE
from tests.builders import (
    API_KEY,
    a_catalog,
    a_request,
    a_resource,
    an_api,
)
from tests.deciding import OPAQUE_ENDPOINT, Deciding
from tests.keys import an_issuer

MOBILE = Application(name="mobile", owner="alice")
WEB = Application(name="web", owner="bob")
JWT, OPAQUE, KEY, MTLS, NONE = (
    SecurityScheme.JWT,
    SecurityScheme.OPAQUE,
    SecurityScheme.API_KEY,
    SecurityScheme.MTLS,
    SecurityScheme.NONE,
)
ANY = (JWT, OPAQUE, KEY, MTLS)
SPIFFE = "spiffe://mesh/ns/a/sa/web"
CERTIFICATES = {SPIFFE: ClientRegistration(application=WEB, key_type=KeyType.SANDBOX)}


def a_catalog_for(*security: SecurityScheme, **fields: Any) -> Catalog:
    """One resource that takes these schemes, and an issuer for JWTs and opaque tokens."""
    api_fields = fields.pop("api", {})
    fields.setdefault("application", MOBILE)
    fields.setdefault("certificates", CERTIFICATES)
    fields.setdefault("issuers", (an_issuer(introspection=OPAQUE_ENDPOINT),))
    return a_catalog(an_api(a_resource(security=security or ANY), **api_fields), **fields)


def bearer(token: str, **fields: Any) -> ApiRequest:
    return a_request(headers={"authorization": f"Bearer {token}"}, **fields)


def keyed(key: str = API_KEY, **fields: Any) -> ApiRequest:
    return a_request(headers={"x-api-key": key}, **fields)


def certified(name: str = SPIFFE, **fields: Any) -> ApiRequest:
    return a_request(source=Peer(address="192.0.2.1", principal=name), **fields)


async def identify(deciding: Deciding, request: ApiRequest) -> Identity | Denial:
    """As the pipeline asks, for the only resource of the catalog."""
    catalog = deciding.catalog
    (api,) = catalog.apis.values()
    return await deciding.authenticator.identify(
        request, Route(api, api.resources[0]), catalog, request.source.address, NO_DEADLINE
    )


async def who(deciding: Deciding, request: ApiRequest) -> str:
    """The scheme and application of the identity, or the reason of the denial."""
    found = await identify(deciding, request)
    if isinstance(found, Denial):
        return found.reason.value
    name = found.application.name if found.application else "nobody"
    return f"{found.scheme.value}:{name}"


async def identity_of(deciding: Deciding, request: ApiRequest) -> Identity:
    found = await identify(deciding, request)
    assert isinstance(found, Identity), found
    return found


ACTIVE = {
    "active": True,
    "client_id": "abc123",
    "username": "carol",
    "scope": "a",
    "aud": "httpbin",
}


def knowing(deciding: Deciding, token: str = "opaque", **claims: Any) -> Deciding:
    deciding.introspector.active[token] = {**ACTIVE, **claims}
    return deciding
